"""Classifiers of age, sex and site alone, fold by fold: what images have to beat, or to join."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from classifier.evaluation.metrics import Metrics
from classifier.records import MetadataRunRecord
from classifier.run_folder import prediction_rows
from classifier.targets import BINARY
from data.metadata import CATEGORIES, MetadataEncoder
from data.store import Dataset, load_table
from dermsynth.errors import UserError
from dermsynth.machine import versions

Model = LogisticRegression | GaussianNB | RandomForestClassifier | HistGradientBoostingClassifier
READ = ("age", *CATEGORIES)
PARTS = ("train", "val", "test")
SHOWN = ("auc", "average_precision", "accuracy")


def open_table(path: Path) -> Dataset:
    """A dataset without its images (`images` has no pixels), whether it has any or not.

    Raises UserError as `data.store.load_table` does.
    """
    table, info, identity = load_table(path)
    images: Any = np.empty((len(table), 0, 0, 3), np.uint8)
    return Dataset(path, images, table, info, identity)


def choose_folds(dataset: Dataset, text: str) -> list[int]:
    """All folds of a dataset, or the one. Raises UserError where it does not exist."""
    known = sorted({int(fold) for fold in dataset.table["fold"] if fold >= 0})
    if text != "all" and text not in map(str, known):
        raise UserError(
            f"--fold {text}: expected all or one of the folds of {dataset.path}: {known}"
        )
    return known if text == "all" else [int(text)]


def new_model(name: str, seed: int) -> Model:
    """An unfitted scikit-learn classifier, by its name in MetadataOptions.

    Classes weigh the same in all but naive Bayes.
    """
    seed %= 2**32  # scikit-learn takes no larger ones
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


def fit(table: pd.DataFrame, name: str, seed: int = 0) -> tuple[MetadataEncoder, Model]:
    """Encoder and model fitted on the rows of a table, and on nothing else."""
    encoder = MetadataEncoder(seed).fit(table)
    features = encoder.transform(table).astype(np.float64)
    return encoder, new_model(name, seed).fit(features, table["target"].to_numpy(np.int64))


def fit_and_score(dataset: Dataset, fold: int, name: str, seed: int) -> pd.DataFrame:
    """Scores of one fold's parts: train, which the model was fitted on, val and test.

    Raises UserError where the training part has one class, or no age, sex and site at all.
    """
    train = dataset.table.iloc[dataset.rows("train", fold)]
    if train[list(READ)].isna().all(axis=None):
        raise UserError(
            f"{dataset.path}: age, sex and site of all {len(train):,} training images of fold "
            f"{fold} are missing; there is nothing to learn from"
        )
    if len(targets := train["target"].unique()) < 2:
        meaning = dataset.info.target
        only = meaning.one if targets[0] else meaning.zero
        raise UserError(
            f"{dataset.path}: all images of the training part of fold {fold} are {only}"
        )
    encoder, model = fit(train, name, seed)
    parts = []
    for part in PARTS:
        rows = dataset.rows(part, fold)  # type: ignore[arg-type]
        probabilities = np.empty((0, 2))
        if len(rows):
            features = encoder.transform(dataset.table.iloc[rows]).astype(np.float64)
            probabilities = model.predict_proba(features)
        parts.append(prediction_rows(dataset, rows, part, probabilities, BINARY))
    return pd.concat(parts, ignore_index=True)


def run_record(dataset: Dataset, fold_metrics: dict[int, dict[str, Metrics]]) -> MetadataRunRecord:
    """run.json: what the options do not say, in the words of classifier.train, fold by fold."""
    counts = {}
    for fold in fold_metrics:
        targets = dataset.targets(dataset.rows("train", fold))
        counts[str(fold)] = {
            "real_benign": int((targets == 0).sum()),
            "real_malignant": int(targets.sum()),
        }
    return MetadataRunRecord(
        folds_hash=dataset.folds_hash,
        externals={},
        training_images=counts,
        pool=None,
        leaky=None,
        meaning=dataset.info.target,
        fold_metrics={str(fold): metrics for fold, metrics in fold_metrics.items()},  # type: ignore[misc]
        versions=versions("scikit-learn", "numpy"),
    )


def screen_table(
    fold_metrics: dict[int, dict[str, Metrics]], metrics: dict[str, Metrics], one: str
) -> str:
    """AUC, average precision and accuracy at 0.5 of every fold, in training and in validation, and
    of all folds pooled. `one`: what target 1 is called.
    """
    words = {"train": "training", "val": "validation"}
    rows = {
        f"fold {fold}, {word}": parts[part]
        for fold, parts in fold_metrics.items()
        for part, word in words.items()
    }
    if "oof" in metrics:
        rows |= {"out of fold": metrics["oof"], "out of fold, ranks": metrics["oof_ranked"]}
        rows |= {"test, mean of folds": metrics["test"]}
    else:
        rows |= {"test": metrics["test"]}
    width = max(11, len(one) + 2)
    lines = [f"{'':<22}{'AUC':>8}{'AP':>8}{'acc@0.5':>9}{'n':>8}{one:>{width}}"]
    for name, row in rows.items():
        auc, ap, right = ("-" if row[key] is None else f"{row[key]:.4f}" for key in SHOWN)
        counts = f"{row['n']:>8}{row['n_malignant']:>{width}}"
        lines.append(f"{name:<22}{auc:>8}{ap:>8}{right:>9}{counts}")
    return "\n".join(lines)
