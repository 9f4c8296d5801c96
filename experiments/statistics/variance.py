"""Where an AUC difference varies: test images, classifier seeds, generators.

The estimate is the mean difference of single trainings, over the pairs of each fold and then over
folds. Its error has three independent sources, of which each gets a variance with degrees of
freedom of its own:

- groups: another set of test patients (Obuchowski 1997, on the averaged trainings);
- seeds: other classifier seeds, from how the differences of seeds scatter, pooled over folds;
- gans: other generators, likewise.

How seeds scatter on a finite test set contains that each model errs on other images. `groups`
contains the same once more; that part, `crossed`, is estimated and taken out of `groups`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dermsynth.group_bootstrap import group_variance
from experiments.statistics.trainings import Images, Trainings, kish, placements


@dataclass(frozen=True)
class Part:
    """A part of the variance of an estimate."""

    variance: float
    df: float  # degrees of freedom; 0: nothing is known


@dataclass(frozen=True)
class Variance:
    """The parts of the variance of a mean difference."""

    groups: Part
    crossed: float  # of `groups`, what `seeds` contains as well
    seeds: Part | None  # None: one classifier seed
    gans: Part | None  # None: not counted

    @property
    def training(self) -> list[Part]:
        """What another training would change."""
        return [part for part in (self.seeds, self.gans) if part is not None]

    @property
    def own(self) -> float:
        """The share of `groups` that is in no other part."""
        if self.groups.variance == 0:
            return 1.0
        return max(0.0, 1 - self.crossed / self.groups.variance)


@dataclass(frozen=True)
class Estimate:
    """A mean AUC difference with all that its intervals need but for the replicates."""

    auc_arm: float
    auc_reference: float
    differences: list[np.ndarray]  # of single trainings, by fold: float64 [pairs]
    variance: Variance

    @property
    def delta(self) -> float:
        """AUC(arm) - AUC(reference)."""
        return self.auc_arm - self.auc_reference


class Tested(Protocol):
    """A fold that was tested on some images."""

    @property
    def images(self) -> Images:
        """Those of its test set."""


def fold_weights(folds: Sequence[Tested]) -> np.ndarray:
    """Weights of folds, float64 [folds]: by pairs of images, shared by folds of the same images."""
    alike = [sum(fold.images is other.images for other in folds) for fold in folds]
    pairs = np.array([fold.images.n_pairs for fold in folds], np.float64) / alike
    return pairs / pairs.sum()


def strata(folds: Sequence[Trainings]) -> list[tuple[Images, list[int]]]:
    """Sets of images with the numbers of the folds that are tested on them."""
    sets: list[tuple[Images, list[int]]] = []
    for number, fold in enumerate(folds):
        for images, numbers in sets:
            if images is fold.images:
                numbers.append(number)
                break
        else:
            sets.append((fold.images, [number]))
    return sets


def estimate(folds: Sequence[Trainings], count_gans: bool) -> Estimate:
    """The mean AUC difference of trainings with its variance.

    Parameters
    ----------
    folds : one or more, each with at least one pair of trainings
    count_gans : whether generators are a source of variance
    """
    weights = fold_weights(folds)
    placed = [
        (placements(fold.images, fold.arm), placements(fold.images, fold.reference))
        for fold in folds
    ]
    means = np.array(
        [
            (a.auc @ times_a, b.auc @ times_b)
            for (a, b), (times_a, times_b) in zip(placed, map(_shares, folds), strict=True)
        ]
    )
    auc_arm, auc_reference = (float(weights @ column) for column in means.T)
    differences = [fold.of_pairs(a.auc, b.auc) for fold, (a, b) in zip(folds, placed, strict=True)]
    crossed = 0.0
    if (seeds := pooled(folds, weights, differences, lambda fold: fold.seed_level)) is not None:
        crossed = _crossed(folds, weights, placed)
    gans = pooled(folds, weights, differences, lambda fold: fold.gan_level) if count_gans else None
    variance = Variance(_over_groups(folds, weights, placed), crossed, seeds, gans)
    return Estimate(auc_arm, auc_reference, differences, variance)


def pooled(
    folds: Sequence[Trainings],
    weights: np.ndarray,
    values: Sequence[np.ndarray],
    level: Callable[[Trainings], np.ndarray],
) -> Part | None:
    """Variance of the mean of `values` by how the means of levels scatter, pooled over folds.

    None where no fold has two levels.

    Parameters
    ----------
    folds, weights : float64 [folds], sum 1
    values : a fold: float64 [pairs]
    level : of each pair of a fold: int64 [pairs]
    """
    squares, df, shrink = 0.0, 0, 0.0
    for fold, weight, value in zip(folds, weights, values, strict=True):
        levels = level(fold)
        counts = np.bincount(levels)
        means = np.bincount(levels, value) / counts
        squares += float(((means - means.mean()) ** 2).sum())
        df += len(counts) - 1
        shrink += weight**2 * kish(counts)
    return Part(squares / df * shrink, float(df)) if df > 0 else None


def _shares(fold: Trainings) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the models of both arms in the mean over pairs."""
    return tuple(times / len(fold.pairs) for times in fold.times())  # type: ignore[return-value]


def _over_groups(folds: Sequence[Trainings], weights: np.ndarray, placed: Sequence[tuple]) -> Part:
    """Variance over groups of the mean difference, trainings averaged.

    Satterthwaite's degrees of freedom for the sum over sets of images.
    """
    parts = []
    for images, numbers in strata(folds):
        row, column = np.zeros(len(images.groups.m)), np.zeros(len(images.groups.n))
        for number in numbers:
            (arm, reference), weight = placed[number], weights[number]
            of_arm, of_reference = _shares(folds[number])
            row += weight * (of_arm @ arm.row - of_reference @ reference.row)
            column += weight * (of_arm @ arm.column - of_reference @ reference.column)
        parts.append(group_variance(row, column, images.groups))
    if any(df <= 0 for _, df in parts):
        return Part(0.0, 0.0)
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return Part(0.0, sum(df for _, df in parts))
    return Part(total, total**2 / sum(variance**2 / df for variance, df in parts))


def _crossed(folds: Sequence[Trainings], weights: np.ndarray, placed: Sequence[tuple]) -> float:
    """How much of the variance over groups is that models of other seeds err on other images.

    The variance over groups of each seed's deviation from the mean of seeds, which sums to K - 1
    times that of one seed.
    """
    total = 0.0
    for fold, weight, (a, b) in zip(folds, weights, placed, strict=True):
        if fold.n_seeds < 2:
            continue
        rows, columns = (
            seed_deviations(fold, fold.of_pairs(of_arm, of_reference))
            for of_arm, of_reference in ((a.row, b.row), (a.column, b.column))
        )
        spread = sum(
            group_variance(row, column, fold.images.groups)[0]
            for row, column in zip(rows, columns, strict=True)
        )
        total += weight**2 * fold.seed_kish * spread / (fold.n_seeds - 1)
    return total


def seed_deviations(fold: Trainings, values: np.ndarray) -> np.ndarray:
    """Means of seeds less the mean of all, [seeds, k], of values [pairs, k]."""
    counts = np.bincount(fold.seed_level)
    means = np.zeros((len(counts), values.shape[1]))
    np.add.at(means, fold.seed_level, values)
    means /= counts[:, None]
    return means - means.mean(axis=0)
