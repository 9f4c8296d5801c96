"""Ranking and operating points of scores, each with a 95% interval over patients or lesions.

A threshold is chosen on validation and applied elsewhere, which is what a user of the classifier
can do; points read off a part's own ROC curve are kept apart, because they pick the threshold with
the answers at hand.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from classifier.evaluation.intervals import (
    UNDEFINED,
    Figure,
    Freedom,
    Resampling,
    Scored,
    auc_figure,
    figure,
    resample,
)
from classifier.evaluation.metrics import ROUNDING, best_threshold
from data.store import TargetMeaning
from dermsynth.group_bootstrap import clustered, count_pairs

TARGET = 0.95  # of the sensitivity or specificity that is held
MIN_TPR = 0.80  # of the partial AUC
FEW_GROUPS = 10  # of the rarer class; below it the error rates of intervals were not measured
RANKING = (
    "average_precision",
    "partial_auc_tpr80",
    "sensitivity_at_95_specificity",
    "specificity_at_95_sensitivity",
    "youden_sensitivity",
    "youden_specificity",
)


# --- thresholds ----------------------------------------------------------------------------------


def choose_thresholds(target: np.ndarray, score: np.ndarray) -> dict[str, float] | None:
    """Scores at or above which an image is called malignant, chosen on validation images.

    `specificity_95`: the lowest with a specificity of 0.95 or more there; `sensitivity_95`: the
    highest with a sensitivity of 0.95 or more; `youden`: the largest sum of both (Youden 1950),
    the threshold of metrics.json. None where a class is missing.
    """
    if len(np.unique(target)) < 2:
        return None
    fpr, tpr, thresholds = roc_curve(target, score, drop_intermediate=False)
    # scikit-learn's first threshold, above all scores, is infinite: JSON has no such number
    thresholds[0] = np.nextafter(np.max(score), np.inf)
    return {
        "specificity_95": float(thresholds[np.flatnonzero(fpr <= 1 - TARGET + ROUNDING)[-1]]),
        "sensitivity_95": float(thresholds[np.flatnonzero(tpr >= TARGET - ROUNDING)[0]]),
        "youden": best_threshold(target, score),
    }


# --- figures of one part -------------------------------------------------------------------------


def operating_points(
    rows: Scored, thresholds: dict[str, float] | None, resampling: Resampling
) -> dict[str, Any]:
    """Ranking figures and operating points of one part.

    `auc, average_precision, partial_auc_tpr80` (0 to 0.2), `sensitivity_at_95_specificity,
    specificity_at_95_sensitivity` (on the part's own ROC, as in metrics.json), `own_youden`
    (sensitivity, specificity), `balanced_accuracy` and `accuracy_at_threshold` at the threshold
    `youden`, `accuracy` at 0.5, and `at_validation_thresholds`: what each of `thresholds` achieves
    here. Each is a Figure; what a missing class leaves undefined is None.
    """
    ranking = ranking_figures(rows, resampling)
    youden = {name: ranking.pop(f"own_youden_{name}") for name in ("sensitivity", "specificity")}
    applied = {
        name: at_threshold(rows, threshold, resampling)
        for name, threshold in (thresholds or {}).items()
    }
    return {
        "auc": auc_figure(rows, resampling),
        **ranking,
        "balanced_accuracy": applied["youden"]["balanced_accuracy"] if applied else UNDEFINED,
        "accuracy": at_threshold(rows, 0.5, resampling)["accuracy"],
        "accuracy_at_threshold": applied["youden"]["accuracy"] if applied else UNDEFINED,
        "threshold": thresholds["youden"] if thresholds else None,
        "own_youden": youden,
        "at_validation_thresholds": applied or None,
    }


def ranking_figures(rows: Scored, resampling: Resampling) -> dict[str, Figure]:
    """Figures of the ROC and precision-recall curves but for the AUC; None with one class."""
    names = [name.replace("youden", "own_youden") for name in RANKING]
    if not rows.both:
        return dict.fromkeys(names, UNDEFINED)
    values, drawn = resample(rows, Curve.of(rows).figures, resampling)
    df = clustered(count_pairs(rows.target, rows.group, rows.score[None], None))[2]
    limits = {"partial_auc_tpr80": (0.0, 1 - MIN_TPR)}
    freedom = Freedom.of(rows)
    groups = [None, None, *(freedom.n_malignant, freedom.n_benign) * 2]
    return {
        name: figure(values[at], drawn[:, at], df, limits.get(name, (0.0, 1.0)), groups[at])
        for at, name in enumerate(names)
    }


def at_threshold(rows: Scored, threshold: float, resampling: Resampling) -> dict[str, Any]:
    """What calling scores at or above `threshold` malignant achieves.

    `threshold`, and as Figures `sensitivity` (None without malignant images), `specificity` (None
    without benign ones), `balanced_accuracy` (None without either), `called_malignant` and
    `accuracy` (shares).
    """
    called = rows.score >= threshold
    columns = [called & rows.target, rows.target, ~called & ~rows.target, ~rows.target, called]
    sums = rows.group_sums(np.stack(columns, 1).astype(float))

    def rates(weights: np.ndarray) -> np.ndarray:
        hit, malignant, passed, benign, both = (weights @ sums).T
        with np.errstate(invalid="ignore"):
            rate, n = [hit / malignant, passed / benign], malignant + benign
            shares = [both / n, (hit + passed) / n]
        return np.stack([*rate, (rate[0] + rate[1]) / 2, *shares], 1)

    values, drawn = resample(rows, rates, resampling)
    freedom = Freedom.of(rows)
    df_and_groups = {
        "sensitivity": (freedom.malignant, freedom.n_malignant),
        "specificity": (freedom.benign, freedom.n_benign),
        "balanced_accuracy": (min(freedom.malignant, freedom.benign), freedom.fewest),
        "called_malignant": (freedom.all, rows.n_groups),
        "accuracy": (freedom.all, rows.n_groups),
    }
    figures = {
        name: figure(values[at], drawn[:, at], df, groups=groups)
        for at, (name, (df, groups)) in enumerate(df_and_groups.items())
    }
    return {"threshold": float(threshold), **figures}


# --- curves under weights -----------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Images by falling score, to draw curves under many sets of weights from one sort."""

    malignant: np.ndarray  # bool [n], in that order
    group: np.ndarray  # int64 [n]
    ends: np.ndarray  # int64: last image of each distinct score

    @staticmethod
    def of(rows: Scored) -> "Curve":
        """Sorted once."""
        order = np.argsort(-rows.score, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(rows.score[order]) != 0, True))
        return Curve(rows.target[order], rows.group[order], ends)

    def figures(self, weights: np.ndarray) -> np.ndarray:
        """RANKING under group weights [b, groups]: [b, 6], NaN where a class has no weight."""
        images = weights[:, self.group]
        hits = np.cumsum(images * self.malignant, axis=1)[:, self.ends]
        alarms = np.cumsum(images * ~self.malignant, axis=1)[:, self.ends]
        precision = np.divide(hits, hits + alarms, out=np.zeros_like(hits), where=hits > 0)
        start = np.zeros((len(weights), 1))
        with np.errstate(invalid="ignore"):
            tpr = np.hstack([start, hits / hits[:, -1:]])
            fpr = np.hstack([start, alarms / alarms[:, -1:]])
        best = np.argmax((tpr - fpr)[:, 1:], axis=1) + 1  # as metrics.best_threshold
        rows = np.arange(len(weights))
        columns = [
            (np.diff(tpr, axis=1) * precision).sum(1),
            _area_above(fpr, tpr),
            np.where(fpr <= 1 - TARGET + ROUNDING, tpr, 0).max(1),
            1 - np.where(tpr >= TARGET - ROUNDING, fpr, 1).min(1),
            tpr[rows, best],
            1 - fpr[rows, best],
        ]
        figures = np.stack(columns, 1)
        figures[(hits[:, -1] == 0) | (alarms[:, -1] == 0)] = np.nan
        return figures


def _area_above(fpr: np.ndarray, tpr: np.ndarray) -> np.ndarray:
    """Area between ROC curves [b, points] and the line TPR = MIN_TPR: [b], 0 .. 0.2 (ISIC 2024)."""
    above = np.maximum(tpr - MIN_TPR, 0)
    rise, width = np.diff(tpr, axis=1), np.diff(fpr, axis=1)
    # of a rising segment, only the piece above the line counts: a triangle or a trapezium
    lifted = np.diff(above**2, axis=1)
    height = np.divide(lifted, 2 * rise, out=above[:, :-1].copy(), where=rise > 0)
    return (width * height).sum(1)


def notes(rows: Scored, meaning: TargetMeaning) -> list[str]:
    """What a reader must know before trusting the figures of a part, in sentences."""
    freedom = Freedom.of(rows)
    if not rows.both:
        only = meaning.one if rows.target.any() else meaning.zero
        return [
            f"All images are {only}: AUC, average precision and all that needs both is undefined."
        ]
    if freedom.fewest >= FEW_GROUPS:
        return []
    rarer = meaning.one if freedom.n_malignant == freedom.fewest else meaning.zero
    return [
        f"Only {freedom.fewest} patients or lesions with images that are {rarer}: with fewer than "
        f"{FEW_GROUPS} the intervals are themselves unsure."
    ]
