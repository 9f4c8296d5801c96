"""The smallest true difference that a comparison sees in four of five experiments."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

from experiments.statistics.trainings import Trainings
from experiments.statistics.variance import Estimate, Part, Variance, estimate

POWER = 0.80
LARGEST_SHIFT = 6.4  # standard deviations; the first one tried is this by 2^7


@dataclass(frozen=True)
class Detectable:
    """AUC differences found with 80% power; None: no AUC differs as much from the reference's."""

    helps: float | None
    hurts: float | None

    @property
    def either(self) -> float | None:
        """The larger one: seen whichever way it goes. None where one way nothing is seen."""
        if self.helps is None or self.hurts is None:
            return None
        return max(self.helps, self.hurts)


def detectable(folds: Sequence[Trainings], found: Estimate, alpha: float) -> Detectable:
    """Of the rule that calls a difference where its two-sided 1 - `alpha` interval excludes 0.

    The arm's scores of malignant images are shifted until its AUC lies as far from the reference's
    as would be seen in 80% at the variances that then hold: worse AUCs vary more, so that harm has
    to be larger than help.

    Parameters
    ----------
    folds, found : the comparison, with known variance of groups and seeds
    alpha : two-sided level
    """
    if needed(found.variance, alpha) == 0:
        return Detectable(0.0, 0.0)
    normal = [
        replace(fold, arm=np.array([_normal_scores(score) for score in fold.arm])) for fold in folds
    ]
    helps, hurts = (_smallest(normal, found, alpha, sign) for sign in (1, -1))
    return Detectable(helps, hurts)


def needed(variance: Variance, alpha: float) -> float:
    """The difference that is seen with 80% power at these variances, in AUC.

    The reach of the interval, and as much as difference and reach vary together: Var(reach) by the
    delta method from that of each part, 2 variance^2 / df.
    """
    groups = variance.groups
    parts = [Part(groups.variance * variance.own, groups.df), *variance.training]
    terms = [(stdtrit(part.df, alpha / 2) ** 2 * part.variance, part.df) for part in parts]
    square = sum(term for term, _ in terms)
    if square == 0:
        return 0.0
    of_reach = sum(2 * term**2 / df for term, df in terms) / (4 * square)
    of_difference = sum(part.variance for part in parts)
    return float(np.sqrt(square) + ndtri(POWER) * np.sqrt(of_difference + of_reach))


def _smallest(folds: Sequence[Trainings], found: Estimate, alpha: float, sign: int) -> float | None:
    @cache
    def difference(shift: float) -> tuple[float, float]:
        """The size of the difference after a shift, and by how much it is more than needed."""
        moved = [replace(fold, arm=fold.arm + sign * shift * fold.images.target) for fold in folds]
        there = estimate(moved, count_gans=False)
        size = sign * there.delta
        return size, size - needed(_at(found.variance, there.variance), alpha)

    # what was observed may be more than is needed, or less: the search goes the other way
    seen = difference(0.0)[1] >= 0
    steps = np.append(0, LARGEST_SHIFT / 2.0 ** np.arange(8)[::-1])
    for before, shift in pairwise(-steps if seen else steps):
        if (difference(shift)[1] >= 0) != seen:
            found_at = brentq(lambda x: difference(x)[1], before, shift, xtol=1e-2, rtol=1e-2)
            return difference(found_at)[0]
    return None


def _at(variance: Variance, there: Variance) -> Variance:
    """`variance` with the image noise that was found elsewhere; models scatter as they do here."""
    seeds = variance.seeds
    if seeds is not None:
        more = there.crossed - variance.crossed
        seeds = Part(max(0.0, seeds.variance + more), seeds.df)
    return Variance(there.groups, there.crossed, seeds, variance.gans)


def _normal_scores(score: np.ndarray) -> np.ndarray:
    """Normal deviates in the order of scores [n]; ties stay ties."""
    return ndtri((stats.rankdata(score) - 0.5) / len(score))
