"""What an experiment takes: minutes from a few steps on this machine, images, bytes on disk."""

import contextlib
import io
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from classifier.options import pair
from classifier.training.loop import Loop
from classifier.training.setup import build_model
from classifier.training.setup import resolve as resolve_setup
from classifier.training.trunk_cache import FeatureCache
from data.store import Dataset
from data.view import view
from dermsynth import device, interrupts
from dermsynth.options import flat, replace
from dermsynth.records import Record
from experiments.config import Trial
from experiments.options import ExperimentOptions
from experiments.tasks import (
    CLASSIFIER,
    EVALUATION,
    GENERATOR,
    Task,
    pool_names,
    pool_sizes,
    trial_options,
)
from gan.evaluation.diagnosis_network import SEEN, images_shown
from gan.options import TrainOptions as GanOptions
from gan.trainer import Trainer
from gan.training_images import TrainingImages, training_part
from gan.training_run import resolve_classes, resolve_config, resolve_minutes

STEPS = 2  # of a trial training
SHOWN = 64  # training images that a generator may begin from in it
EVALUATION_MINUTES = {"cpu": 3.0, "cuda": 1.0}  # of a pool at 128 px: on a core, on an H100
NETWORK_MINUTES = 6.0  # of a core, for SEEN images; not measured on a GPU, nor counted there
# Of the default generator on an H100 (docs/measurements/gpu.md), where two steps would show how
# long it takes to record one. On a CPU it is measured.
CUDA_KIMG_A_MINUTE = 36.0


class Cost(Record):
    """About what it takes."""

    n_trainings: int
    n_generators: int
    n_synthetic_images: int
    minutes_generators: float
    minutes_evaluations: float
    minutes_trainings: float
    disk_bytes: int
    measured_on: str

    @property
    def minutes(self) -> float:
        """Of all together, with one worker."""
        return self.minutes_generators + self.minutes_evaluations + self.minutes_trainings


def cost_of(
    dataset: Dataset, trials: list[Trial], tasks: list[Task], options: ExperimentOptions
) -> Cost:
    """What all tasks take, one after another; nothing that others have computed is deducted.

    It takes a training of two steps of every kind of classifier and of generator.
    """
    sizes = pool_sizes(dataset, trials)
    kinds = [task.kind for task in tasks]
    generators = [task.options for task in tasks if task.kind == GENERATOR]
    with TemporaryDirectory() as folder:
        given = dataset, trials, sizes, options, Path(folder)
        if options.compute.device == "xla" and options.workers != 1:
            # a process keeps the TPU that it has used once, and workers shall have it
            with ProcessPoolExecutor(1, get_context("spawn")) as other:
                seconds, weights, where = other.submit(_training_seconds, *given).result()
        else:
            seconds, weights, where = _training_seconds(*given)
    pixels = sum(sizes.values()) * dataset.size**2 * 3
    return Cost(
        n_trainings=kinds.count(CLASSIFIER),
        n_generators=len(generators),
        n_synthetic_images=sum(sizes.values()),
        minutes_generators=_generator_minutes(dataset, generators, options),
        minutes_evaluations=EVALUATION_MINUTES[_kind(options)] * kinds.count(EVALUATION)
        + _network_minutes(dataset, tasks, options),
        minutes_trainings=round(seconds / 60, 1),
        disk_bytes=pixels + len(trials) * (weights + 120 * len(dataset.table)),
        measured_on=where,
    )


def _kind(options: ExperimentOptions) -> str:
    """`cpu` or `cuda`: whose figures are taken; a TPU is left to those who will train on it."""
    asked = options.compute.device
    return asked if asked in ("cpu", "cuda") else device.resolve("auto", "auto").device.type


def _network_minutes(dataset: Dataset, tasks: list[Task], options: ExperimentOptions) -> float:
    """Of the networks that judge generators and pools: one a fold and share of its lesions."""
    if _kind(options) != "cpu":
        return 0.0
    pools = [task.options for task in tasks if task.kind == EVALUATION]
    alone = {(one.fold, one.test_fold, 1.0) for one in pools if one.network != "imagenet"}
    seen = {task.awaits for task in tasks if task.awaits is not None} or alone
    shown = sum(images_shown(view(dataset, *each), each[0]) for each in seen)
    return round(NETWORK_MINUTES * shown / SEEN, 1)


def _generator_minutes(
    dataset: Dataset, generators: list[GanOptions], options: ExperimentOptions
) -> float:
    total, speeds = 0.0, dict[str, float]()  # thousand images a minute, by what decides it
    for asked in generators:
        kimg, minutes = asked.budget.kimg, resolve_minutes(asked, _kind(options))
        if kimg is None:
            total += minutes or 0
            continue
        alike = str(flat(asked.model) | {"classes": resolve_classes(asked), "seed": 0})
        if alike not in speeds:
            on_gpu = _kind(options) == "cuda"
            speeds[alike] = CUDA_KIMG_A_MINUTE if on_gpu else _kimg_a_minute(dataset, asked)
        total += kimg / speeds[alike]
    return round(total, 1)


def _kimg_a_minute(dataset: Dataset, options: GanOptions) -> float:
    """By the faster of two steps; the first one also loads what is slow to load."""
    seen = view(dataset, options.images.fold, options.images.test_fold)
    with contextlib.redirect_stdout(io.StringIO()):  # what the training will warn of
        part = training_part(seen, options.images.fold, resolve_classes(options))
    config = resolve_config(options, seen.size, len(part.classes))
    compute = device.resolve("cpu", options.compute.precision, cpu_auto="bf16")
    trainer = Trainer(options.model.arch, config, 0, compute, options.model.accumulate)
    images = TrainingImages(seen, part, 0, compute.device)
    shown, labels = images.batch(0, min(SHOWN, len(part.rows)))
    trainer.begin_from(shown.numpy(), labels.numpy() if part.classes else None)
    durations = []
    for step in range(STEPS):
        real, labels = images.batch(step, trainer.images_a_step)
        start = time.monotonic()
        trainer.step(real, labels if part.classes else None)
        durations.append(time.monotonic() - start)
    return trainer.images_a_step * 60 / 1000 / min(durations)


def _training_seconds(
    dataset: Dataset,
    trials: list[Trial],
    sizes: dict[str, int],
    options: ExperimentOptions,
    folder: Path,
) -> tuple[float, int, str]:
    """Seconds of all trainings, bytes of a model's weights, and where this was measured."""
    total, weights, where = 0.0, 0, ""
    measured: dict[tuple[Any, ...], tuple[float, float]] = {}  # by what decides how fast it is
    looked_at: set[tuple[Any, ...]] = set()  # images that the trunk has seen, with the network
    for name in dict.fromkeys(trial.arm.name for trial in trials):
        own = [trial for trial in trials if trial.arm.name == name]
        asked = replace(trial_options(own[0], dataset.path), synthetic="0", synthetic_only=False)
        asked = replace(asked, device=options.compute.device, tracking="none")
        sets = {"": len(dataset.table)}
        sets |= {pool: sizes[pool] for trial in own for pool in pool_names(trial)}
        of_arm = 0
        for network in pair(asked).values() if asked.choice.beside else (asked,):
            setup = resolve_setup(network)
            compute = device.resolve(options.compute.device, options.compute.precision)
            loop = Loop(setup, build_model(setup)[0], compute, FeatureCache(), folder)
            steps, chosen = setup.options.steps, setup.options
            alike = (setup.spec, chosen.augmentation, steps.batch, steps.accumulate)
            if alike not in measured:
                measured[alike] = _measure(loop)
            a_view, a_step = measured[alike]
            total += len(own) * loop.total * a_step
            for name, images in sets.items():  # all views once where kept, else to be scored
                views = chosen.augmentation.n_views if loop.batches.keeps else 0
                plain = 0 if name else 1 if loop.trunk.pure else len(own)
                if (alike, name) not in looked_at:
                    total += a_view * images * (views + plain)
                looked_at.add((alike, name))
            of_arm += sum(p.numel() * 4 for p in loop.model.parameters())
            where = str(compute)
        weights = max(weights, of_arm)
    return total, weights, where


def _measure(loop: Loop) -> tuple[float, float]:
    """Seconds to look at an image in the trunk, and of a step."""
    start = time.monotonic()
    with contextlib.redirect_stderr(io.StringIO()):  # no progress bar
        loop.batches.fill(range(STEPS), interrupts.StopRequest())
    looked = time.monotonic() - start
    durations = []
    for step in range(STEPS):
        start = time.monotonic()
        loop.step(step)
        durations.append(time.monotonic() - start)
    images = STEPS * loop.options.steps.batch
    a_step = min(durations)  # the first one also loads what is slow to load
    return (looked or a_step) / images, a_step
