"""Metrics of one model's scores under many sets of image weights, for resamples of groups.

Each takes target bool [n], scores [n] and weights [replicates, n] and returns [replicates]; NaN
where a replicate gives a class that it needs no weight. With equal weights they are those of
classifier.evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from classifier.evaluation.metrics import ECE_BINS, ece_bin

NET_BENEFIT_AT = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
MIN_TPR = 0.8
THRESHOLDS = ("specificity_95", "sensitivity_95", "youden")

Counted = Literal["images", "malignant", "benign", "pairs"]


@dataclass(frozen=True)
class Metric:
    """A figure of a model, and what a fold counts by when figures are averaged over folds."""

    name: str
    counted: Counted
    larger_is_better: bool


@dataclass(frozen=True)
class Ranked:
    """Weights summed down the ranking, at the ends of ties: [replicates, distinct scores + 1]."""

    true: np.ndarray  # weight of malignant images among the highest scores
    false: np.ndarray

    @staticmethod
    def of(target: np.ndarray, score: np.ndarray, weights: np.ndarray) -> "Ranked":
        """From the definition in the module's docstring."""
        order = np.argsort(-score, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
        ordered, malignant = weights[:, order].astype(np.float64), target[order]
        true, false = (
            np.pad(np.cumsum(ordered * chosen, axis=1)[:, ends], ((0, 0), (1, 0)))
            for chosen in (malignant, ~malignant)
        )
        return Ranked(true, false)


def metrics() -> list[Metric]:
    """What `figures` gives, in its order."""
    rates = [
        Metric(f"{rate}_at_{threshold}", counted, True)
        for threshold in THRESHOLDS
        for rate, counted in _RATES
    ]
    benefits = [Metric(f"net_benefit_{at:g}", "images", True) for at in NET_BENEFIT_AT]
    return [
        Metric("average_precision", "images", True),
        Metric("partial_auc_tpr80", "pairs", True),
        *rates,
        Metric("brier", "images", False),
        Metric("ece", "images", False),
        *benefits,
    ]


_RATES: tuple[tuple[str, Counted], ...] = (("sensitivity", "malignant"), ("specificity", "benign"))


def figures(
    target: np.ndarray,
    probability: np.ndarray,
    thresholds: dict[str, float] | None,
    weights: np.ndarray,
) -> np.ndarray:
    """All of `metrics`, float64 [metrics, replicates].

    Parameters
    ----------
    target : bool [n]
    probability : [n] calibrated scores
    thresholds : THRESHOLDS, chosen on validation; None: rates at them are NaN
    weights : [replicates, n]
    """
    ranked = Ranked.of(target, probability, weights)
    nothing = np.full(len(weights), np.nan)
    rates = [
        nothing if thresholds is None else rate(target, probability, weights, thresholds[name])
        for name in THRESHOLDS
        for rate in (sensitivity, specificity)
    ]
    return np.array(
        [
            average_precision(ranked),
            partial_auc(ranked),
            *rates,
            brier(target, probability, weights),
            calibration_error(target, probability, weights),
            *(net_benefit(target, probability, weights, at) for at in NET_BENEFIT_AT),
        ]
    )


def average_precision(ranked: Ranked) -> np.ndarray:
    """Precision averaged over the steps of recall, without interpolation."""
    with np.errstate(invalid="ignore"):
        precision = ranked.true[:, 1:] / (ranked.true + ranked.false)[:, 1:]
        steps = np.diff(ranked.true, axis=1) / ranked.true[:, -1:]
    return np.where(steps > 0, precision * steps, steps).sum(axis=1)  # a NaN stays one


def partial_auc(ranked: Ranked) -> np.ndarray:
    """Area between the ROC curve and the line TPR = 0.8: 0 .. 0.2 (ISIC 2024)."""
    with np.errstate(invalid="ignore"):
        tpr, fpr = ranked.true / ranked.true[:, -1:], ranked.false / ranked.false[:, -1:]
        low, high = tpr[:, :-1], tpr[:, 1:]
        start = np.maximum(low, MIN_TPR)  # of the part of each step that lies above the line
        height = np.maximum(high, MIN_TPR) - start
        share = np.divide(start - low, high - low, out=np.zeros_like(low), where=height > 0)
        left = fpr[:, :-1] + share * np.diff(fpr, axis=1)
        return (height * (1 - (left + fpr[:, 1:]) / 2)).sum(axis=1)


def sensitivity(
    target: np.ndarray, score: np.ndarray, weights: np.ndarray, threshold: float
) -> np.ndarray:
    """Share of malignant images with a score at or above the threshold."""
    return _share(weights, target & (score >= threshold), target)


def specificity(
    target: np.ndarray, score: np.ndarray, weights: np.ndarray, threshold: float
) -> np.ndarray:
    """Share of benign images with a score below the threshold."""
    return _share(weights, ~target & (score < threshold), ~target)


def brier(target: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean squared error of probabilities."""
    return _mean(weights, (probability - target) ** 2)


def calibration_error(
    target: np.ndarray, probability: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Expected calibration error over 15 bins of equal width (Naeini et al. 2015)."""
    bins = np.eye(ECE_BINS)[ece_bin(probability)] * (probability - target)[:, None]
    return np.abs(weights @ bins).sum(axis=1) / weights.sum(axis=1)


def net_benefit(
    target: np.ndarray, probability: np.ndarray, weights: np.ndarray, threshold: float
) -> np.ndarray:
    """True positives less false ones at the odds of the threshold, an image (Vickers, Elkin 2006).

    Who acts at a probability of `threshold` holds a missed melanoma for (1 - t) / t times as bad as
    a needless excision.
    """
    odds = threshold / (1 - threshold)
    return _mean(weights, (probability >= threshold) * np.where(target, 1.0, -odds))


def _share(weights: np.ndarray, chosen: np.ndarray, among: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (weights @ chosen.astype(np.float64)) / (weights @ among.astype(np.float64))


def _mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (weights @ values) / weights.sum(axis=1)


COUNTS: dict[Counted, Callable[[np.ndarray], int]] = {  # of targets bool [n]
    "images": len,
    "malignant": lambda target: int(target.sum()),
    "benign": lambda target: int((~target).sum()),
    "pairs": lambda target: int(target.sum()) * int((~target).sum()),
}
