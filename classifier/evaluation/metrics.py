"""How good scores are on one set of images. What a set leaves undefined is None, never NaN."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score, roc_curve

from classifier.evaluation.multiclass import equal_prior, measure_classes, one_against_rest
from classifier.run_folder import PLAIN_SCORE

Metrics = dict[str, float | int | None]
ECE_BINS = 15
ROUNDING = 1e-12  # of rates
SURE = np.exp(-36.0)  # least probability in the log loss: float64 has none nearer to 1 than that
OF_BOTH_CLASSES = (
    "auc",
    "average_precision",
    "balanced_accuracy",
    "sensitivity_at_95_specificity",
    "specificity_at_95_sensitivity",
    "partial_auc_tpr80",
)


def measure_scores(targets: np.ndarray, scores: np.ndarray, threshold: float) -> Metrics:
    """All figures of a binary classifier. `targets` 0/1 [n], `scores` probabilities of malignant.

    `threshold` (score at or above it: malignant) is chosen on validation images and enters
    `balanced_accuracy` and `accuracy_at_threshold` alone; `accuracy` is at 0.5. With one class
    only, whatever compares classes is None; without images all is.
    """
    n, n_malignant = len(targets), int(targets.sum())
    both: Metrics = dict.fromkeys(OF_BOTH_CLASSES)
    if 0 < n_malignant < n:
        fpr, tpr, _ = roc_curve(targets, scores, drop_intermediate=False)
        figures = (
            float(balanced_accuracy_score(targets, scores >= threshold)),
            float(tpr[fpr <= 1 - 0.95 + ROUNDING].max()),
            float(1 - fpr[tpr >= 0.95 - ROUNDING].min()),
            partial_auc(targets, scores, 0.80),
        )
        ranking = one_against_rest(targets, scores)
        both = ranking | dict(zip(OF_BOTH_CLASSES[2:], figures, strict=True))
    return both | {
        "accuracy": accuracy(targets, scores, 0.5),
        "accuracy_at_threshold": accuracy(targets, scores, threshold),
        "log_loss": log_loss(targets, scores),
        "brier": float(brier_score_loss(targets, scores, pos_label=1)) if n else None,
        "ece": calibration_error(targets, scores) if n else None,
        "n": n,
        "n_malignant": n_malignant,
        "threshold": float(threshold),
    }


def measure(
    rows: pd.DataFrame, threshold: float | None, validation: pd.DataFrame | None = None
) -> Metrics:
    """`measure_scores` of rows of predictions.parquet; of several diagnoses also of classes.

    Where scores are means over views, `auc_single_view` is the AUC of the images as they are
    (column `plain_score`). Those of classes are `macro_auc`, `class_balanced_accuracy`, the same
    `_equal_prior` (of the class that is most probable where all are equally common; how common they
    are is read off `validation`, or off `rows` themselves), `class_accuracy`, and `auc_CLASS` and
    `average_precision_CLASS`, each class against the rest. Without a threshold, what needs one is
    None.
    """
    targets, scores = rows["target"].to_numpy(), rows["score"].to_numpy()
    metrics = measure_scores(targets, scores, 0.5 if threshold is None else threshold)
    if threshold is None:
        metrics |= dict.fromkeys(("balanced_accuracy", "accuracy_at_threshold", "threshold"))
    if PLAIN_SCORE in rows:
        ranking = one_against_rest(targets, rows[PLAIN_SCORE].to_numpy())
        metrics["auc_single_view"] = ranking["auc"]
    columns = [column for column in rows if column.startswith("score_")]
    if columns:
        names = [column.removeprefix("score_") for column in columns]
        scores = rows[columns].to_numpy()
        common = (rows if validation is None else validation)[columns].to_numpy().mean(0)
        classes = measure_classes(rows["diagnosis"], scores, names)
        even = measure_classes(rows["diagnosis"], equal_prior(scores, common), names)
        metrics |= {
            "macro_auc": classes["macro_auc"],
            "class_balanced_accuracy": classes["balanced_accuracy"],
            "class_balanced_accuracy_equal_prior": even["balanced_accuracy"],
            "class_accuracy": classes["accuracy"],
        }
        for name, figures in classes["classes"].items():
            metrics[f"auc_{name}"] = figures["auc"]
            metrics[f"average_precision_{name}"] = figures["average_precision"]
    return metrics


def measure_parts(predictions: pd.DataFrame, parts: Iterable[str]) -> dict[str, Metrics]:
    """`measure` of each part of one fold's predictions; the threshold is validation's."""
    rows = {part: predictions[predictions["part"] == part] for part in parts}
    validation = rows["val"]
    threshold = best_threshold(validation["target"].to_numpy(), validation["score"].to_numpy())
    return {part: measure(rows[part], threshold, validation) for part in rows}


def accuracy(targets: np.ndarray, scores: np.ndarray, threshold: float) -> float | None:
    """Share of the images on the right side of a threshold; None without images."""
    return float(((scores >= threshold) == (targets == 1)).mean()) if len(targets) else None


def log_loss(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """Mean cross-entropy in nats; None without images. A score that is surely wrong counts 36."""
    right = np.where(targets == 1, scores, 1 - scores)
    return float(-np.log(np.maximum(right, SURE)).mean()) if len(targets) else None


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
