"""What an experiment will cost and what it can see, said and written down before anything runs.

Minutes come from a training of two steps on this machine. The smallest visible difference comes
from an earlier experiment on the same kind of data (`--pilot`), or from stated assumptions.
"""

import contextlib
import io
import math
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydantic import ConfigDict

from classifier.options import pair
from classifier.training.loop import Loop
from classifier.training.setup import build_model
from classifier.training.setup import resolve as resolve_setup
from classifier.training.trunk_cache import FeatureCache
from data.store import Dataset
from data.view import view
from dermsynth import device, interrupts
from dermsynth.errors import UserError
from dermsynth.manifest import digest
from dermsynth.options import as_plain, replace
from dermsynth.records import Json, Record, Sha256, read_record, write_record
from experiments.config import Experiment, Split, Trial, splits_of
from experiments.options import ExperimentOptions
from experiments.page import open_experiment
from experiments.records import COMPARISONS, Comparisons
from experiments.statistics.power import needed
from experiments.statistics.variance import Part, Variance
from experiments.tasks import (
    CLASSIFIER,
    EVALUATION,
    GENERATOR,
    Task,
    pool_names,
    pool_sizes,
    trial_options,
)

PLAN = "plan.json"
MEND = "remove it; the design is then written down as of now"
STEPS = 2  # of the trial training
# Of a pool at 128 px, and of the default generator: on 2 cores (docs/measurements/gan.md), on an
# H100 (docs/measurements/gpu.md; the evaluation is a guess from one that was cut off).
EVALUATION_MINUTES = {"cpu": 2.5, "cuda": 1.0}
KIMG_A_MINUTE = {"cpu": 2.4, "cuda": 36.0}
# Of both arms, and between them: 0.005 of standard error on 123 malignant groups of HAM10000.
ASSUMED_AUC, ASSUMED_CORRELATION = 0.90, 0.96
SEED_SCATTER, GAN_SCATTER = 0.0074, 0.005  # standard deviations of one training's true AUC


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


class Visible(Record):
    """The smallest true AUC difference of the primary comparison that is seen in four of five."""

    difference: float
    n_malignant_groups: int
    se_groups: float
    se_seeds: float
    se_gans: float | None
    source: str  # where the variances come from, in words


class PlanRecord(Record):
    """`plan.json`."""

    model_config = ConfigDict(extra="forbid")

    made: str  # UTC, ISO 8601
    design_sha256: Sha256  # of the experiment, its data and its splits: all that decides a result
    design: dict[str, Json]
    cost: Cost
    visible: Visible | None  # None: one classifier seed, no verdict possible


def keep_plan(
    folder: Path,
    experiment: Experiment,
    dataset: Dataset,
    trials: list[Trial],
    tasks: list[Task],
    options: ExperimentOptions,
) -> PlanRecord:
    """The plan of this design, written to `folder`; one from an earlier start is kept as it is.

    A new one takes a training of two steps. Raises UserError for a pilot that is not there.
    """
    splits = splits_of(trials)
    design: dict[str, Any] = {
        "experiment": as_plain(experiment),
        "dataset": dataset.identity.id,
        "splits": [[split.fold, split.test_fold] for split in splits],
        "trainings": [trial.name for trial in trials],
    }
    if (folder / PLAN).exists():
        earlier = read_record(folder / PLAN, PlanRecord, MEND)
        if earlier.design_sha256 == digest(design):
            return earlier
    plan = PlanRecord(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        design_sha256=digest(design),
        design=design,
        cost=_cost(dataset, trials, tasks, options),
        visible=_visible(experiment, dataset, trials, splits, options.pilot),
    )
    write_record(folder / PLAN, plan)
    return plan


def describe(plan: PlanRecord, margin: float, one: str) -> str:
    """The plan in words, for the screen; `one`: what target 1 means."""
    cost, seen = plan.cost, plan.visible
    hours = (
        f"{cost.minutes:.0f} minutes" if cost.minutes < 120 else f"{cost.minutes / 60:.1f} hours"
    )
    lines = [
        f"plan of {plan.made}, SHA-256 of the design {plan.design_sha256[:16]}",
        f"  trainings    {cost.n_trainings}, about {cost.minutes_trainings:.0f} minutes",
        f"  generators   {cost.n_generators}, {cost.minutes_generators:.0f} minutes; "
        f"{cost.n_synthetic_images:,} synthetic images, evaluated in "
        f"{cost.minutes_evaluations:.0f} minutes",
        f"  together     about {hours} one after another ({cost.measured_on})",
        f"  disk         about {cost.disk_bytes / 2**20:,.0f} MiB",
    ]
    if seen is None:
        return "\n".join(
            [*lines, "  visible      nothing: with one classifier seed no verdict is possible"]
        )
    fine = "finer" if seen.difference <= margin else "coarser"
    return "\n".join(
        [
            *lines,
            f"  visible      a true difference of {seen.difference:.3f} AUC in four of five such "
            f"experiments, {fine} than the margin of {margin:.3f}",
            f"               ({seen.n_malignant_groups} {one} groups tested; {seen.source})",
        ]
    )


# --- what it costs -------------------------------------------------------------------------------


def _cost(
    dataset: Dataset, trials: list[Trial], tasks: list[Task], options: ExperimentOptions
) -> Cost:
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
        minutes_generators=sum(map(_generator_minutes, generators)),
        minutes_evaluations=_here(EVALUATION_MINUTES) * kinds.count(EVALUATION),
        minutes_trainings=round(seconds / 60, 1),
        disk_bytes=pixels + len(trials) * (weights + 120 * len(dataset.table)),
        measured_on=where,
    )


def _generator_minutes(options: Any) -> float:
    budget = options.budget
    if budget.kimg is not None:
        return float(budget.kimg / _here(KIMG_A_MINUTE))
    return float(budget.minutes or _here({"cpu": 10, "cuda": 60}))


def _here(figures: dict[str, float]) -> float:
    """The figure of the device that is taken where nothing is said."""
    return figures[device.resolve("auto", "auto").device.type]


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


# --- what it can see -----------------------------------------------------------------------------


def _visible(
    experiment: Experiment,
    dataset: Dataset,
    trials: list[Trial],
    splits: list[Split],
    pilot: Path | None,
) -> Visible | None:
    seeds, folds = len(experiment.seeds), len(splits)
    if seeds < 2:
        return None
    arm = next(t.arm for t in trials if t.arm.name == experiment.comparisons[0][0])
    gans = len([seed for seed in arm.gan_seeds(experiment) if seed is not None])
    malignant, benign = _tested(dataset, splits)
    if pilot is not None:
        groups, a_seed, a_gan, source = _from_pilot(pilot, malignant)
    else:
        a_seed, a_gan = SEED_SCATTER * math.sqrt(2), GAN_SCATTER
        groups = _assumed_groups(malignant, benign)
        source = (
            f"assumed: AUC {ASSUMED_AUC} in both arms with correlation {ASSUMED_CORRELATION}, true "
            f"AUCs that scatter by {SEED_SCATTER} over seeds and {GAN_SCATTER} over generators; "
            "--pilot FOLDER takes an experiment's instead"
        )
    se_seeds = a_seed / math.sqrt(seeds * folds)
    se_gans = a_gan / math.sqrt(gans * folds) if gans >= 3 else None
    variance = Variance(
        groups=Part(groups**2, malignant - 1.0),
        crossed=0.0,
        seeds=Part(se_seeds**2, folds * (seeds - 1.0)),
        gans=None if se_gans is None else Part(se_gans**2, folds * (gans - 1.0)),
    )
    return Visible(
        difference=needed(variance, 0.05),
        n_malignant_groups=malignant,
        se_groups=groups,
        se_seeds=se_seeds,
        se_gans=se_gans,
        source=source,
    )


def _tested(dataset: Dataset, splits: list[Split]) -> tuple[int, int]:
    """Malignant and benign groups that are tested."""
    counts = np.zeros(2, int)
    for split in splits:
        seen = view(dataset, split.fold, split.test_fold)
        rows = seen.rows("test", split.fold)
        groups, targets = dataset.table["group"].to_numpy()[rows], dataset.targets(rows)
        counts += [len(np.unique(groups[targets == target])) for target in (1, 0)]
    return int(counts[0]), int(counts[1])


def _assumed_groups(malignant: int, benign: int) -> float:
    """Standard error of a paired difference (Hanley and McNeil 1982, 1983) at the assumed AUC."""
    auc = ASSUMED_AUC
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (malignant - 1) * (q1 - auc**2) + (benign - 1) * (q2 - auc**2)
    return math.sqrt(2 * (1 - ASSUMED_CORRELATION) * variance / (malignant * benign))


def _from_pilot(pilot: Path, malignant: int) -> tuple[float, float, float, str]:
    """Standard error over groups here, and scatter of one seed and of one generator, from there."""
    first = open_experiment(pilot).record(COMPARISONS, Comparisons).root[0]
    if first.se_groups is None:
        raise UserError(
            f"--pilot {pilot}: {first.arm} against {first.reference} has no variance there "
            f"({first.why_undecidable}); take another experiment, or leave it out"
        )
    groups = first.se_groups * math.sqrt(first.n_malignant_groups / malignant)
    a_seed = (first.se_seeds or 0.0) * math.sqrt(first.n_seeds * first.n_folds)
    a_gan, note = GAN_SCATTER, f", {GAN_SCATTER} over generators assumed"
    if first.se_gans is not None:
        a_gan, note = first.se_gans * math.sqrt((first.n_gan_seeds or 1) * first.n_folds), ""
    if first.se_seeds is None:
        a_seed, note = SEED_SCATTER * math.sqrt(2), f"{note}, {SEED_SCATTER} over seeds assumed"
    return (
        groups,
        a_seed,
        a_gan,
        f"variances of {pilot}: {first.arm} against {first.reference}{note}",
    )
