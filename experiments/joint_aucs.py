"""AUCs of several arms on the same images, and how far a contrast of them reaches.

What `statistics.variance` does for the difference of two arms, for any weighted sum: the parts of
the variance (test groups, classifier seeds, generators) are matrices over arms, so that a whole
family of contrasts costs a few products of small matrices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from dermsynth.group_bootstrap import group_influence
from experiments.compared import FoldScores
from experiments.statistics.comparison import LEAST_GENERATOR_DF
from experiments.statistics.trainings import Images, Key, kish, placements
from experiments.statistics.variance import fold_weights


@dataclass(frozen=True)
class OverGroups:
    """Covariance of AUCs over the groups of one set of images; float64 [arms, arms] each."""

    total: np.ndarray
    rows: np.ndarray  # by malignant images alone, for the degrees of freedom
    columns: np.ndarray  # by benign images alone
    free_rows: float  # degrees of freedom; groups of unequal size count as fewer (Kish)
    free_columns: float

    def variance(self, contrasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variances and Satterthwaite's degrees of freedom of contrasts [k, arms]: [k] each."""
        of_rows, of_columns = _form(self.rows, contrasts), _form(self.columns, contrasts)
        spread = of_rows**2 / self.free_rows + of_columns**2 / self.free_columns
        least = np.full(len(contrasts), min(self.free_rows, self.free_columns))
        both = (of_rows + of_columns) ** 2
        return _form(self.total, contrasts), np.divide(both, spread, out=least, where=spread > 0)


@dataclass(frozen=True)
class OverTrainings:
    """Covariance of mean AUCs over seeds, or over generators."""

    total: np.ndarray  # float64 [arms, arms]
    df: int


@dataclass(frozen=True)
class JointAucs:
    """Mean AUCs of arms over the trainings that all of them have, with their covariance."""

    auc: np.ndarray  # float64 [arms]
    groups: tuple[OverGroups, ...] | None  # one a set of images; None: too few groups to know
    crossed: np.ndarray  # float64 [arms, arms]: of `groups`, what `seeds` contains as well
    seeds: OverTrainings | None  # None: one classifier seed
    gans: OverTrainings | None  # None: none, or too few to tell how they vary
    n_folds: int
    n_seeds: int  # in a fold, at most
    n_gans: int  # likewise; 0: no arm has any
    left_out: int  # trainings of some arm without a partner in another one

    def reach(self, contrasts: np.ndarray, alpha: float) -> np.ndarray:
        """Half-widths of two-sided 1 - `alpha` intervals of contrasts [k, arms]: float64 [k].

        Each source has its own Student quantile and half-widths add in quadrature, as in the
        verdict; never less far than over groups alone. Infinite where groups are too few.
        """
        if self.groups is None:
            return np.full(len(contrasts), np.inf)
        parts = [stratum.variance(contrasts) for stratum in self.groups]
        variance = np.sum([part for part, _ in parts], axis=0)
        weight = np.sum([part**2 / df for part, df in parts], axis=0)
        least = np.sum([df for _, df in parts], axis=0)
        df = np.divide(variance**2, weight, out=least, where=weight > 0)
        alone = stdtrit(df, 1 - alpha / 2) ** 2 * variance
        crossed = _form(self.crossed, contrasts)
        share = np.divide(crossed, variance, out=np.zeros(len(contrasts)), where=variance > 0)
        squared = np.maximum(0, 1 - share) * alone
        for part in filter(None, (self.seeds, self.gans)):
            quantile = stdtrit(part.df, 1 - alpha / 2)
            squared = squared + quantile**2 * _form(part.total, contrasts)
        return np.sqrt(np.maximum(squared, alone))


def joint_aucs(folds: Sequence[FoldScores], arms: Sequence[str]) -> JointAucs | None:
    """AUCs of arms over the seeds (and generators) that all have; None where there are none.

    Within a fold AUCs are averaged over trainings; folds weigh by their pairs of images.
    Generators are matched by their seed where several arms have some.

    Parameters
    ----------
    folds : of one test set
    arms : names, in the order of the result
    """
    found = [cells for fold in folds if (cells := _cells(fold, arms)) is not None]
    if not found:
        return None
    there = sum(len(fold.arms[arm][0]) for fold in folds for arm in arms if arm in fold.arms)
    weights = fold_weights(found)
    means = [cells.auc.mean(axis=0) for cells in found]
    gans = _over_levels(found, weights, [cells.gan for cells in found])
    crossed = np.zeros((len(arms), len(arms)))
    for cells, weight in zip(found, weights, strict=True):
        crossed += weight**2 * _crossed(cells)
    return JointAucs(
        weights @ np.array(means),
        _over_groups(found, weights),
        crossed,
        _over_levels(found, weights, [cells.seed for cells in found]),
        gans if gans is not None and gans.df >= LEAST_GENERATOR_DF else None,
        len(found),
        max(len(set(cells.seed)) for cells in found),
        max(len({gan for gan in cells.gan if gan >= 0}) for cells in found),
        there - sum(cells.used for cells in found),
    )


@dataclass(frozen=True)
class _Cells:
    """One fold's trainings that all arms have: a cell a seed and generator."""

    images: Images
    auc: np.ndarray  # float64 [cells, arms]
    row: np.ndarray  # float64 [cells, arms, malignant groups], what each adds to the error
    column: np.ndarray  # float64 [cells, arms, benign groups]
    seed: np.ndarray  # int64 [cells]
    gan: np.ndarray  # int64 [cells]; -1: no arm has any
    used: int  # trainings


def _cells(fold: FoldScores, arms: Sequence[str]) -> _Cells | None:
    if fold.images is None or not all(arm in fold.arms for arm in arms):
        return None
    index = [{key: at for at, key in enumerate(fold.arms[arm][0])} for arm in arms]
    every = {key for keys in index for key in keys}
    named = {key for key in every if key[1] is not None} or every
    cells: dict[Key, list[int]] = {}
    for seed, gan in sorted(named, key=lambda key: (key[0], key[1] or 0)):
        places = [keys.get((seed, gan), keys.get((seed, None))) for keys in index]
        if None not in places:
            cells[seed, gan] = [place for place in places if place is not None]
    if not cells:
        return None
    chosen = np.array(list(cells.values()))
    placed = [placements(fold.images, fold.arms[arm][1]) for arm in arms]

    def stack(name: str) -> np.ndarray:
        columns = zip(placed, chosen.T, strict=True)
        return np.stack([getattr(one, name)[places] for one, places in columns], axis=1)

    return _Cells(
        fold.images,
        stack("auc"),
        stack("row"),
        stack("column"),
        np.array([seed for seed, _ in cells]),
        np.array([-1 if gan is None else gan for _, gan in cells]),
        sum(len(np.unique(column)) for column in chosen.T),
    )


def _form(matrix: np.ndarray, contrasts: np.ndarray) -> np.ndarray:
    """Quadratic forms [k] of contrasts [k, arms]; rounding leaves none below 0."""
    return np.maximum(0, ((contrasts @ matrix) * contrasts).sum(axis=1))


def _too_few(cells: _Cells) -> bool:
    return min(cells.row.shape[-1], cells.column.shape[-1]) < 2


def _over_groups(found: Sequence[_Cells], weights: np.ndarray) -> tuple[OverGroups, ...] | None:
    """Obuchowski 1997, of trainings averaged: DeLong's components summed by group."""
    if any(map(_too_few, found)):
        return None
    sums: dict[int, list[np.ndarray]] = {}
    for cells, weight in zip(found, weights, strict=True):
        parts = [weight * cells.row.mean(axis=0), weight * cells.column.mean(axis=0)]
        before = sums.get(id(cells.images))
        parts = [a + b for a, b in zip(before, parts, strict=True)] if before else parts
        sums[id(cells.images)] = parts
    images = {id(cells.images): cells.images for cells in found}
    strata = []
    for key, (row, column) in sums.items():
        total, rows, columns = (
            one @ one.T for one in group_influence(row, column, images[key].groups)
        )
        counts = images[key].groups.m, images[key].groups.n
        free_rows, free_columns = (1 / kish(of_class) - 1 for of_class in counts)
        strata.append(OverGroups(total, rows, columns, free_rows, free_columns))
    return tuple(strata)


def _over_levels(
    found: Sequence[_Cells], weights: np.ndarray, levels: Sequence[np.ndarray]
) -> OverTrainings | None:
    """By how the means of levels scatter, pooled over folds; None where no fold has two."""
    arms = found[0].auc.shape[1]
    squares, df, shrink = np.zeros((arms, arms)), 0, 0.0
    for cells, weight, level in zip(found, weights, levels, strict=True):
        deviations, shares = _deviations(level, cells.auc)
        squares += deviations.T @ deviations
        df += len(shares) - 1
        shrink += weight**2 * float(shares @ shares)
    return OverTrainings(squares / df * shrink, df) if df > 0 else None


def _deviations(level: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of levels less the mean of those, of values [cells, ...]; shares of cells [levels]."""
    means = np.stack([values[level == one].mean(axis=0) for one in np.unique(level)])
    counts = np.unique(level, return_counts=True)[1]
    return means - means.mean(axis=0), counts / len(level)


def _crossed(cells: _Cells) -> np.ndarray:
    """Variance over groups of what models of other seeds err on other images: [arms, arms]."""
    shape = (cells.auc.shape[1],) * 2
    rows, shares = _deviations(cells.seed, cells.row)
    columns, _ = _deviations(cells.seed, cells.column)
    if len(shares) < 2 or _too_few(cells):
        return np.zeros(shape)
    total = np.zeros(shape)
    for row, column in zip(rows, columns, strict=True):
        influence, _, _ = group_influence(row, column, cells.images.groups)
        total += influence @ influence.T
    return total * float(shares @ shares) / (len(shares) - 1)
