"""Paired differences of metrics other than the AUC, with intervals of total variance.

The same parts as of the AUC difference: groups by resampling them, classifier seeds and generators
by how single trainings scatter. Intervals are symmetric, cut at -1 and 1. Many metrics are looked
at and none is corrected for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from dermsynth import seeds
from dermsynth.group_bootstrap import group_draws
from experiments.statistics.curves import ALPHA
from experiments.statistics.metrics import COUNTS, Metric, figures, metrics
from experiments.statistics.trainings import Images, Trainings
from experiments.statistics.variance import Part, Variance, pooled, seed_deviations, strata


@dataclass(frozen=True)
class Model:
    """One trained model on one set of images."""

    probability: np.ndarray  # float64 [n], calibrated on validation
    thresholds: dict[str, float] | None  # metrics.THRESHOLDS, chosen on validation


@dataclass(frozen=True)
class Paired:
    """A metric of an arm and of its reference."""

    name: str
    arm: float | None  # mean of single trainings; None: undefined
    reference: float | None
    delta: float | None
    low: float | None  # 95% interval of total variance; None: unknown
    high: float | None


class Judged:
    """`metrics.figures` of models, under the images as they are and under resamples; kept."""

    def __init__(self, replicates: int, seed: int = 0) -> None:
        self.replicates, self.seed = replicates, seed
        self._kept: dict[int, tuple[np.ndarray, Model]] = {}

    def of(self, images: Images, model: Model, number: int) -> np.ndarray:
        """float64 [metrics, 1 + replicates], the first without resampling.

        `number`: of the set of images; groups of different sets are drawn independently.
        """
        if id(model) not in self._kept:
            seed = seeds.derive(self.seed, "images", number)
            arguments = images.target, model.probability, model.thresholds
            drawn = [figures(*arguments, np.ones((1, len(images.target))))]
            for block in group_draws(images.groups.n_groups, self.replicates, seed):
                drawn.append(figures(*arguments, block[:, images.group]))
            self._kept[id(model)] = np.concatenate(drawn, axis=1), model
        return self._kept[id(model)][0]


def paired_metrics(
    folds: Sequence[Trainings],
    models: Sequence[tuple[Sequence[Model], Sequence[Model]]],
    count_gans: bool,
    df: float,
    judged: Judged,
) -> list[Paired]:
    """Differences of `metrics.metrics`.

    Parameters
    ----------
    folds : trainings of the AUC comparison
    models : of each fold, those of the arm and of the reference, in the order of its scores
    count_gans : whether generators are a source of variance
    df : degrees of freedom of groups, of the AUC difference
    judged : of resamples, shared by comparisons
    """
    numbers = {id(images): number for number, (images, _) in enumerate(strata(folds))}
    values = [
        [
            np.array([judged.of(fold.images, model, numbers[id(fold.images)]) for model in side])
            for side in sides
        ]
        for fold, sides in zip(folds, models, strict=True)
    ]
    return [
        _paired(metric, folds, [(a[:, at], b[:, at]) for a, b in values], count_gans, df)
        for at, metric in enumerate(metrics())
    ]


def _paired(
    metric: Metric,
    folds: Sequence[Trainings],
    values: Sequence[tuple[np.ndarray, np.ndarray]],
    count_gans: bool,
    df: float,
) -> Paired:
    """One metric; `values`: of each fold [models, 1 + replicates] of both arms."""
    alike = {id(images): len(members) for images, members in strata(folds)}
    weights = np.array(
        [COUNTS[metric.counted](fold.images.target) / alike[id(fold.images)] for fold in folds]
    )
    weights /= weights.sum()
    pairs = [fold.of_pairs(a, b) for fold, (a, b) in zip(folds, values, strict=True)]
    total = np.sum([w * pair.mean(axis=0) for w, pair in zip(weights, pairs, strict=True)], axis=0)
    means = [
        float(weights @ [both[side][fold.pairs[:, side], 0].mean() for fold, both in known])
        for known in [list(zip(folds, values, strict=True))]
        for side in (0, 1)
    ]
    delta = float(total[0])
    if not np.isfinite(delta):
        return Paired(metric.name, None, None, None, None, None)
    variance = _variance(folds, weights, pairs, total, count_gans, df)
    reach = None if variance is None else _reach(variance)
    if reach is None:
        low, high = None, None
    else:  # rates lie in 0..1, net benefits (thresholds to 0.5) span no more
        low, high = max(-1.0, delta - reach), min(1.0, delta + reach)
    return Paired(metric.name, means[0], means[1], delta, low, high)


def _variance(
    folds: Sequence[Trainings],
    weights: np.ndarray,
    pairs: Sequence[np.ndarray],
    total: np.ndarray,
    count_gans: bool,
    df: float,
) -> Variance | None:
    """Of the mean difference; None where groups or seeds are unknown."""
    single = [pair[:, 0] for pair in pairs]
    of_seeds = pooled(folds, weights, single, lambda fold: fold.seed_level)
    if of_seeds is None or df <= 0:
        return None
    gans = pooled(folds, weights, single, lambda fold: fold.gan_level) if count_gans else None
    crossed = 0.0
    for fold, weight, pair in zip(folds, weights, pairs, strict=True):
        if fold.n_seeds > 1:
            apart = seed_deviations(fold, pair[:, 1:])
            spread = float(np.nanvar(apart, axis=1).sum())
            crossed += weight**2 * fold.seed_kish * spread / (fold.n_seeds - 1)
    return Variance(Part(float(np.nanvar(total[1:])), df), crossed, of_seeds, gans)


def _reach(variance: Variance) -> float:
    """Half-width of the 95% interval, never less than given the trained models."""
    groups = Part(variance.groups.variance * variance.own, variance.groups.df)
    squares = [
        stdtrit(part.df, ALPHA / 2) ** 2 * part.variance for part in (groups, *variance.training)
    ]
    alone = stdtrit(groups.df, ALPHA / 2) ** 2 * variance.groups.variance
    return float(np.sqrt(max(alone, sum(squares))))
