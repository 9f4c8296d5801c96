"""From finished trials to the tables, the JSON files and the report of an experiment."""

import dataclasses
import io
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from classifier.evaluation.likeness import mean_facts, sentence
from classifier.run_folder import COLUMNS as SCORE_COLUMNS
from classifier.run_folder import KIND, PAIR, open_networks, read_facts, read_metrics
from data.grouping import count_ids
from data.pool import load_pool
from data.pool_quality import FindingRecord
from data.store import Dataset, ImageStore, load_table
from data.view import view
from dermsynth import device
from dermsynth.errors import UserError
from dermsynth.files import write_bytes, write_text
from dermsynth.machine import machine, versions
from dermsynth.manifest import Sealed, digest, is_finished, open_sealed
from dermsynth.options import as_plain
from dermsynth.records import dump_record, read_record, write_record
from experiments.clinical import operating_points, write_mistakes
from experiments.compared import check_alike, compare_arms, roc_bands, trial_predictions
from experiments.config import Arm, Experiment, Trial, differences, splits_of
from experiments.executors.running import Failure
from experiments.flow import part_records
from experiments.learning_curve import learning_curve
from experiments.metric_differences import metric_differences, subgroups_of
from experiments.nested_subsets import nested_subsets
from experiments.origins import add_origins, pool_folder
from experiments.page import Results, write_page
from experiments.plan import MEND, PLAN, PlanRecord
from experiments.records import (
    COMPARISONS,
    EXPERIMENT,
    PAIRED,
    PREDICTIONS,
    TRIALS,
    ComparisonRecord,
    Comparisons,
    DatasetFacts,
    ExperimentRecord,
    FailureRecord,
    GeneratorFacts,
    PairedRecords,
)
from experiments.synthetic_scores import expectations, labels, shortcuts
from experiments.tasks import EVALUATION, evaluation_name, pool_names
from gan.evaluation.records import EvaluationRecord, read_evaluation

PACKAGES = ("dermsynth", "torch", "numpy", "scikit-learn", "scipy", "pandas")
IN_THE_VERDICT = ("collapsed", "barely-trained", "copies")  # also where they only warn
GRID = 6  # images a side of the report's grids


def write_results(
    out: Path,
    experiment: Experiment,
    dataset: Dataset,
    arms: list[Arm],
    trials: list[Trial],
    failures: list[Failure],
    file: Path,
) -> dict[str, str]:
    """Compare the finished trials in `out` and write everything that a reader needs.

    Returns hashes of what the experiment came to, by name. Results that were there are replaced
    file by file. Raises UserError where a trial is damaged or was not tested on the same images.

    Parameters
    ----------
    out : the experiment's folder
    experiment, dataset, arms, trials : what was run, on what
    failures : tasks that could not be done; trials that they stand for are left out
    file : the experiment's YAML file, for the report
    """
    gone = {failure.task for failure in failures}
    done = [trial for trial in trials if trial.name not in gone]
    if not done:
        first = failures[0]
        raise UserError(
            f"{out}: no training could be finished, so there is no verdict; the first to fail was "
            f"{first.task}: {first.reason} (see {out / first.log}); mend it, then --resume"
        )
    table = trial_table(out, trials, gone)
    predictions = trial_predictions(
        (
            trial.arm.name,
            trial.split.number,
            trial.seed,
            trial.gan_seed,
            finished_trial(out / trial.name).table("predictions.parquet", SCORE_COLUMNS),
        )
        for trial in done
    )
    check_alike(predictions)
    comparisons = compare_arms(
        predictions,
        experiment.comparisons,
        table,
        {trial.arm.name for trial in trials if pool_names(trial)},
        experiment.margin,
        experiment.bootstrap,
    )
    trained = generators(out, done)
    add_origins(comparisons, out, done, trained)
    write_bytes(out / TRIALS, table.to_parquet(index=False))
    write_bytes(out / PREDICTIONS, predictions.to_parquet(index=False))
    rows = [ComparisonRecord(**row) for row in comparisons]
    write_text(out / COMPARISONS, dump_record(Comparisons(rows)))
    paired = metric_differences(predictions, comparisons, subgroups_of(dataset, predictions))
    write_text(out / PAIRED, dump_record(PairedRecords(paired)))
    scored = out, experiment.comparisons, done, predictions, device.resolve("auto", "fp32")
    plan = read_record(out / PLAN, PlanRecord, MEND)
    record = ExperimentRecord(
        name=out.name,
        file=file.name,
        config=as_plain(experiment),
        command=shlex.join(["python", "-m", "experiments.run", *sys.argv[1:]]),
        dataset=DatasetFacts(
            path=str(dataset.path),
            folds_hash=dataset.folds_hash,
            identity=dataset.identity,
            info=dataset.info.model_dump(mode="json"),
        ),
        counts=part_counts(dataset, trials),
        parts=part_records(dataset, trials),
        operating=operating_points(predictions),
        mistakes=write_mistakes(out, dataset, predictions, *experiment.comparisons[0]),
        machine=machine(),
        versions=versions(*PACKAGES),
        started=f"{plan.made[:16].replace('T', ' ')} UTC",
        seconds=round(float(table["seconds"].sum()) + sum(g.seconds or 0 for g in trained), 1),
        gan=trained,
        warnings=pool_warnings(trained, _primary_pools(comparisons, done)),
        data_warnings=data_warnings(dataset, done),
        labels=labels(*scored),
        shortcuts=shortcuts(*scored),
        expectations=expectations(out, done, predictions),
        learning_curve=_learning_curve(dataset, arms, trials, predictions),
        overlaps=_overlaps(out, done),
        likeness=_likeness(out, done),
        plan=plan.model_dump(mode="json"),
        failures=[FailureRecord(**dataclasses.asdict(failure)) for failure in failures],
        differences=arm_differences(experiment, arms),
        roc=roc_bands(predictions),
        grids=grids(out, dataset, done),
    )
    write_record(out / EXPERIMENT, record)
    results = Results(comparisons, table, record, paired)
    write_page(out, results, lambda name: (out / name).read_bytes())
    return {
        "comparisons": digest(comparisons),
        "trials": digest([finished_trial(out / trial.name).identity.id for trial in done]),
    }


def finished_trial(folder: Path) -> Sealed:
    """The folder of a trial. Raises UserError where it is not finished or damaged."""
    mend = "remove that folder, then --resume trains it again"
    return open_sealed(folder, (KIND, PAIR), f"{folder}: no finished trial there; {mend}", mend)


def trial_table(out: Path, trials: list[Trial], gone: set[str]) -> pd.DataFrame:
    """A row a trial: arm, fold, seed, gan_seed, status, seconds, leaky, metrics by `part/name`.

    Trials in `gone` failed: their figures are missing.
    """
    rows = []
    for trial in trials:
        row: dict[str, Any] = {
            "arm": trial.arm.name,
            "fold": trial.split.number,
            "seed": trial.seed,
            "gan_seed": trial.gan_seed,
            "status": "failed",
            "seconds": 0.0,
            "leaky": False,
            "auc_val": None,
        }
        if trial.name in gone:
            rows.append(row)
            continue
        sealed = finished_trial(out / trial.name)
        metrics = read_metrics(sealed)
        facts = [read_facts(network) for network in open_networks(sealed)]
        row |= {
            "status": "done",
            "seconds": sum(each.training_seconds for each in facts),
            "leaky": any(each.leaky is not None for each in facts),
            "auc_val": metrics["val"]["auc"],
        }
        for part, values in metrics.items():
            row |= {f"{part}/{name}": value for name, value in values.items()}
        rows.append(row)
    return pd.DataFrame(rows).astype({"gan_seed": "Int64"})


def pool_warnings(trained: list[GeneratorFacts], pools: set[str]) -> list[str]:
    """What the quality gate found in these pools: a clause a fault, the worst pool's figures."""
    found: dict[str, list[FindingRecord]] = {}
    looked_at = [one for one in trained if one.run in pools and one.evaluation is not None]
    for one in looked_at:
        quality = EvaluationRecord.model_validate(one.evaluation).quality
        for finding in quality.findings if quality else []:
            if finding.severity == "fail" or finding.code in IN_THE_VERDICT:
                found.setdefault(finding.code, []).append(finding)
    clauses = []
    if unknown := len(pools - {one.run for one in looked_at}):
        clauses.append(f"the quality of {unknown} of {len(pools)} pools could not be evaluated")
    for findings in found.values():
        worst = next((one for one in findings if one.severity == "fail"), findings[0])
        sentence = worst.sentence.rstrip(".")
        of = "" if len(looked_at) == 1 else f" ({len(findings)} of {len(looked_at)} pools)"
        clauses.append(sentence[0].lower() + sentence[1:] + of)
    return clauses


def data_warnings(dataset: Dataset, trials: list[Trial]) -> list[str]:
    """What images without a patient or a lesion id mean, in the dataset and in external sets."""
    said = [dataset.info.grouping.warning]
    options = [trial.arm.options.training_set for trial in trials]
    for text in dict.fromkeys(text for each in options for text in each.external):
        name, _, folder = text.partition("=")
        table = load_table(Path(folder))[0]
        said.append(count_ids(table[table["target"].notna()]).of_external(name))
    return [one for one in said if one is not None]


def _learning_curve(
    dataset: Dataset, arms: list[Arm], trials: list[Trial], predictions: pd.DataFrame
) -> dict[str, Any] | None:
    subsets = nested_subsets(dataset, arms, splits_of(trials))
    curve = learning_curve(predictions, subsets) if subsets else None
    return None if curve is None else curve.model_dump(mode="json")


def _overlaps(out: Path, trials: list[Trial]) -> dict[str, dict[str, Any]]:
    """What external sets have in common with the dataset: the same for every trial."""
    facts = read_facts(open_networks(finished_trial(out / trials[0].name))[0])
    return {name: one.model_dump(mode="json") for name, one in facts.overlaps.items()}


def _likeness(out: Path, trials: list[Trial]) -> dict[str, dict[str, Any]]:
    """How unlike the training images the external sets are, and it in words: means over trials."""
    networks = [each for t in trials for each in open_networks(finished_trial(out / t.name))]
    found = [read_facts(network).likeness for network in networks]
    names = [name for name in found[0] if name.startswith("external/")]
    means = {name: mean_facts([of[name] for of in found if name in of]) for name in names}
    return {
        name.removeprefix("external/"): {**facts.model_dump(mode="json"), "words": sentence(facts)}
        for name, facts in means.items()
    }


def _primary_pools(comparisons: list[dict[str, Any]], trials: list[Trial]) -> set[str]:
    """The pools that the verdict is about."""
    arms = {comparisons[0]["arm"], comparisons[0]["reference"]} if comparisons else set()
    return {name for trial in trials if trial.arm.name in arms for name in pool_names(trial)[:1]}


def part_counts(dataset: Dataset, trials: list[Trial]) -> dict[str, dict[str, int]]:
    """Images by class and groups of each part, of the first split; of all splits for the test."""
    splits = splits_of(trials)
    first = splits[0]
    seen = view(dataset, first.fold, first.test_fold)
    rows_by_part = {part: seen.rows(part, first.fold) for part in ("train", "val")}
    tested = [view(dataset, each.fold, each.test_fold).rows("test", each.fold) for each in splits]
    rows_by_part["test"] = np.concatenate(tested)
    counts = {}
    for part, rows in rows_by_part.items():
        targets = dataset.targets(rows)
        counts[part] = {
            "benign": int((targets == 0).sum()),
            "malignant": int((targets == 1).sum()),
            "groups": int(dataset.table["group"].iloc[rows].nunique()),
        }
    return counts


def arm_differences(experiment: Experiment, arms: list[Arm]) -> list[dict[str, Any]]:
    """In what the arms of each comparison differ, for the report."""
    by_name = {arm.name: arm for arm in arms}
    return [
        {"arm": arm, "reference": other, "differ": differences(by_name[arm], by_name[other])}
        for arm, other in experiment.comparisons
    ]


def generators(out: Path, trials: list[Trial]) -> list[GeneratorFacts]:
    """What the report says of each pool and of the generator that made it."""
    found: dict[str, GeneratorFacts] = {}
    for trial in trials:
        name = evaluation_name(trial)
        if name is None or name in found:
            continue
        evaluated = is_finished(out / name, EVALUATION)
        run = pool_names(trial)[0]
        place = pool_folder(out, trial)
        pool = load_pool(place)
        record = pool.info.provenance.generator
        facts = record.model_dump(mode="json") if record else {}
        facts["n_training"] = len(facts.pop("training_ids", []))
        found[name] = GeneratorFacts(
            seed=trial.gan_seed,
            fold=trial.split.number,
            run=run,
            evaluated=name if evaluated else None,
            kimg=record.kimg if record else None,
            seconds=60 * record.minutes if record else None,
            evaluation=read_evaluation(place, out / name).model_dump(mode="json")
            if evaluated
            else None,
            generator=facts if record else None,
        )
    return list(found.values())


def grids(out: Path, dataset: Dataset, trials: list[Trial]) -> dict[str, str]:
    """Write a grid of real training images of target 1 and one of the first pool's images."""
    first = trials[0].split
    seen = view(dataset, first.fold, first.test_fold)
    rows = seen.rows("train", first.fold)
    (out / "grids").mkdir(exist_ok=True)
    malignant = rows[dataset.targets(rows) == 1]
    paths = {"real": save_grid(out, "real", dataset.images, malignant)}
    if made := [trial for trial in trials if pool_names(trial)]:
        images = load_pool(pool_folder(out, made[0])).images
        paths["synthetic"] = save_grid(out, "synthetic", images, np.arange(len(images)))
    return paths


def save_grid(out: Path, name: str, images: ImageStore, rows: np.ndarray) -> str:
    """GRID x GRID images, evenly chosen from `rows`, as `grids/NAME.png`; its relative path."""
    chosen = rows[np.linspace(0, len(rows) - 1, GRID * GRID).round().astype(int)]
    size = images.shape[1]
    tiles = images[chosen].reshape(GRID, GRID, size, size, 3).transpose(0, 2, 1, 3, 4)
    content = io.BytesIO()
    Image.fromarray(tiles.reshape(GRID * size, GRID * size, 3)).save(content, "png")
    write_bytes(out / "grids" / f"{name}.png", content.getvalue())
    return f"grids/{name}.png"
