"""From finished trials to the tables, the JSON files and the report of an experiment."""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from data.images.native import NativeImages
from data.pool import load_pool
from data.store import Dataset
from dermsynth.files import read_json, write_json
from dermsynth.machine import machine, versions
from dermsynth.options import as_plain
from experiments import statistics
from experiments.config import Experiment, Trial, gan_folder
from experiments.page import write_report

PACKAGES = ("dermsynth", "torch", "numpy", "scikit-learn", "scipy", "pandas")
GRID = 6  # images a side of the report's grids


def write_results(
    out: Path,
    experiment: Experiment,
    dataset: Dataset,
    trials: list[Trial],
    file: Path,
    started: float,
) -> Path:
    """Compare the finished trials in `out` and write everything that a reader needs.

    Returns the path of `report.html`. Results that were there are replaced file by file.

    Parameters
    ----------
    out : the experiment's folder
    experiment, dataset, trials : what was run, on what
    file : the experiment's YAML file, for the report
    started : when this call began, seconds since the epoch
    """
    table = trial_table(out, experiment, trials)
    predictions = trial_predictions(out, experiment, trials)
    comparisons = compare_arms(experiment, predictions)
    table.to_parquet(out / "trials.parquet", index=False)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    write_json(out / "comparisons.json", comparisons)
    trained = generators(out, experiment)
    pools = sorted({pool for trial in trials if (pool := trial.pool_folder(out))})
    write_json(
        out / "experiment.json",
        {
            "name": out.name,
            "file": str(file),
            "config": as_plain(experiment),
            "command": shlex.join(["python", "-m", "experiments.run", *sys.argv[1:]]),
            "dataset": {
                "path": str(dataset.path),
                "folds_hash": dataset.folds_hash,
                "info": dataset.info,
            },
            "counts": part_counts(dataset, experiment.fold),
            "machine": machine(),
            "versions": versions(*PACKAGES),
            "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started)),
            "seconds": round(float(table["seconds"].sum()) + sum(g["seconds"] for g in trained), 1),
            "gan": trained,
            "roc": roc_bands(predictions),
            "grids": grids(out, experiment, dataset, pools),
        },
    )
    return write_report(out)


def trial_table(out: Path, experiment: Experiment, trials: list[Trial]) -> pd.DataFrame:
    """A row a trial: arm, fold, seed, gan_seed, status, seconds, leaky, metrics by `part/name`."""
    rows = []
    for trial in trials:
        folder = trial.folder(out)
        metrics = read_json(folder / "metrics.json")
        row: dict[str, Any] = {
            "arm": trial.arm.name,
            "fold": experiment.fold,
            "seed": trial.seed,
            "gan_seed": trial.gan_seed,
            "status": "done",
            "seconds": read_json(folder / "trial.json")["seconds"],
            "leaky": read_json(folder / "run.json")["leaky"] is not None,
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
        frame = pd.read_parquet(trial.folder(out) / "predictions.parquet")
        frame = frame[frame["part"] != "val"].rename(columns={"part": "test_set"})
        frame.insert(0, "arm", trial.arm.name)
        frame.insert(1, "seed", trial.seed)
        frame.insert(2, "gan_seed", trial.gan_seed)
        frames.append(frame.astype({"gan_seed": "Int64"}))
    joined = pd.concat(frames, ignore_index=True)
    joined["fold"] = experiment.fold
    return joined


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


def generators(out: Path, experiment: Experiment) -> list[dict[str, Any]]:
    """What the report says of each generator that was trained."""
    trained = []
    for seed in experiment.gan_seeds:
        folder = gan_folder(out, seed)
        if (folder / "evaluation.json").exists():
            generator = read_json(folder / "generator.json")
            generator["n_training"] = len(generator.pop("training_ids"))
            trained.append(
                {
                    "seed": seed,
                    "run": str(folder),
                    "kimg": generator["kimg"],
                    "seconds": 60 * generator["minutes"],
                    "evaluation": read_json(folder / "evaluation.json"),
                    "generator": generator,
                }
            )
    return trained


def grids(out: Path, experiment: Experiment, dataset: Dataset, pools: list[Path]) -> dict[str, str]:
    """Write a grid of real malignant training images and one of the first pool's images."""
    rows = dataset.rows("train", experiment.fold)
    malignant = rows[dataset.targets(rows) == 1]
    (out / "grids").mkdir(exist_ok=True)
    paths = {"real": save_grid(out, "real", dataset.images, malignant)}
    if pools:
        images = load_pool(pools[0]).images
        paths["synthetic"] = save_grid(out, "synthetic", images, np.arange(len(images)))
    return paths


def save_grid(out: Path, name: str, images: np.ndarray | NativeImages, rows: np.ndarray) -> str:
    """GRID x GRID images, evenly chosen from `rows`, as `grids/NAME.png`; its relative path."""
    chosen = rows[np.linspace(0, len(rows) - 1, GRID * GRID).round().astype(int)]
    size = images.shape[1]
    tiles = images[chosen].reshape(GRID, GRID, size, size, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(tiles.reshape(GRID * size, GRID * size, 3)).save(out / "grids" / f"{name}.png")
    return f"grids/{name}.png"
