"""How good scores are on one set of images. What a set leaves undefined is None, never NaN."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    roc_auc_score,
    roc_curve,
)

from classifier.evaluation.multiclass import equal_prior, evaluate_classes

Metrics = dict[str, float | int | None]
ECE_BINS = 15


def evaluate(targets: np.ndarray, scores: np.ndarray, threshold: float) -> Metrics:
    """All metrics of DESIGN 2. `targets` 0/1 [n], `scores` probabilities [n] of malignant.

    `threshold` (score at or above it: malignant) is chosen on validation images and enters
    `balanced_accuracy` alone. With one class only, whatever compares classes is None.
    """
    n, n_malignant = len(targets), int(targets.sum())
    both = 0 < n_malignant < n
    found: Metrics = {
        "auc": float(roc_auc_score(targets, scores)) if both else None,
        "average_precision": float(average_precision_score(targets, scores)) if both else None,
        "balanced_accuracy": (
            float(balanced_accuracy_score(targets, scores >= threshold)) if both else None
        ),
        "sensitivity_at_95_specificity": _sensitivity_at(targets, scores, 0.95) if both else None,
        "specificity_at_95_sensitivity": _specificity_at(targets, scores, 0.95) if both else None,
        "partial_auc_tpr80": partial_auc(targets, scores, 0.80) if both else None,
        "brier": float(brier_score_loss(targets, scores, pos_label=1)) if n else None,
        "ece": calibration_error(targets, scores) if n else None,
        "n": n,
        "n_malignant": n_malignant,
        "threshold": float(threshold),
    }
    return found


def measure(
    rows: pd.DataFrame, threshold: float | None, validation: pd.DataFrame | None = None
) -> Metrics:
    """`evaluate` of rows of predictions.parquet; of several diagnoses also the figures of classes.

    These are `macro_auc`, `class_balanced_accuracy`, the same `_equal_prior` (of the class that is
    most probable where all are equally common; how common they are is read off `validation`, or
    off `rows` themselves), `class_accuracy`, and `auc_CLASS` and `average_precision_CLASS`, each
    class against the rest. Without a threshold, what needs one is None.
    """
    targets, scores = rows["target"].to_numpy(), rows["score"].to_numpy()
    found = evaluate(targets, scores, 0.5 if threshold is None else threshold)
    if threshold is None:
        found |= {"balanced_accuracy": None, "threshold": None}
    columns = [column for column in rows if column.startswith("score_")]
    if columns:
        names = [column.removeprefix("score_") for column in columns]
        scores = rows[columns].to_numpy()
        of = evaluate_classes(rows["diagnosis"], scores, names)
        found |= {"macro_auc": of["macro_auc"], "class_balanced_accuracy": of["balanced_accuracy"]}
        common = (rows if validation is None else validation)[columns].to_numpy().mean(0)
        even = evaluate_classes(rows["diagnosis"], equal_prior(scores, common), names)
        found["class_balanced_accuracy_equal_prior"] = even["balanced_accuracy"]
        found["class_accuracy"] = of["accuracy"]
        for name, one in of["classes"].items():
            found[f"auc_{name}"] = one["auc"]
            found[f"average_precision_{name}"] = one["average_precision"]
    return found


def measure_parts(predictions: pd.DataFrame, parts: Iterable[str]) -> dict[str, Metrics]:
    """`measure` of each part of one fold's predictions; the threshold is validation's."""
    of = {part: predictions[predictions["part"] == part] for part in parts}
    threshold = best_threshold(of["val"]["target"].to_numpy(), of["val"]["score"].to_numpy())
    return {part: measure(rows, threshold, of["val"]) for part, rows in of.items()}


def best_threshold(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """The score that separates best (sensitivity + specificity; Youden 1950), of those seen.

    None where there is one class only.
    """
    if len(np.unique(targets)) < 2:
        return None
    fpr, tpr, thresholds = roc_curve(targets, scores)
    best = int(np.argmax((tpr - fpr)[1:])) + 1  # the first threshold is infinite
    return float(thresholds[best])


def partial_auc(targets: np.ndarray, scores: np.ndarray, min_tpr: float) -> float:
    """Area between the ROC curve and the line TPR = `min_tpr`: 0 .. 1 - min_tpr (ISIC 2024).

    Swapping the classes turns "TPR above" into "FPR below", which scikit-learn knows, scaled by
    McClish (1989); the scale is undone here.
    """
    max_fpr = 1 - min_tpr
    scaled = roc_auc_score(1 - targets, -scores, max_fpr=max_fpr)
    chance = 0.5 * max_fpr**2
    return float(chance + (max_fpr - chance) * (2 * scaled - 1))


def calibration_error(targets: np.ndarray, scores: np.ndarray) -> float:
    """Expected calibration error over 15 bins of equal width (Naeini et al. 2015)."""
    gaps = np.bincount(ece_bin(scores), scores - targets, ECE_BINS)
    return float(np.abs(gaps).sum() / len(targets))


def ece_bin(scores: np.ndarray) -> np.ndarray:
    """Which of ECE's bins each score is in, int64 [n]."""
    return np.clip((scores * ECE_BINS).astype(int), 0, ECE_BINS - 1)


def _sensitivity_at(targets: np.ndarray, scores: np.ndarray, specificity: float) -> float:
    fpr, tpr, _ = roc_curve(targets, scores, drop_intermediate=False)
    return float(tpr[fpr <= 1 - specificity + 1e-12].max())


def _specificity_at(targets: np.ndarray, scores: np.ndarray, sensitivity: float) -> float:
    fpr, tpr, _ = roc_curve(targets, scores, drop_intermediate=False)
    return float(1 - fpr[tpr >= sensitivity - 1e-12].min())
