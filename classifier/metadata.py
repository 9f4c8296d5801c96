"""Melanoma from age, sex and site alone: what a classifier of images has to beat, or to join.

Writes config.yaml, predictions.parquet, metrics.json and run.json as classifier.train does, so
that classifier.blend reads both. Needs no images: a dataset of tables only will do.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from classifier.evaluation.cross_validation import pool, pooled_metrics
from classifier.evaluation.metrics import Metrics, measure_parts
from classifier.run_folder import METRICS, RUN, prediction_rows
from classifier.targets import BINARY
from data.metadata import CATEGORIES, MetadataEncoder
from data.store import Dataset, load_table
from dermsynth import cli, runs
from dermsynth.errors import UserError
from dermsynth.files import write_bytes, write_json
from dermsynth.machine import versions

ModelName = Literal["logistic", "naive-bayes", "forest", "boosting"]
Model = LogisticRegression | GaussianNB | RandomForestClassifier | HistGradientBoostingClassifier
READ = ("age", *CATEGORIES)
SHOWN = ("auc", "average_precision")


@dataclass(frozen=True)
class MetadataOptions:
    """Options of `python -m classifier.metadata`."""

    data: Path  # prepared dataset folder; its images are not read
    model: ModelName = "logistic"  # forest: 1000 trees of depth 2; boosting: of histograms
    fold: str = "all"  # validate on this fold, or on each in turn: all
    seed: int = 0  # of drawn missing categories, the forest and the boosting
    out: Path | None = None  # run folder; none: a free name under runs/cls
    overwrite: bool = False  # replace a run that --out holds


def train(options: MetadataOptions) -> dict[str, Metrics]:
    """Fit, test and write the run's folder; returns what metrics.json holds.

    One fold: parts "val" and "test", as classifier.train. All: those of classifier.pooling.
    Raises UserError for a fold that is not there, a training part of one class, and for one in
    which age, sex and site are all missing.
    """
    dataset = open_table(options.data)
    folds = _folds(dataset, options.fold)
    fitted = [_fit_and_score(dataset, fold, options.model, options.seed) for fold in folds]
    own = [measure_parts(frame, ("val", "test")) for frame in fitted]
    if options.fold == "all":
        predictions = pool(fitted)
        metrics = pooled_metrics(predictions, own)
    else:
        predictions, metrics = fitted[0], own[0]
    stem = f"{options.data.name}-metadata-{options.model}-fold{options.fold}-seed{options.seed}"
    out = options.out or runs.free_name(Path("runs/cls"), stem)
    runs.open_run(out, options, resume=False, overwrite=options.overwrite)
    write_bytes(out / "predictions.parquet", predictions.to_parquet(index=False))
    write_json(out / RUN, _facts(dataset, folds, own))
    write_json(out / METRICS, metrics)
    runs.finish_run(out)
    print(f"{options.data}: {options.model} of age, sex and site; writes {out}")
    print(_table(dict(zip(folds, own, strict=True)), metrics))
    return metrics


def new_model(name: ModelName, seed: int) -> Model:
    """An unfitted scikit-learn classifier; classes weigh the same in all but naive Bayes."""
    if name == "logistic":
        return LogisticRegression(class_weight="balanced", max_iter=1000)
    if name == "naive-bayes":
        return GaussianNB()
    if name == "forest":
        return RandomForestClassifier(1000, max_depth=2, class_weight="balanced", random_state=seed)
    # early stopping, its default on more than 10,000 rows, would split patients at random
    return HistGradientBoostingClassifier(
        class_weight="balanced", early_stopping=False, random_state=seed
    )


def fit(table: pd.DataFrame, name: ModelName, seed: int = 0) -> tuple[MetadataEncoder, Model]:
    """Encoder and model fitted on the rows of a table, and on nothing else."""
    encoder = MetadataEncoder(seed).fit(table)
    features = encoder.transform(table).astype(np.float64)
    return encoder, new_model(name, seed).fit(features, table["target"].to_numpy(np.int64))


def open_table(path: Path) -> Dataset:
    """A dataset without its images (`images` has no pixels), whether it has any or not.

    Raises UserError as `data.store.load_table` does.
    """
    table, info = load_table(path)
    return Dataset(path, np.empty((len(table), 0, 0, 3), np.uint8), table, info)


def _folds(dataset: Dataset, text: str) -> list[int]:
    known = sorted({int(fold) for fold in dataset.table["fold"] if fold >= 0})
    if text != "all" and text not in map(str, known):
        raise UserError(
            f"--fold {text}: expected all or one of the folds of {dataset.path}: {known}"
        )
    return known if text == "all" else [int(text)]


def _fit_and_score(dataset: Dataset, fold: int, name: ModelName, seed: int) -> pd.DataFrame:
    """predictions.parquet of one fold: parts val and test."""
    train = dataset.table.iloc[dataset.rows("train", fold)]
    if train[list(READ)].isna().all(axis=None):
        raise UserError(
            f"{dataset.path}: age, sex and site of all {len(train):,} training images of fold "
            f"{fold} are missing; there is nothing to learn from"
        )
    if len(targets := train["target"].unique()) < 2:
        only = "malignant" if targets[0] else "benign"
        raise UserError(f"{dataset.path}: the training part of fold {fold} is all {only}")
    encoder, model = fit(train, name, seed)
    parts = []
    for part in ("val", "test"):
        rows = dataset.rows(part, fold)  # type: ignore[arg-type]
        found = np.empty((0, 2))
        if len(rows):
            features = encoder.transform(dataset.table.iloc[rows]).astype(np.float64)
            found = model.predict_proba(features)
        parts.append(prediction_rows(dataset, rows, part, found, BINARY))
    return pd.concat(parts, ignore_index=True)


def _facts(dataset: Dataset, folds: list[int], own: list[dict[str, Metrics]]) -> dict[str, Any]:
    """run.json: what config.yaml does not say, in the words of classifier.train, fold by fold."""
    counts = {}
    for fold in folds:
        targets = dataset.targets(dataset.rows("train", fold))
        counts[str(fold)] = {
            "real_benign": int((targets == 0).sum()),
            "real_malignant": int(targets.sum()),
        }
    return {
        "folds_hash": dataset.folds_hash,
        "externals": {},
        "training_images": counts,
        "pool": None,
        "leaky": None,
        "fold_metrics": {str(fold): metrics for fold, metrics in zip(folds, own, strict=True)},
        "versions": versions("scikit-learn", "numpy"),
    }


def _table(own: dict[int, dict[str, Metrics]], metrics: dict[str, Metrics]) -> str:
    """AUC and average precision of every fold and, of all folds, pooled."""
    rows = {f"fold {fold}, validation": of["val"] for fold, of in own.items()}
    if "oof" in metrics:
        rows |= {"out of fold": metrics["oof"], "out of fold, ranks": metrics["oof_ranked"]}
        rows |= {"test, mean of folds": metrics["test"]}
    else:
        rows |= {"test": metrics["test"]}
    lines = [f"{'':<22}{'AUC':>8}{'AP':>8}{'n':>8}{'malignant':>11}"]
    for name, of in rows.items():
        auc, ap = ("-" if of[key] is None else f"{of[key]:.4f}" for key in SHOWN)
        lines.append(f"{name:<22}{auc:>8}{ap:>8}{of['n']:>8}{of['n_malignant']:>11}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(MetadataOptions, train, "classifier.metadata", __doc__ or "")
