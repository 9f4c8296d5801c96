"""From finished trials to the tables, the JSON files and the report of an experiment."""

import io
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from classifier.run_folder import COLUMNS as SCORE_COLUMNS
from classifier.run_folder import read_facts, read_metrics
from data.pool import load_pool
from data.store import Dataset, ImageStore
from dermsynth.errors import UserError
from dermsynth.files import write_bytes, write_text
from dermsynth.machine import machine, versions
from dermsynth.manifest import Sealed, digest, is_finished, open_sealed
from dermsynth.options import as_plain
from dermsynth.records import dump_record, write_record
from experiments import statistics
from experiments.config import Experiment, Trial, gan_folder
from experiments.page import Results, write_page
from experiments.records import (
    COMPARISONS,
    EXPERIMENT,
    PREDICTIONS,
    TRIALS,
    ComparisonRecord,
    Comparisons,
    DatasetFacts,
    ExperimentRecord,
    GeneratorFacts,
)
from gan.evaluation.records import read_evaluation
from gan.weights import read_description

PACKAGES = ("dermsynth", "torch", "numpy", "scikit-learn", "scipy", "pandas")
GRID = 6  # images a side of the report's grids


def write_results(
    out: Path,
    experiment: Experiment,
    dataset: Dataset,
    trials: list[Trial],
    file: Path,
    started: float,
) -> dict[str, str]:
    """Compare the finished trials in `out` and write everything that a reader needs.

    Returns hashes of what the experiment came to, by name. Results that were there are replaced
    file by file. Raises UserError where a trial is damaged or was not tested on the same images.

    Parameters
    ----------
    out : the experiment's folder
    experiment, dataset, trials : what was run, on what
    file : the experiment's YAML file, for the report
    started : when this call began, seconds since the epoch
    """
    table = trial_table(out, experiment, trials)
    predictions = trial_predictions(out, experiment, trials)
    check_alike(predictions)
    comparisons = compare_arms(experiment, predictions)
    write_bytes(out / TRIALS, table.to_parquet(index=False))
    write_bytes(out / PREDICTIONS, predictions.to_parquet(index=False))
    rows = [ComparisonRecord(**row) for row in comparisons]
    write_text(out / COMPARISONS, dump_record(Comparisons(rows)))
    trained = generators(out, experiment)
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
        counts=part_counts(dataset, experiment.fold),
        machine=machine(),
        versions=versions(*PACKAGES),
        started=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started)),
        seconds=round(float(table["seconds"].sum()) + sum(g.seconds or 0 for g in trained), 1),
        gan=trained,
        roc=roc_bands(predictions),
        grids=grids(out, experiment, dataset, trials),
    )
    write_record(out / EXPERIMENT, record)
    write_page(out, Results(comparisons, table, record))
    return {
        "comparisons": digest(comparisons),
        "trials": digest([finished_trial(trial.folder(out)).identity.id for trial in trials]),
    }


def finished_trial(folder: Path) -> Sealed:
    """The folder of a trial. Raises UserError where it is not finished or damaged."""
    mend = "remove that folder, then --resume trains it again"
    return open_sealed(folder, "classifier", f"{folder}: no finished trial there; {mend}", mend)


def trial_table(out: Path, experiment: Experiment, trials: list[Trial]) -> pd.DataFrame:
    """A row a trial: arm, fold, seed, gan_seed, status, seconds, leaky, metrics by `part/name`."""
    rows = []
    for trial in trials:
        sealed = finished_trial(trial.folder(out))
        metrics, facts = read_metrics(sealed), read_facts(sealed)
        row: dict[str, Any] = {
            "arm": trial.arm.name,
            "fold": experiment.fold,
            "seed": trial.seed,
            "gan_seed": trial.gan_seed,
            "status": "done",
            "seconds": facts.training_seconds,
            "leaky": facts.leaky is not None,
            "auc_val": metrics["val"]["auc"],
        }
        for part, values in metrics.items():
            row |= {f"{part}/{name}": value for name, value in values.items()}
        rows.append(row)
    return pd.DataFrame(rows).astype({"gan_seed": "Int64"})


def trial_predictions(out: Path, experiment: Experiment, trials: list[Trial]) -> pd.DataFrame:
    """Test and external scores of all trials, one row an image and trial."""
    frames = []
    for trial in trials:
        frame = finished_trial(trial.folder(out)).table("predictions.parquet", SCORE_COLUMNS)
        frame = frame[frame["part"] != "val"].rename(columns={"part": "test_set"})
        frame.insert(0, "arm", trial.arm.name)
        frame.insert(1, "seed", trial.seed)
        frame.insert(2, "gan_seed", trial.gan_seed)
        frames.append(frame.astype({"gan_seed": "Int64"}))
    joined = pd.concat(frames, ignore_index=True)
    joined["fold"] = experiment.fold
    return joined


def check_alike(predictions: pd.DataFrame) -> None:
    """Every trial was tested on the same images with the same targets and groups.

    Raises UserError that names two trials that were not: their difference would mean nothing.
    """
    what = ["image_id", "target", "group"]
    for test_set, part in predictions.groupby("test_set", sort=False):
        first: tuple[str, pd.DataFrame] | None = None
        for (arm, seed, gan_seed), trial in part.groupby(["arm", "seed", "gan_seed"], dropna=False):
            rows = trial[what].sort_values("image_id").reset_index(drop=True)
            name = f"arm {arm}, seed {seed}" + ("" if pd.isna(gan_seed) else f", gan {gan_seed}")
            if rows["image_id"].duplicated().any():
                raise UserError(f"{name}: an image of {test_set} was scored twice")
            if first is None:
                first = name, rows
            elif not rows.equals(first[1]):
                differ = [
                    column for column in what if rows[column].tolist() != first[1][column].tolist()
                ]
                raise UserError(
                    f"{name} and {first[0]} were not tested on the same {test_set}: other "
                    f"{', '.join(differ)}. Remove the older trial's folder, then --resume"
                )


def compare_arms(experiment: Experiment, predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """The configured pairs on the test part, then on every external set; Holm over all of them."""
    sets = sorted(predictions["test_set"].unique(), key=lambda name: (name != "test", name))
    compared = []
    for test_set in sets:
        part = predictions[predictions["test_set"] == test_set]
        for arm, reference in experiment.comparisons:
            rows, arm_scores = score_cube(part, arm)
            _, reference_scores = score_cube(part, reference)
            compared.append(
                statistics.compare(
                    arm=arm,
                    reference=reference,
                    test_set=test_set,
                    target=rows["target"].to_numpy(),
                    scores_arm=arm_scores,
                    scores_reference=reference_scores,
                    group=rows["group"].to_numpy(),
                    margin=experiment.margin,
                    replicates=experiment.bootstrap,
                )
            )
    return statistics.finish(compared)


def score_cube(predictions: pd.DataFrame, arm: str) -> tuple[pd.DataFrame, np.ndarray]:
    """One arm's image rows (sorted by id) and scores float64 [generators, seeds, images]."""
    part = predictions[predictions["arm"] == arm].sort_values(["gan_seed", "seed", "image_id"])
    generators, seeds = max(1, part["gan_seed"].nunique()), part["seed"].nunique()
    scores = part["score"].to_numpy(np.float64).reshape(generators, seeds, -1)
    return part.iloc[: scores.shape[2]], scores


def roc_bands(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """ROC of each arm's seed-averaged scores with its band, by test set and arm.

    An arm with several generators shows its first one: averaging scores over generators would draw
    the curve of an ensemble, which `statistics.compare` does not report either.
    """
    bands: dict[str, dict[str, Any]] = {}
    for (test_set, arm), part in predictions.groupby(["test_set", "arm"], sort=False):
        rows, scores = score_cube(part, str(arm))
        target, group = rows["target"].to_numpy(), rows["group"].to_numpy()
        bands.setdefault(str(test_set), {})[str(arm)] = statistics.roc_band(
            target, scores[0].mean(axis=0), group
        )
    return bands


def part_counts(dataset: Dataset, fold: int) -> dict[str, dict[str, int]]:
    """Images by class and groups of each part."""
    counts = {}
    for part in ("train", "val", "test"):
        rows = dataset.rows(part, fold)
        targets = dataset.targets(rows)
        counts[part] = {
            "benign": int((targets == 0).sum()),
            "malignant": int((targets == 1).sum()),
            "groups": int(dataset.table["group"].iloc[rows].nunique()),
        }
    return counts


def generators(out: Path, experiment: Experiment) -> list[GeneratorFacts]:
    """What the report says of each generator that was trained."""
    trained = []
    for seed in experiment.gan_seeds:
        folder = gan_folder(out, seed)
        if not is_finished(folder / "evaluation", "generator-evaluation"):
            continue
        record = read_description(folder)
        facts = record.model_dump(mode="json")
        facts["n_training"] = len(facts.pop("training_ids"))
        trained.append(
            GeneratorFacts(
                seed=seed,
                run=folder.relative_to(out).as_posix(),
                kimg=record.kimg,
                seconds=60 * record.minutes,
                evaluation=read_evaluation(folder).model_dump(mode="json"),
                generator=facts,
            )
        )
    return trained


def grids(
    out: Path, experiment: Experiment, dataset: Dataset, trials: list[Trial]
) -> dict[str, str]:
    """Write a grid of real malignant training images and one of the first pool's images."""
    rows = dataset.rows("train", experiment.fold)
    malignant = rows[dataset.targets(rows) == 1]
    (out / "grids").mkdir(exist_ok=True)
    paths = {"real": save_grid(out, "real", dataset.images, malignant)}
    if pools := sorted({pool for trial in trials if (pool := trial.pool_folder(out))}):
        images = load_pool(pools[0]).images
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
