"""Train a GAN on the malignant images of a fold's training part.

Stops after --minutes of training or --kimg thousand images, writes the averaged generator, and
shows its progress in samples/*.png. A run that was killed goes on with --resume as if nothing had
happened.
"""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.prepare import default_dataset
from data.store import Dataset, load_dataset
from gan.augment import random_symmetry
from gan.game import Game
from gan.networks import describe, make_config
from gan.weights import CHECKPOINT, save_generator
from runtime import checkpoint, cli, progress
from runtime.device import DeviceName, PrecisionName, resolve
from runtime.errors import UserError
from runtime.interrupts import StopRequest, stop_request
from runtime.runs import finish_run, free_name, open_run
from runtime.seeds import generator
from runtime.tracking import Tracker, TrackingMode

RUNS = Path("runs/gan")
DEFAULT_MINUTES = {"cpu": 10.0}  # by device type; accelerators get the next
DEFAULT_MINUTES_ACCELERATOR = 60.0
LEAST_IMAGES, FEW_IMAGES = 8, 50
CHECKPOINT_SECONDS = 60.0  # between two checkpoints; a kill loses no more than that
LOG_STEPS = 50  # between two rows of metrics.jsonl
GRID = 6  # sample grids are GRID x GRID images


@dataclass(frozen=True)
class TrainOptions:
    data: Path | None = None  # prepared dataset; without it the phantom, prepared on the way
    fold: int = 0  # train on the other folds; never on this one nor on the test part
    arch: str = "lesiongan"  # lesiongan (lean, made for this) or sngan (baseline)
    minutes: float | None = None  # training time, over all resumes; default 10 on a CPU, else 60
    kimg: float | None = None  # or: thousands of real images to show the discriminator
    batch: int = 16  # images a step
    seed: int = 0  # of the weights and every random choice
    device: DeviceName = "auto"  # auto takes CUDA where there is one
    precision: PrecisionName = "auto"  # auto is bf16 where the hardware has it
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline
    out: Path | None = None  # run folder; default runs/gan/DATASET-ARCH-foldF-seedS
    resume: bool = False  # go on from the last checkpoint in the run folder
    overwrite: bool = False  # replace the run in --out


def train(options: TrainOptions) -> Path:
    """Train and return the run folder, which then holds the generator and `generator.json`.

    Raises UserError for bad options or data and for training that diverges, KeyboardInterrupt
    after Ctrl-C or SIGTERM, when the checkpoint is written.
    """
    _check_numbers(options)
    dataset = open_dataset(options.data)
    rows = training_rows(dataset, options.fold)
    config = make_config(options.arch, dataset.size)
    compute = resolve(options.device, options.precision, cpu_auto="bf16")
    out = options.out or _default_out(dataset.path, options)
    plan = dataclasses.replace(
        options, data=dataset.path, out=out, minutes=_minutes(options, compute.device.type)
    )
    changeable = ("minutes", "kimg", "tracking")
    open_run(out, plan, options.resume, options.overwrite, may_change=changeable)
    cli.save_options(dataclasses.replace(plan, resume=False, overwrite=False), out)
    game = Game(options.arch, config, options.batch, options.seed, compute)
    _announce(plan, dataset, rows, game)
    seconds = _restore(game, out, dataset) if options.resume else 0.0
    with Tracker(
        out,
        options.tracking,
        cli.as_plain(plan) | {"params": _count(game.generator)},
        group=f"gan-{dataset.path.name}",
        resume_step=game.step if options.resume else None,
    ) as tracker:
        seconds = _Loop(game, dataset, rows, plan, tracker, seconds).run()
    save_generator(out, game.ema, _describe_run(plan, config, dataset, rows, game.seen, seconds))
    finish_run(out)
    print(f"generator after {game.seen / 1000:.1f} kimg: {out}; samples in {out / 'samples'}")
    return out


def _describe_run(
    plan: TrainOptions,
    config: Any,
    dataset: Dataset,
    rows: np.ndarray,
    seen: int,
    seconds: float,
) -> dict[str, Any]:
    """What `generator.json` says: where the generator comes from and what it has seen."""
    return {
        "architecture": describe(plan.arch, config),
        "dataset": str(dataset.path),
        "folds_hash": dataset.folds_hash,
        "fold": plan.fold,
        "targets": "malignant",
        "training_ids": dataset.table["image_id"].to_numpy()[rows].tolist(),
        "seed": plan.seed,
        "size": dataset.size,
        "kimg": seen / 1000,
        "minutes": round(seconds / 60, 3),
    }


def open_dataset(path: Path | None) -> Dataset:
    """The dataset at `path`; without one the phantom, prepared if it is not there yet."""
    return load_dataset(path or default_dataset())


def training_rows(dataset: Dataset, fold: int) -> np.ndarray:
    """Row numbers of the malignant images in the training part of `fold`.

    Raises UserError with fewer than 8; warns with fewer than 50.
    """
    rows = dataset.rows("train", fold)
    rows = rows[dataset.targets(rows) == 1]
    if len(rows) < LEAST_IMAGES:
        raise UserError(
            f"{dataset.path}: {len(rows)} malignant images in the training part of fold {fold}; "
            f"a GAN needs {LEAST_IMAGES} at the very least, some hundreds to be of use"
        )
    if len(rows) < FEW_IMAGES:
        print(f"warning: only {len(rows)} malignant images to learn from: expect copies of them")
    return rows


class _Loop:
    """Steps until the budget is spent, with metrics, sample grids and checkpoints on the way."""

    def __init__(
        self,
        game: Game,
        dataset: Dataset,
        rows: np.ndarray,
        plan: TrainOptions,
        tracker: Tracker,
        seconds: float,
    ) -> None:
        assert plan.out is not None
        self.game, self.plan, self.tracker, self.out = game, plan, tracker, plan.out
        self.images, self.folds_hash = dataset.images[rows], dataset.folds_hash
        self.before, self.started, self.saved = seconds, time.monotonic(), time.monotonic()

    @property
    def seconds(self) -> float:
        """Training time over all resumes."""
        return self.before + time.monotonic() - self.started

    @property
    def finished(self) -> bool:
        if self.plan.kimg is not None:
            return self.game.seen >= self.plan.kimg * 1000
        assert self.plan.minutes is not None
        return self.seconds >= self.plan.minutes * 60

    def run(self) -> float:
        """Returns the seconds of training over all resumes."""
        game, shown = self.game, self.images[: GRID**2]
        save_grid(self.out / "samples" / "reals.png", shown)
        with stop_request() as stop, self._bar() as bar:
            started = self.seconds
            while not self.finished:
                game.play(torch.from_numpy(self._batch()))
                if self.plan.kimg is None:
                    rate = game.seen / self.seconds
                    bar.set_postfix_str(f"{rate:.1f} img/s, {game.seen / 1000:.1f} kimg", False)
                    bar.update(min(self.seconds - started, bar.total) - bar.n)
                else:
                    bar.update(game.batch)
                self._record()
                if stop.requested or time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
                    self._checkpoint(stop)
        if self.game.seen:
            self._checkpoint(StopRequest())
            self._sample()
        return self.seconds

    def _batch(self) -> np.ndarray:
        """uint8 [batch, size, size, 3]: each image once an epoch, each time flipped or turned."""
        n, batch = len(self.images), self.game.batch
        places = np.arange(self.game.seen, self.game.seen + batch)
        orders = {
            epoch: generator(self.plan.seed, "gan/order", int(epoch)).permutation(n)
            for epoch in np.unique(places // n)
        }
        picked = [orders[place // n][place % n] for place in places]
        draws = generator(self.plan.seed, "gan/symmetry", self.game.step).integers(0, 8, batch)
        return random_symmetry(self.images[picked], draws)

    def _record(self) -> None:
        step = self.game.step
        if step % LOG_STEPS == 0:
            means = self.game.take_means(LOG_STEPS)
            self._check_finite(all(np.isfinite(list(means.values()))))
            self.tracker.log(
                step, kimg=self.game.seen / 1000, seconds=round(self.seconds, 1), **means
            )
        if _grid_due(self.game.seen, self.game.batch):
            self._sample()

    def _sample(self) -> None:
        """Pictures of the same latents at every time."""
        path = self.out / "samples" / f"{self.game.seen:08d}.png"
        rng = generator(self.plan.seed, "gan/samples")
        z = rng.standard_normal((GRID**2, self.game.ema.latent_dim), np.float32)
        with torch.no_grad(), self.game.compute.autocast():
            images = self.game.ema(torch.from_numpy(z).to(self.game.compute.device))
        save_grid(path, to_uint8(images))
        self.tracker.image(self.game.step, "samples", path)

    def _checkpoint(self, stop: StopRequest) -> None:
        self._check_finite(self.game.is_finite())
        facts = {"seconds": self.seconds, "folds_hash": self.folds_hash}
        checkpoint.save(self.out / CHECKPOINT, self.game.state() | facts)
        self.saved = time.monotonic()
        if stop.requested and not self.finished:
            raise KeyboardInterrupt(
                f"checkpoint at {self.game.seen / 1000:.1f} kimg written; the same command with "
                f"`--out {self.out} --resume` goes on from there"
            )

    def _check_finite(self, finite: bool) -> None:
        if not finite:
            raise UserError(
                f"training diverged before step {self.game.step}: a loss is not a number any "
                f"more. The last good checkpoint is in {self.out / CHECKPOINT}; start again with "
                "--precision fp32, a larger --batch or another --seed"
            )

    def _bar(self) -> Any:
        if self.plan.kimg is not None:
            left = max(self.plan.kimg * 1000 - self.game.seen, 0)
            return progress.bar(left, "gan", "img")
        assert self.plan.minutes is not None
        left = max(self.plan.minutes * 60 - self.before, 0)
        layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        return progress.bar(left, "gan", "s", bar_format=layout)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """float [n, 3, s, s] in -1..1 -> uint8 [n, s, s, 3], rounded to the nearest."""
    levels = images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def save_grid(path: Path, images: np.ndarray) -> None:
    """Write uint8 [n, s, s, 3] as one PNG of GRID columns."""
    rows = [np.concatenate(list(_padded(row)), 1) for row in _chunks(images)]
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[start : start + GRID] for start in range(0, len(images), GRID))


def _padded(row: np.ndarray) -> np.ndarray:
    missing = GRID - len(row)
    return np.concatenate([row, np.zeros((missing, *row.shape[1:]), np.uint8)]) if missing else row


def _grid_due(seen: int, batch: int) -> bool:
    """At 1, 2, 4, 8, ... thousand images."""
    kimg, before = seen // 1000, (seen - batch) // 1000
    return kimg > 0 and kimg.bit_length() > before.bit_length()


def _restore(game: Game, out: Path, dataset: Dataset) -> float:
    """Load the last checkpoint; returns the seconds trained so far, 0 where there is none yet."""
    state = checkpoint.load(out / CHECKPOINT)
    if state is None:
        print("no checkpoint yet: starting from the beginning")
        return 0.0
    if state["folds_hash"] != dataset.folds_hash:
        raise UserError(
            f"--resume {out}: {dataset.path} has other images or folds than when the run began; "
            "start a new run in another --out"
        )
    game.restore(state)
    print(f"going on from {game.seen / 1000:.1f} kimg, {state['seconds'] / 60:.1f} minutes")
    return state["seconds"]


def _minutes(options: TrainOptions, device: str) -> float | None:
    if options.minutes is not None or options.kimg is not None:
        return options.minutes
    return DEFAULT_MINUTES.get(device, DEFAULT_MINUTES_ACCELERATOR)


def _check_numbers(options: TrainOptions) -> None:
    if options.minutes is not None and options.kimg is not None:
        raise UserError("--minutes and --kimg: give one of them")
    for name in ("minutes", "kimg", "batch"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name} {value}: expected a number above 0")
    if options.batch < 2:
        raise UserError("--batch 1: batch norm needs 2 images or more")


def _default_out(data: Path, options: TrainOptions) -> Path:
    stem = f"{data.name}-{options.arch}-fold{options.fold}-seed{options.seed}"
    if options.resume:
        found = [path for path in RUNS.glob(f"{stem}*") if (path / "config.yaml").exists()]
        return max(found, key=lambda path: path.stat().st_mtime, default=RUNS / stem)
    return free_name(RUNS, stem)


def _announce(plan: TrainOptions, dataset: Dataset, rows: np.ndarray, game: Game) -> None:
    budget = f"{plan.kimg:g} kimg" if plan.kimg is not None else f"{plan.minutes:g} minutes"
    print(
        f"GAN on {dataset.path}, fold {plan.fold}: {len(rows)} malignant training images of "
        f"{dataset.size} px\n{plan.arch}: generator {_count(game.generator) / 1e6:.1f} M, "
        f"discriminator {_count(game.discriminator) / 1e6:.1f} M parameters; batch {plan.batch}; "
        f"{game.compute}\nbudget {budget}, run folder {plan.out}"
    )


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    cli.run(TrainOptions, train, "gan.train", __doc__ or "")
