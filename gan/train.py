"""Train a GAN on the training part of a fold: on its malignant images, or on all by class.

Stops after --minutes of training or --kimg thousand images, writes the averaged generator, and
shows its progress in samples/*.png. A run that was killed goes on with --resume as if nothing had
happened. Several GPUs: `torchrun --nproc-per-node N -m gan.train` with the same options.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from data.store import Dataset
from dermsynth import checkpoint, cli
from dermsynth.device import Compute, DeviceName, PrecisionName, resolve
from dermsynth.errors import UserError
from dermsynth.runs import finish_run, free_name, open_run
from dermsynth.seeds import generator
from dermsynth.tracking import Tracker, TrackingMode
from gan.distributed import Processes, join_processes
from gan.evaluation import diagnosis_network
from gan.evaluation.features import FeatureNetwork, extract
from gan.evaluation.metrics import kid
from gan.generate import draw_labels, sample
from gan.loop import Loop, Progress, Schedule
from gan.networks import architecture, describe, make_config
from gan.trainer import Game
from gan.training_images import (
    LEAST_HELD_OUT,
    ClassesName,
    Learning,
    Reals,
    held_out_rows,
    learn_from,
    open_dataset,
)
from gan.training_images import training_rows as training_rows
from gan.weights import CHECKPOINT, save_generator

RUNS = Path("runs/gan")
DEFAULT_MINUTES = {"cpu": 10.0}  # by device type; accelerators get the next
DEFAULT_MINUTES_ACCELERATOR = 60.0
SCORED = 256  # synthetic images of a score on the way
SHOWN = 1000  # training images that a generator may begin from

Repeatable = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class TrainOptions:
    data: Path | None = None  # prepared dataset; without it the phantom, prepared on the way
    fold: int = 0  # train on the other folds; never on this one nor on the test part
    arch: str = "lesiongan"  # or sngan, dcgan, wgan-gp, acgan, fastgan, projected, stylegan2
    classes: Literal["auto", ClassesName] = "auto"  # none: malignant images only; else all, by this
    recipe: Repeatable = ()  # NAME=VALUE, repeatable: another value in the architecture's config
    minutes: float | None = None  # training time, over all resumes; default 10 on a CPU, else 60
    kimg: float | None = None  # or: thousands of real images to show the discriminator
    batch: int | None = None  # images a step, over all processes; default the architecture's
    accumulate: int = 1  # parts in which a batch is computed, to save memory
    seed: int = 0  # of the weights and every random choice
    evaluate_every: float = 5.0  # minutes between two scores (KID) on held-out images; 0: none
    divergence: Literal["stop", "warn"] = "stop"  # when D wins outright or all images look the same
    device: DeviceName = "auto"  # auto takes CUDA where there is one
    precision: PrecisionName = "auto"  # auto is bf16 where the hardware has it
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline
    out: Path | None = None  # run folder; default runs/gan/DATASET-ARCH-foldF-seedS
    resume: bool = False  # go on from the last checkpoint in the run folder
    overwrite: bool = False  # replace the run in --out


MAY_CHANGE = ("minutes", "kimg", "tracking", "evaluate_every", "divergence")  # on a resume


def train(options: TrainOptions) -> Path:
    """Train and return the run folder, which then holds the generator and `generator.json`.

    Raises UserError for bad options or data and for training that diverges, KeyboardInterrupt
    after Ctrl-C or SIGTERM, when the checkpoint is written.
    """
    _check_numbers(options)
    dataset = open_dataset(options.data)
    classes = _classes(options)
    learning = learn_from(dataset, options.fold, classes)
    config = resolve_config(options, dataset.size, len(learning.classes))
    processes = join_processes()
    _check_batch(config.batch, options.accumulate, processes)
    compute = resolve(options.device, options.precision, cpu_auto="bf16")
    out = options.out or _default_out(dataset.path, options)
    plan = dataclasses.replace(
        options,
        data=dataset.path,
        out=out,
        classes=classes,
        batch=config.batch,
        minutes=_minutes(options, compute.device.type),
    )
    if processes.first:
        open_run(out, plan, options.resume, options.overwrite, may_change=MAY_CHANGE)
        cli.save_options(dataclasses.replace(plan, resume=False, overwrite=False), out)
    processes.first_says(0)  # the others wait for the folder
    game = Game(options.arch, config, options.seed, compute, options.accumulate, processes)
    done = _restore(game, out, dataset) if options.resume else Progress()
    if game.step == 0:
        game.begin_from(_some_images(dataset, learning, plan.seed))
    seconds = _run(game, plan, dataset, learning, done)
    if processes.first:
        about = _describe_run(plan, game, dataset, learning, seconds)
        save_generator(out, game.ema, about)
        finish_run(out)
        print(f"generator after {game.seen / 1000:.1f} kimg: {out}; samples in {out / 'samples'}")
    return out


def resolve_config(options: TrainOptions, size: int, classes: int) -> Any:
    """The architecture's config with what the options change in it.

    Raises UserError for an unknown name or value, and for an architecture that cannot do with or
    without classes.
    """
    config = make_config(options.arch, size)
    if classes and config.labels == "never":
        raise UserError(
            f"--classes {options.classes}: {options.arch} cannot be conditional on a class; "
            "leave it out, or choose another --arch"
        )
    if not classes and config.labels == "always":
        raise UserError(
            f"--classes none: {options.arch} needs classes; use --classes target or diagnosis"
        )
    changes: dict[str, Any] = {"classes": classes}
    if options.batch is not None:
        changes["batch"] = options.batch
    for word in options.recipe:
        name, equals, value = word.partition("=")
        if not equals or name in ("size", "classes", "batch"):
            raise UserError(
                f"--recipe {word}: expected NAME=VALUE, NAME a field of {options.arch}'s config "
                "other than size (of the dataset), classes (--classes) and batch (--batch)"
            )
        parsed = cli.from_mapping(type(config), {name: value}, f"--recipe {word}")
        changes[name] = getattr(parsed, name)
    return dataclasses.replace(config, **changes)


def _run(
    game: Game, plan: TrainOptions, dataset: Dataset, learning: Learning, done: Progress
) -> float:
    """Announce, then train to the end of the budget; returns the seconds of training."""
    assert plan.out is not None
    reals, tracker = Reals(dataset, learning, plan.seed), None
    schedule = Schedule(
        plan.out,
        plan.seed,
        plan.minutes,
        plan.kimg,
        plan.divergence == "stop",
        plan.evaluate_every,
        _scorer(dataset, learning, plan, game.compute),
    )
    facts = {"folds_hash": dataset.folds_hash}
    with contextlib.ExitStack() as stack:
        if game.processes.first:
            _announce(plan, dataset, learning, game)
            tracker = stack.enter_context(
                Tracker(
                    plan.out,
                    plan.tracking,
                    cli.as_plain(plan) | {"params": _count(game.generator)},
                    group=f"gan-{dataset.path.name}",
                    resume_step=game.step if plan.resume else None,
                )
            )
        return Loop(game, reals, schedule, tracker, done, facts).run()


def _some_images(dataset: Dataset, learning: Learning, seed: int) -> np.ndarray:
    """At most SHOWN training images, a random choice: uint8 [n, size, size, 3]."""
    rows = generator(seed, "gan/begin").permutation(learning.rows)[:SHOWN]
    return np.asarray(dataset.images[np.sort(rows)])


def _scorer(
    dataset: Dataset, learning: Learning, plan: TrainOptions, compute: Compute
) -> Callable[[torch.nn.Module], dict[str, float]]:
    """KID of a generator's malignant images against the malignant ones of the fold held out.

    By the diagnosis network where an earlier evaluation trained it: training does not wait for it.
    """
    held_out = held_out_rows(dataset, plan.fold)

    @functools.cache
    def reference() -> tuple[str, FeatureNetwork | None, np.ndarray]:
        """The score's name, the network, its features of the held-out images; at the first one."""
        name, network = "kid_imagenet", None
        if diagnosis_network.is_ready(dataset, plan.fold):
            network, _ = diagnosis_network.load_diagnosis_network(dataset, plan.fold, compute)
            name = "kid_diagnosis"
        features = extract(dataset.images[held_out], compute, "held-out images", network)
        return name, network, features

    def score(generator: torch.nn.Module) -> dict[str, float]:
        if len(held_out) < LEAST_HELD_OUT:
            return {}
        name, network, features = reference()
        described = {"classes": learning.classes}
        labels = draw_labels(described, "malignant", SCORED, plan.seed)
        made = sample(generator, SCORED, plan.seed, compute, labels)
        return {name: kid(extract(made, compute, "synthetic images", network), features)}

    return score


def _describe_run(
    plan: TrainOptions, game: Game, dataset: Dataset, learning: Learning, seconds: float
) -> dict[str, Any]:
    """What `generator.json` says: where the generator comes from and what it has seen."""
    return {
        "architecture": describe(plan.arch, game.config),
        "dataset": str(dataset.path),
        "folds_hash": dataset.folds_hash,
        "fold": plan.fold,
        "targets": "malignant" if plan.classes == "none" else plan.classes,
        "classes": learning.classes,
        "training_ids": dataset.table["image_id"].to_numpy()[learning.rows].tolist(),
        "seed": plan.seed,
        "size": dataset.size,
        "kimg": game.seen / 1000,
        "minutes": round(seconds / 60, 3),
    }


def _restore(game: Game, out: Path, dataset: Dataset) -> Progress:
    """Load the last checkpoint; returns what the loop has to remember."""
    state = checkpoint.load(out / CHECKPOINT)
    say = print if game.processes.first else lambda line: None
    if state is None:
        say("no checkpoint yet: starting from the beginning")
        return Progress()
    if state["folds_hash"] != dataset.folds_hash:
        raise UserError(
            f"--resume {out}: {dataset.path} has other images or folds than when the run began; "
            "start a new run in another --out"
        )
    try:
        game.restore(state)
    except UserError as error:
        raise UserError(f"--resume {out}: {error}") from None
    say(f"going on from {game.seen / 1000:.1f} kimg, {state['seconds'] / 60:.1f} minutes")
    return Progress(state["seconds"], state["scored"], state["counts"])


def _classes(options: TrainOptions) -> ClassesName:
    """`auto` is none, but for an architecture that needs classes."""
    if options.classes != "auto":
        return options.classes
    return "target" if architecture(options.arch).config.labels == "always" else "none"


def _minutes(options: TrainOptions, device: str) -> float | None:
    if options.minutes is not None or options.kimg is not None:
        return options.minutes
    return DEFAULT_MINUTES.get(device, DEFAULT_MINUTES_ACCELERATOR)


def _check_numbers(options: TrainOptions) -> None:
    if options.minutes is not None and options.kimg is not None:
        raise UserError("--minutes and --kimg: give one of them")
    for name in ("minutes", "kimg", "batch", "accumulate"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name} {value}: expected a number above 0")
    if not options.evaluate_every >= 0:
        raise UserError(f"--evaluate-every {options.evaluate_every}: expected minutes, 0 for never")


def _check_batch(batch: int, accumulate: int, processes: Processes) -> None:
    parts = accumulate * processes.count
    if batch % parts or batch // parts < 2:
        shares = f", {accumulate} part(s) in {processes.count} process(es)" if parts > 1 else ""
        raise UserError(
            f"--batch {batch}{shares}: expected equal parts of 2 images or more, for batch norm"
        )


def _default_out(data: Path, options: TrainOptions) -> Path:
    stem = f"{data.name}-{options.arch}-fold{options.fold}-seed{options.seed}"
    if options.resume:
        found = [path for path in RUNS.glob(f"{stem}*") if (path / "config.yaml").exists()]
        return max(found, key=lambda path: path.stat().st_mtime, default=RUNS / stem)
    return free_name(RUNS, stem)


def _announce(plan: TrainOptions, dataset: Dataset, learning: Learning, game: Game) -> None:
    budget = f"{plan.kimg:g} kimg" if plan.kimg is not None else f"{plan.minutes:g} minutes"
    kinds = ", ".join(f"{c['count']} {c['name']}" for c in learning.classes)
    print(
        f"GAN on {dataset.path}, fold {plan.fold}: {kinds or f'{len(learning.rows)} malignant'} "
        f"training images of {dataset.size} px\n{plan.arch}: generator "
        f"{_count(game.generator) / 1e6:.1f} M, discriminator "
        f"{_count(game.discriminator) / 1e6:.1f} M parameters; batch {plan.batch}; "
        f"{game.compute}\nbudget {budget}, run folder {plan.out}"
    )


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    cli.run(TrainOptions, train, "gan.train", __doc__ or "")
