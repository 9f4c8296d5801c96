"""An evaluation network that learned lesions from nothing but the dataset's training folds.

A small ResNet-18 (He et al. 2016) that tells the diagnoses of a fold's training part apart. It
shares no weight and no pretraining with any discriminator. Trained once per dataset and fold, in
some minutes on two cores, and kept in the dataset's folder under `.evaluation/`, whose lock
processes hold in turn: the second one finds what the first has trained.
"""

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from data.store import Dataset
from dermsynth import checkpoint, progress
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.locks import locked
from dermsynth.optimizers import settle
from dermsynth.seeds import generator, seed_torch
from dermsynth.symmetries import turn_each
from gan.evaluation.features import BATCH as READ
from gan.evaluation.features import FeatureNetwork, as_input

FOLDER = ".evaluation"  # in the dataset's folder
WIDTH = 32  # channels of the first stage, 8 times as many in the last
SIDE = 128  # px; larger images are reduced to it
LEAST = 8  # training images that a diagnosis needs to count
SEEN, EPOCHS, LEAST_STEPS = 20_000, 8, 100  # images shown, at most as often as, at least steps
BATCH, RATE, DECAY, SMOOTHING = 32, 2e-3, 0.05, 0.1  # AdamW, one cycle, label smoothing
SHIFT = 1 / 16  # of the side, either way
SAVE_SECONDS = 20  # between two checkpoints
RECIPE = f"resnet18 {WIDTH} {SIDE} {SEEN} {EPOCHS} {LEAST_STEPS} {BATCH} {RATE} {DECAY} {SHIFT}"


class Block(nn.Module):
    """[n, inner, s, s] -> [n, outer, s / stride, s / stride]: two convolutions and a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(inplace=True),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        nn.init.zeros_(self.main[-1].weight)  # begins as its shortcut (Goyal et al. 2017)
        self.shortcut = nn.Identity()
        if stride > 1 or inner != outer:
            conv = nn.Conv2d(inner, outer, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inner, s, s] -> [n, outer, s / stride, s / stride]."""
        return F.relu(self.shortcut(x) + self.main(x))


class DiagnosisNetwork(nn.Module):
    """Images float [n, 3, s, s] in 0..1 -> features [n, 256], or `logits` [n, classes].

    Features are the averages of the last stage's maps, all divided by one number, so that over the
    training images their mean square is 1: KID's kernel is not the same at every scale.
    """

    scale: torch.Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        widths = [WIDTH, WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH]
        blocks: list[nn.Module] = []
        for stage, (inner, outer) in enumerate(pairwise(widths)):
            blocks += [Block(inner, outer, 2 if stage else 1), Block(outer, outer, 1)]
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], classes)
        self.register_buffer("scale", torch.ones(()))

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """Averages of the last stage's maps, float32 [n, 256], before they are scaled."""
        x = (2 * reduced(x) - 1).contiguous(memory_format=torch.channels_last)
        return self.stages(self.stem(x)).float().mean((2, 3))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Of the diagnoses, [n, classes]."""
        return self.head(self.pooled(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The features, float32 [n, 256]."""
        return self.pooled(x) / self.scale


class EarlyMaps(nn.Module):
    """What fine detail is to a DiagnosisNetwork: float [n, 3, s, s] in 0..1 -> float32 [n, 64].

    Of each map of the stem (64 x 64 for 128 px) and of the first stage (32 x 32) the log of the
    standard deviation of its differences to the mean of the 3 x 3 around. Means and whole
    deviations, which know colours and outlines, hardly see a blur of 1 px.
    """

    def __init__(self, network: DiagnosisNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The features, float32 [n, 64]."""
        x = (2 * reduced(x) - 1).contiguous(memory_format=torch.channels_last)
        stem = self.network.stem[:2](x)
        first = self.network.stages[:2](self.network.stem[2:](stem.clone()))
        return torch.cat([_detail(maps.float()) for maps in (stem, first)], 1)


def _detail(maps: torch.Tensor) -> torch.Tensor:
    around = F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)
    return ((maps - around).std((2, 3)) + 1e-3).log()


def reduced(x: torch.Tensor) -> torch.Tensor:
    """Images no larger than SIDE."""
    return F.interpolate(x, SIDE, mode="area") if x.shape[-1] > SIDE else x


@dataclass(frozen=True)
class _Lesson:
    """What there is to learn from the training part of a fold, and where the result is kept."""

    dataset: Dataset
    fold: int
    column: str  # diagnosis, or target where there are no two diagnoses
    rows: np.ndarray  # int64 [n], of the dataset
    labels: np.ndarray  # int64 [n]
    names: list[str]
    chances: np.ndarray  # float [n], sum 1: rare diagnoses are shown more often than they come

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return max(min(SEEN, EPOCHS * len(self.rows)) // BATCH, LEAST_STEPS)

    @property
    def folder(self) -> Path:
        """In the dataset's folder, or under runs/ where that cannot be written to."""
        dataset = self.dataset
        fold = f"fold{self.fold}{dataset.view.name}"
        stem = f"diagnosis-{fold}-{dataset.size}px-{dataset.identity.id[:12]}"
        home = dataset.path if os.access(dataset.path, os.W_OK) else Path("runs")
        return home / FOLDER / stem

    @property
    def facts(self) -> dict[str, str]:
        """By which what is kept is known again."""
        dataset = self.dataset
        facts = {"recipe": RECIPE, "dataset": dataset.identity.id}
        return facts | ({"view": name} if (name := dataset.view.name) else {})


def can_learn(dataset: Dataset, fold: int) -> bool:
    """Whether the training part of `fold` has two diagnoses, or targets, of 8 images or more."""
    return _lesson(dataset, fold) is not None


def images_shown(dataset: Dataset, fold: int) -> int:
    """To the network of this dataset and fold while it learns, 0 where it has nothing to learn."""
    lesson = _lesson(dataset, fold)
    return lesson.steps * BATCH if lesson else 0


def is_ready(dataset: Dataset, fold: int) -> bool:
    """Whether the network of this dataset and fold lies there, trained to its end."""
    lesson = _lesson(dataset, fold)
    try:
        state = _saved(lesson) if lesson else None
    except UserError:  # damaged; or another process is just replacing it
        return False
    return state is not None and state["step"] == lesson.steps


def load_diagnosis_network(
    dataset: Dataset, fold: int, compute: Compute
) -> tuple[FeatureNetwork, dict[str, Any]]:
    """The network of this dataset and fold, in eval mode, and what is known about it.

    Trained if it is not there yet; what a killed process left half trained is gone on with. The
    facts: `classes`, `n_training`, `auc` (mean over the classes, each against the rest, on the
    validation part). Raises UserError where there are no two diagnoses to tell apart.
    """
    lesson = _lesson(dataset, fold)
    if lesson is None:
        raise UserError(
            f"--network diagnosis: {dataset.path} has no two diagnoses with {LEAST} images or more "
            f"in the training part of fold {fold}; use --network imagenet"
        )
    seed_torch(0, "evaluation network")
    network = DiagnosisNetwork(len(lesson.names))
    with locked(lesson.folder, wait=True):
        state = _saved_or_cleared(lesson)
        if state is None or state["step"] < lesson.steps:
            _train(network, lesson, state, compute)
            _finish(network, lesson, compute)
            state = _saved(lesson)
            assert state is not None
    network.load_state_dict(state["network"])
    name = f"diagnosis-resnet18-{_fingerprint(network)}"
    return FeatureNetwork(name, network.eval().requires_grad_(False)), state["facts"]


def early_maps(network: FeatureNetwork) -> FeatureNetwork:
    """What fine detail is to a network of `load_diagnosis_network`."""
    assert isinstance(network.module, DiagnosisNetwork)
    return FeatureNetwork(f"{network.name}-early", EarlyMaps(network.module).eval())


def _lesson(dataset: Dataset, fold: int) -> _Lesson | None:
    rows = dataset.rows("train", fold)
    rows = rows[dataset.table["target"].iloc[rows].notna().to_numpy()]
    for column in ("diagnosis", "target"):
        labels = _labels(dataset, rows, column)
        names, counts = np.unique(labels[labels != ""], return_counts=True)
        names = names[counts >= LEAST]
        if len(names) >= 2:
            known = np.isin(labels, names)
            numbers = np.searchsorted(names, labels[known])
            chances = np.bincount(numbers)[numbers] ** -0.5
            chances = chances / chances.sum()
            return _Lesson(dataset, fold, column, rows[known], numbers, names.tolist(), chances)
    return None


def _labels(dataset: Dataset, rows: np.ndarray, column: str) -> np.ndarray:
    """str [len(rows)]; empty where there is none."""
    values = dataset.table[column].iloc[rows]
    if column == "target":
        values = values.map({0: "benign", 1: "malignant"})
    return values.astype(object).fillna("").to_numpy(str)


def _saved(lesson: _Lesson) -> dict[str, Any] | None:
    """What is there, of this dataset and recipe. Raises UserError where it is damaged."""
    state = checkpoint.load(lesson.folder)
    return state if state and lesson.facts.items() <= state.items() else None


def _saved_or_cleared(lesson: _Lesson) -> dict[str, Any] | None:
    """As `_saved`; what is damaged is thrown away."""
    try:
        return _saved(lesson)
    except UserError as error:
        print(f"warning: {error}; the evaluation network is trained again")
        shutil.rmtree(lesson.folder, ignore_errors=True)
        return None


def _train(
    network: DiagnosisNetwork, lesson: _Lesson, state: dict[str, Any] | None, compute: Compute
) -> None:
    """One cycle of AdamW over random, turned and shifted images; every step depends on its number.

    OneCycle: Smith and Topin 2019.
    """
    network = network.to(compute.device, memory_format=torch.channels_last)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), RATE, (0.9, 0.99), weight_decay=DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=lesson.steps + 1, pct_start=0.2
    )
    parts = {"network": network, "optimizer": optimizer, "cycle": cycle}
    first = 0
    if state is not None:
        first = state["step"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    settle(compute.device, [optimizer], [network])
    compute.step()
    print(
        f"evaluation network: {len(lesson.names)} diagnoses of {len(lesson.rows)} training images; "
        f"trained once, then kept in {lesson.folder}"
    )
    saved = time.monotonic()
    total = lesson.steps * BATCH
    with progress.bar(total, "evaluation network", "img", initial=first * BATCH) as bar:
        for step in range(first, lesson.steps):
            if time.monotonic() - saved > SAVE_SECONDS:
                states = {name: part.state_dict() for name, part in parts.items()}
                checkpoint.save(lesson.folder, {**lesson.facts, "step": step, **states})
                saved = time.monotonic()
            images, labels = _batch(lesson, step)
            with compute.autocast():
                logits = network.logits(as_input(images, compute))
            targets = torch.from_numpy(labels).to(compute.device)
            loss = F.cross_entropy(logits.float(), targets, label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            compute.step()
            bar.update(BATCH)


def _batch(lesson: _Lesson, step: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [BATCH, s, s, 3], int64 [BATCH] of a step: turned, flipped, shifted over their rim."""
    rng = generator(0, "evaluation network", step)
    chosen = rng.choice(len(lesson.rows), BATCH, p=lesson.chances)
    images = np.asarray(lesson.dataset.images[lesson.rows[chosen]])
    images = turn_each(images, rng.integers(0, 8, BATCH))
    side = images.shape[1]
    reach = round(SHIFT * side)
    down, right = rng.integers(0, 2 * reach + 1, 2)
    rims = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = np.pad(images, rims, mode="reflect")
    return padded[:, down : down + side, right : right + side], lesson.labels[chosen]


@torch.no_grad()
def _finish(network: DiagnosisNetwork, lesson: _Lesson, compute: Compute) -> None:
    """Fix the features' scale, see what the network can do, keep it without its optimizer."""
    network.eval()
    rng = generator(0, "evaluation network", "scale")
    rows = rng.permutation(lesson.rows)[:1000]
    pooled, _ = _see(network, lesson.dataset, rows, compute)
    network.scale.fill_(float(np.sqrt(np.square(pooled).mean())))
    compute.step()
    facts = {
        "classes": lesson.names,
        "n_training": len(lesson.rows),
        "auc": _auc(network, lesson, compute),
    }
    final = {**lesson.facts, "step": lesson.steps, "network": network.state_dict()}
    checkpoint.save(lesson.folder, {**final, "facts": facts})
    (lesson.folder / checkpoint.PREVIOUS).unlink(missing_ok=True)


def _see(
    network: DiagnosisNetwork, dataset: Dataset, rows: np.ndarray, compute: Compute
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features [n, 256] and probabilities [n, classes] of rows of the dataset."""
    pooled, chances = [], []
    for start in range(0, len(rows), READ):
        batch = rows[start : start + READ]
        images = as_input(np.asarray(dataset.images[compute.filled(batch, READ)]), compute)
        with compute.autocast():
            maps = network.pooled(images)
            scores = network.head(maps).float().softmax(1)
        compute.step()
        pooled.append(maps)
        chances.append(scores)
    first, second = (
        np.concatenate([part.cpu().numpy() for part in parts])[: len(rows)]
        for parts in (pooled, chances)
    )
    return first, second


def _auc(network: DiagnosisNetwork, lesson: _Lesson, compute: Compute) -> float | None:
    """Mean AUC of each class against the rest on the validation part; None where it has one."""
    rows = lesson.dataset.rows("val", lesson.fold)
    labels = _labels(lesson.dataset, rows, lesson.column)
    _, chances = _see(network, lesson.dataset, rows, compute)
    aucs = [
        roc_auc_score(labels == name, chances[:, number])
        for number, name in enumerate(lesson.names)
        if 0 < (labels == name).sum() < len(rows)
    ]
    return float(np.mean(aucs)) if aucs else None


def _fingerprint(network: nn.Module) -> str:
    """Eight hex digits of the weights: another training gives other features."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
