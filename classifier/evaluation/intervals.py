"""Figures with 95% intervals over patients or lesions, whose images are not independent.

Intervals resample groups (dermsynth.group_bootstrap) with the percentile levels widened for few
groups, as the guide to statistics describes. They hold for the model and the thresholds as they
are, not for another training or another validation part.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dermsynth.group_bootstrap import clustered, count_pairs, group_draws, interval, resampled

ALPHA = 0.05
BLOCK = 1_000_000  # entries of the largest temporary array

Figure = dict[str, float | None]  # value, low, high; all None where undefined
UNDEFINED: Figure = {"value": None, "low": None, "high": None}


@dataclass(frozen=True)
class Resampling:
    """How often groups are drawn anew, and from which seed."""

    replicates: int
    seed: int


@dataclass(frozen=True)
class Scored:
    """Images with a score, and which of them belong together."""

    target: np.ndarray  # bool [n], True malignant
    score: np.ndarray  # float64 [n], higher is more malignant
    group: np.ndarray  # int64 [n], 0 .. n_groups - 1, every number occurs

    @staticmethod
    def of(target: np.ndarray, score: np.ndarray, group: np.ndarray) -> "Scored":
        """From 0/1 [n], finite scores [n] and group names [n] of any sortable type."""
        numbers = np.unique(np.asarray(group), return_inverse=True)[1]
        return Scored(np.asarray(target).astype(bool), np.asarray(score, np.float64), numbers)

    @property
    def n_groups(self) -> int:
        """Patients or lesions."""
        return int(self.group.max()) + 1 if len(self.group) else 0

    @property
    def both(self) -> bool:
        """True where there are malignant and benign images."""
        return 0 < self.target.sum() < len(self.target)

    def take(self, rows: np.ndarray) -> "Scored":
        """Some of the images, their groups numbered anew."""
        return Scored.of(self.target[rows], self.score[rows], self.group[rows])

    def group_sums(self, columns: np.ndarray) -> np.ndarray:
        """float64 [groups, k]: sums of [n, k] over the images of each group."""
        sums = np.zeros((self.n_groups, columns.shape[1]))
        np.add.at(sums, self.group, columns)
        return sums


@dataclass(frozen=True)
class Freedom:
    """How many groups stand behind a figure: Kish's effective number less one, and the count."""

    malignant: float
    benign: float
    all: float
    n_malignant: int  # groups with a malignant image
    n_benign: int

    @staticmethod
    def of(rows: Scored) -> "Freedom":
        """Of the groups of these images."""
        sizes = [np.bincount(rows.group[chosen]) for chosen in (rows.target, ~rows.target)]
        sizes.append(np.bincount(rows.group))
        kish = [float(s.sum() ** 2 / (s @ s) - 1) if s.sum() else 0.0 for s in sizes]
        return Freedom(*kish, int((sizes[0] > 0).sum()), int((sizes[1] > 0).sum()))

    @property
    def fewest(self) -> int:
        """Groups of the rarer class."""
        return min(self.n_malignant, self.n_benign)


def auc_figure(rows: Scored, resampling: Resampling) -> Figure:
    """AUC with its interval, the same as that of `experiments.statistics.auc_interval`.

    Where no pair is misordered all resamples agree and a bootstrap is blind; the bound is then the
    exact binomial one on the groups of the rarer class.
    """
    if not rows.both:
        return UNDEFINED
    pairs = count_pairs(rows.target, rows.group, rows.score[None], None)
    value, _, df = clustered(pairs)
    drawn = resampled(pairs, resampling.replicates, resampling.seed)
    return figure(value, drawn, df, groups=min(len(pairs.malignant), len(pairs.benign)))


def resample(
    rows: Scored, statistic: Callable[[np.ndarray], np.ndarray], resampling: Resampling
) -> tuple[np.ndarray, np.ndarray]:
    """`statistic` of the images, float64 [k], and of resamples, float64 [replicates, k].

    It turns group weights [b, groups] into [b, k].
    """
    step = max(1, BLOCK // max(1, len(rows.target)))
    drawn = [
        statistic(weights[at : at + step].astype(np.float64))
        for weights in group_draws(rows.n_groups, resampling.replicates, resampling.seed)
        for at in range(0, len(weights), step)
    ]
    return statistic(np.ones((1, rows.n_groups)))[0], np.concatenate(drawn)


def figure(
    value: float,
    drawn: np.ndarray,
    df: float,
    limits: tuple[float, float] = (0.0, 1.0),
    groups: int | None = None,
) -> Figure:
    """A value with its interval.

    Where the value lies at a limit and all resamples agree, a bootstrap is blind: the bound is then
    the exact binomial one (Clopper and Pearson 1934), or None where `groups` are not given.

    Parameters
    ----------
    value : of the images themselves
    drawn : of resamples, float64 [replicates], NaN where undefined
    df : degrees of freedom of the widened levels; 0: nothing is known but the limits
    limits : least and most that the figure can be
    groups : those that the binomial bound counts
    """
    if not np.isfinite(value):
        return UNDEFINED
    drawn = np.sort(drawn[np.isfinite(drawn)])
    low, high = interval(drawn, df, ALPHA, limits) if len(drawn) else limits
    if df > 0 and len(drawn) and drawn[0] == drawn[-1]:
        reach = None if groups is None else (ALPHA / 2) ** (1 / groups)
        if value >= limits[1]:
            low, high = reach, limits[1]
        elif value <= limits[0]:
            low, high = limits[0], None if reach is None else 1 - reach
    return {"value": float(value), "low": low, "high": high}
