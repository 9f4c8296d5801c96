"""What a run trains on: real images, extra malignant ones, and the order they come in."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from classifier.targets import UNKNOWN, Target
from data.pool import Pool, leak, load_pool
from data.store import Dataset
from dermsynth.errors import UserError
from dermsynth.files import read_json, sha256
from dermsynth.seeds import generator

Share = float | Literal["balanced"]
GENERATOR_RUNS = Path("runs/gan")


@dataclass(frozen=True)
class TrainingList:
    """The final training set: the real images, then the extra ones."""

    rows: np.ndarray  # int64 [n]: row of the dataset, or of the pool where `synthetic`
    synthetic: np.ndarray  # bool [n]
    labels: np.ndarray  # int64 [n], classes of the target
    targets: np.ndarray  # bool [n], malignant
    n_real: int  # without the extra ones

    def __len__(self) -> int:
        return len(self.rows)


def real_rows(
    dataset: Dataset, fold: int, target: Target, cap: int, upsample: bool, seed: int
) -> np.ndarray:
    """Rows of the real training images whose class is known, int64 [n].

    `cap` keeps that many of a class, drawn at random (0: all); `upsample` then repeats those of
    smaller classes, none twice more often than another, until all are as many as the largest.
    """
    rows = dataset.rows("train", fold)
    labels = target.labels(dataset.table.iloc[rows])
    if not cap and not upsample:
        return rows[labels != UNKNOWN]
    of_class = []
    for label in np.unique(labels[labels != UNKNOWN]):
        drawn = generator(seed, "sample", int(label)).permutation(rows[labels == label])
        of_class.append(drawn[: cap or None])
    if upsample:
        most = max(map(len, of_class))
        of_class = [np.resize(drawn, most) for drawn in of_class]
    return np.sort(np.concatenate(of_class))


def parse_share(option: str, text: str) -> float | Literal["balanced"]:
    """`0.3` or `balanced`. Raises UserError unless 0 <= share < 1; `option` names the culprit."""
    if text == "balanced":
        return "balanced"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(
            f"{option} {text}: expected a share of the final training set, 0 <= share < 1 "
            "(0.3: three images in ten are extra), or `balanced`"
        )
    return share


def extra_count(n_benign: int, n_malignant: int, share: float | Literal["balanced"]) -> int:
    """Extra malignant images to add to the real ones, none of which is ever dropped.

    A share s of the final set means n_extra = s / (1 - s) * n_real; `balanced` evens the classes.
    """
    if share == "balanced":
        return max(0, n_benign - n_malignant)
    return round(share / (1 - share) * (n_benign + n_malignant))


def extras_needed(targets: np.ndarray, share: Share) -> int:
    """How many extra malignant images a share of the final training set means.

    `targets` 0/1 [n], whether the real training images are malignant.
    """
    return extra_count(int((targets == 0).sum()), int((targets == 1).sum()), share)


def training_list(
    dataset: Dataset, rows: np.ndarray, target: Target, synthetic: int, oversampled: int, seed: int
) -> TrainingList:
    """Real `rows` and either the pool's first `synthetic` or `oversampled` malignant real ones.

    Duplicates are spread evenly: no image comes twice more often than another. Synthetic images
    have the malignant class that most real ones have.
    """
    malignant = rows[dataset.targets(rows) == 1]
    if oversampled:
        drawn = generator(seed, "oversample").permutation(np.unique(malignant))
        extra = np.resize(drawn, oversampled)
        extra_labels = target.labels(dataset.table.iloc[extra])
    else:
        extra = np.arange(synthetic)
        usual = np.bincount(target.labels(dataset.table.iloc[malignant])).argmax()
        extra_labels = np.full(synthetic, usual)
    labels = np.concatenate([target.labels(dataset.table.iloc[rows]), extra_labels])
    from_pool = np.zeros(len(labels), bool)
    from_pool[len(rows) :] = synthetic > 0
    is_malignant = np.array(target.malignant)[labels]
    return TrainingList(np.concatenate([rows, extra]), from_pool, labels, is_malignant, len(rows))


class DataOrder:
    """An endless stream of permutations of n images, cut into batches; any step at any time.

    Arms with lists of the same length and the same seed see the same positions at each step.
    With `classes`, int64 [n], each round draws n images with replacement instead, all classes
    equally often on average.
    """

    def __init__(self, seed: int, n: int, batch: int, classes: np.ndarray | None = None) -> None:
        self.seed, self.n, self.batch = seed, n, batch
        self._chance = None
        if classes is not None:
            counts = np.bincount(classes)
            self._chance = 1 / (counts[classes] * np.count_nonzero(counts))
        self._permutation: dict[int, np.ndarray] = {}

    def positions(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the list and how often the list has been gone through, int64 [batch]."""
        number = np.arange(step * self.batch, (step + 1) * self.batch)
        rounds, within = number // self.n, number % self.n
        found = np.empty_like(number)
        for round_ in np.unique(rounds):
            chosen = rounds == round_
            found[chosen] = self._round(int(round_))[within[chosen]]
        return found, rounds

    def _round(self, number: int) -> np.ndarray:
        if number not in self._permutation:
            self._permutation = {k: v for k, v in self._permutation.items() if k == number - 1}
            rng = generator(self.seed, "order", number)
            if self._chance is None:
                self._permutation[number] = rng.permutation(self.n)
            else:
                self._permutation[number] = rng.choice(self.n, self.n, p=self._chance)
        return self._permutation[number]


def open_pool(
    dataset: Dataset, fold: int, path: Path, needed: int, allow_leakage: bool
) -> tuple[Pool, str | None]:
    """A pool that may be used on this fold, and why not where `allow_leakage` lets it pass.

    Raises UserError for a leak, for a pool that is too small or not of malignant images.
    """
    pool = load_pool(path)
    label = pool.info["provenance"].get("label") or "malignant"
    positive = dataset.info.get("options", {}).get("positive", "mel").split(",")
    if label not in ("malignant", *positive):
        raise UserError(
            f"--pool {path}: its images are {label}; synthetic images count as malignant here: "
            "make them with `python -m gan.generate --label malignant`"
        )
    reason = leak(pool, dataset, fold)
    if reason and not allow_leakage:
        raise UserError(f"{reason}. (--allow-leakage trains anyway and marks every output)")
    if len(pool.images) < needed:
        made = pool.info["provenance"]["kind"] == "generator"
        bigger = f"make them with `python -m gan.generate --generator RUN --count {needed}`"
        raise UserError(
            f"--pool {path}: holds {len(pool.images)} images, {needed} are needed; "
            f"{bigger if made else 'bring more of them'}, or lower --synthetic"
        )
    return pool, reason


def pool_of_generator(
    dataset: Dataset, fold: int, run: Path, count: int, seed: int, device: str, allow_leakage: bool
) -> Path:
    """The run's pool for `seed` of at least `count` images, made by `gan.generate` if need be.

    Raises UserError where the generator saw images of this fold's validation or test part.
    """
    weights, info = run / "generator.safetensors", run / "generator.json"
    if not weights.exists() or not info.exists():
        raise UserError(
            f"--generator {run}: no finished generator there (generator.safetensors and "
            f"generator.json); train one: `python -m gan.train --data {dataset.path} --fold {fold}`"
        )
    provenance = {"kind": "generator", "generator": read_json(info)}
    reason = leak(Pool(run, np.empty(0), {"provenance": provenance}), dataset, fold)
    if reason and not allow_leakage:
        raise UserError(f"{reason}. (--allow-leakage trains anyway and marks every output)")
    made = sha256(weights)
    for out in (run / "pools").glob(f"*-seed{seed}"):
        pool = load_pool(out)
        # a larger pool of the same seed begins with the same images
        if pool.info["provenance"].get("sha256") == made and len(pool.images) >= count:
            return out
    out = run / "pools" / f"{count}-seed{seed}"
    command = [sys.executable, "-m", "gan.generate", "--generator", str(run)]
    command += ["--count", str(count), "--seed", str(seed), "--out", str(out)]
    command += ["--device", device, "--overwrite"]
    print(f"making {count} synthetic images: {out}", flush=True)
    if code := subprocess.run(command, check=False).returncode:
        raise UserError(f"the pool could not be made (exit code {code}): {' '.join(command)}")
    return out


def newest_generator(dataset: Dataset, fold: int) -> Path:
    """The newest finished generator run under `runs/gan` trained on this fold of this dataset.

    Raises UserError naming the command that makes one.
    """
    found = []
    for info in GENERATOR_RUNS.glob("*/generator.json"):
        generator_ = read_json(info)
        fits = generator_.get("folds_hash") == dataset.folds_hash and generator_.get("fold") == fold
        if fits and (info.parent / "generator.safetensors").exists():
            found.append(info)
    if not found:
        raise UserError(
            f"--synthetic: no generator under {GENERATOR_RUNS} was trained on fold {fold} of "
            f"{dataset.path}; train one: `python -m gan.train --data {dataset.path} --fold {fold}`,"
            " or give --pool or --generator"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent
