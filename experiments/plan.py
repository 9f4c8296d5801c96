"""What an experiment will cost and what it can see, said and written down before anything runs.

Minutes come from steps on this machine (`experiments.cost`). The smallest visible difference comes
from an earlier experiment on the same kind of data (`--pilot`), or from stated assumptions.
"""

import math
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict

from data.store import Dataset
from data.view import view
from dermsynth.errors import UserError, counted
from dermsynth.manifest import digest
from dermsynth.options import as_plain
from dermsynth.records import Json, Record, Sha256, read_record, write_record
from experiments.config import Experiment, Split, Trial, splits_of
from experiments.cost import Cost, cost_of
from experiments.options import ExperimentOptions
from experiments.page import open_experiment
from experiments.records import COMPARISONS, Comparisons
from experiments.statistics.power import needed
from experiments.statistics.variance import Part, Variance
from experiments.tasks import Task

PLAN = "plan.json"
MEND = "remove it; the design is then written down as of now"
# Of both arms, and between them: 0.005 of standard error on 123 malignant groups of HAM10000.
ASSUMED_AUC, ASSUMED_CORRELATION = 0.90, 0.96
SEED_SCATTER, GAN_SCATTER = 0.0074, 0.005  # standard deviations of one training's true AUC


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

    A new one takes a training of two steps. Raises UserError for a pilot that is not there, and for
    one that the earlier plan did not go by.
    """
    splits = splits_of(trials)
    design: dict[str, Any] = {
        "experiment": as_plain(experiment),
        "dataset": dataset.identity.id,
        "splits": [[split.fold, split.test_fold] for split in splits],
        "trainings": [trial.name for trial in trials],
    }
    seen = partial(_visible, experiment, dataset, trials, splits, options.pilot)
    if (folder / PLAN).exists():
        earlier = read_record(folder / PLAN, PlanRecord, MEND)
        if earlier.design_sha256 == digest(design):
            if options.pilot is not None and earlier.visible != seen():
                raise UserError(
                    f"--pilot {options.pilot}: {folder / PLAN} has this design's plan already, of "
                    f"{earlier.made}, which goes by other variances; leave --pilot out to keep it, "
                    "or remove the file to plan anew"
                )
            return earlier
    plan = PlanRecord(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        design_sha256=digest(design),
        design=design,
        cost=cost_of(dataset, trials, tasks, options),
        visible=seen(),
    )
    write_record(folder / PLAN, plan)
    return plan


def describe(plan: PlanRecord, margin: float, one: str) -> str:
    """The plan in words, for the screen; `one`: what target 1 means."""
    cost, seen = plan.cost, plan.visible
    trainings, generators, evaluations, minutes = (
        counted(round(each), "minute")
        for each in (
            *(cost.minutes_trainings, cost.minutes_generators, cost.minutes_evaluations),
            cost.minutes,
        )
    )
    together = minutes if cost.minutes < 120 else f"{cost.minutes / 60:.1f} hours"
    lines = [
        f"plan of {plan.made}, SHA-256 of the design {plan.design_sha256[:16]}",
        f"  trainings    {cost.n_trainings}, about {trainings}",
        f"  generators   {cost.n_generators}, {generators}; "
        f"{counted(cost.n_synthetic_images, 'synthetic image')}, evaluated in {evaluations}",
        f"  together     about {together} one after another ({cost.measured_on})",
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
            f"               ({counted(seen.n_malignant_groups, f'{one} group')} tested; "
            f"{seen.source})",
        ]
    )


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
