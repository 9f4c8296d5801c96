"""Intervals and p-values of a mean difference, from its parts of variance.

Half-widths are added in quadrature (Zou and Donner 2008), each with its own Student quantile: one
t with Satterthwaite's degrees of freedom for the sum is liberal where few trainings dominate.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtrit

from experiments.statistics.variance import Estimate, Part

LEAST_RANK = 10  # of a replicate that ends an interval
LEAST_P = 1e-12


@dataclass(frozen=True)
class Spread:
    """All that an interval of a mean difference needs."""

    delta: float
    drawn: np.ndarray  # float64 [replicates], sorted: the difference under resamples of groups
    groups: Part
    own: float  # share of the variance over groups that is in no other part
    training: tuple[Part, ...]  # empty: given the models

    @staticmethod
    def of(found: Estimate, drawn: np.ndarray, models_only: bool = False) -> "Spread":
        """Of an estimate and its replicates; with `models_only` given the trained models."""
        variance = found.variance
        if models_only:
            return Spread(found.delta, drawn, variance.groups, 1.0, ())
        training = tuple(variance.training)
        return Spread(found.delta, drawn, variance.groups, variance.own, training)

    def reach(self, alpha: float) -> tuple[float, float]:
        """How far the two-sided 1 - `alpha` interval reaches below and above `delta`.

        Never less far than given the trained models, by which chance few seeds may agree.
        """
        other = sum(stdtrit(part.df, alpha / 2) ** 2 * part.variance for part in self.training)
        below, above = (
            max(side, float(np.sqrt(self.own * side**2 + other)))
            for side in self._over_groups(alpha)
        )
        return below, above

    def interval(self, alpha: float) -> tuple[float, float]:
        """The two-sided 1 - `alpha` interval, within -1..1."""
        below, above = self.reach(alpha)
        return max(-1.0, self.delta - below), min(1.0, self.delta + above)

    def p(self) -> float:
        """The alpha at which the interval touches 0; 1e-12 stands for anything below."""
        side, distance = int(self.delta < 0), abs(self.delta)

        def room(power: float) -> float:
            return self.reach(float(np.exp(power)))[side] - distance

        if distance == 0 or room(0.0) >= 0:
            return 1.0
        if room(np.log(LEAST_P)) <= 0:
            return LEAST_P
        return float(np.exp(brentq(room, np.log(LEAST_P), 0.0, xtol=1e-9)))

    def _over_groups(self, alpha: float) -> tuple[float, float]:
        """Reach below and above of the percentile interval with Hesterberg's (2015) expansion.

        Its tail level is Phi(sqrt((df + 1) / df) * t_df(alpha / 2)). Where fewer than LEAST_RANK
        replicates lie beyond, the reach at that rank is continued in proportion to Student's
        quantile, so that no number of replicates decides.
        """
        stretch = np.sqrt((self.groups.df + 1) / self.groups.df)
        wanted = stretch * stdtrit(self.groups.df, alpha / 2)  # normal deviate
        count = len(self.drawn)
        rank, longer = float(ndtr(wanted)) * (count + 1), 1.0
        if rank < LEAST_RANK <= count / 2:
            rank = float(LEAST_RANK)
            longer = float(wanted / ndtri(rank / (count + 1)))
        below = self.delta - _at_rank(self.drawn, rank)
        above = _at_rank(self.drawn, count + 1 - rank) - self.delta
        return max(0.0, longer * below), max(0.0, longer * above)


def _at_rank(drawn: np.ndarray, rank: float) -> float:
    """Order statistic of a fractional rank, 1 .. len(drawn)."""
    place = min(max(rank - 1, 0.0), len(drawn) - 1.0)
    low = int(place)
    high = min(low + 1, len(drawn) - 1)
    return float(drawn[low] + (place - low) * (drawn[high] - drawn[low]))
