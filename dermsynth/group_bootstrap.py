"""AUCs under resampling of groups.

The arithmetic below experiments.statistics and the intervals of classifier.evaluate.

Everything counts pairs (malignant image, benign image): a pair scores 1 if the malignant image
ranks higher, 1/2 if tied. Summed within groups (patients or lesions, whose images are dependent)
the pairs make a small matrix, from which the AUC of every resample of groups follows by a matrix
product.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dermsynth import seeds

BLOCK = 5_000_000  # entries of the largest temporary array
SMALL_BLOCK = 500_000  # of one that is gone through model by model: it stays in the cache


@dataclass(frozen=True)
class Groups:
    """The groups of a set of images; one that holds both classes is among both."""

    malignant: np.ndarray  # [malignant groups] number of each among all groups
    benign: np.ndarray  # [benign groups] likewise
    m: np.ndarray  # float32 [malignant groups] malignant images in each
    n: np.ndarray  # float32 [benign groups] benign images in each
    n_groups: int


@dataclass(frozen=True)
class Pairs(Groups):
    """An AUC as a matrix over groups; a mixed group is a row and a column."""

    wins: np.ndarray  # float32 [malignant groups, benign groups], whole numbers
    unit: int  # of `wins` for a pair of images won


def count_pairs(
    target: np.ndarray, group: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None
) -> Pairs:
    """Pairs won, summed over models.

    Parameters
    ----------
    target : bool [n], True malignant
    group : int64 [n], numbers from 0 on
    scores : [models, n]
    counts : int64 [models], how often each model counts; None: once
    """
    order = np.argsort(group, kind="stable")
    rows, columns = order[target[order]], order[~target[order]]
    malignant, first_row, m = np.unique(group[rows], return_index=True, return_counts=True)
    benign, first_column, n = np.unique(group[columns], return_index=True, return_counts=True)
    times = np.ones(len(scores), np.int64) if counts is None else counts
    # ranks in place of scores: compared faster, and equal exactly where scores are
    ranks = stats.rankdata(scores, method="min", axis=1).astype(np.int32)
    of_rows = np.searchsorted(first_row, np.arange(len(rows)), side="right") - 1
    wins = np.zeros((len(malignant), len(benign)), np.float32)
    step = max(1, SMALL_BLOCK // len(columns))
    for at in range(0, len(rows), step):
        block = rows[at : at + step]
        won = np.zeros((len(block), len(columns)), np.float32)
        for rank, often in zip(ranks, times, strict=True):
            positive, negative = rank[block, None], rank[None, columns]
            pair = (positive > negative).view(np.int8) + (positive >= negative).view(np.int8)
            won += pair if often == 1 else pair * np.float32(often)
        if len(benign) < len(columns):
            won = np.add.reduceat(won, first_column, axis=1)
        np.add.at(wins, of_rows[at : at + step], won)
    m, n = m.astype(np.float32), n.astype(np.float32)
    return Pairs(malignant, benign, m, n, int(group.max()) + 1, wins, 2 * int(times.sum()))


def clustered(pairs: Pairs) -> tuple[float, float, float]:
    """The AUC, its variance over groups, and Satterthwaite's degrees of freedom.

    Obuchowski 1997: DeLong's components summed by group; groups of one image give DeLong's
    variance. Fewer than two malignant or benign groups leave the variance unknown: (x, 0, 0).
    """
    wins, m, n = pairs.wins.astype(np.float64) / pairs.unit, pairs.m, pairs.n
    total_m, total_n = float(m.sum()), float(n.sum())
    value = float(wins.sum() / (total_m * total_n))
    row = (wins.sum(axis=1) / total_n - m * value) / total_m
    column = (wins.sum(axis=0) / total_m - n * value) / total_n
    return value, *group_variance(row, column, pairs)


def group_variance(row: np.ndarray, column: np.ndarray, groups: Groups) -> tuple[float, float]:
    """Variance of an estimate by the influence of groups, and Satterthwaite's df; (0, 0): unknown.

    Parameters
    ----------
    row : float64 [malignant groups], what their malignant images add to the estimate's error
    column : float64 [benign groups], likewise
    groups : which they are and how many images they have
    """
    m, n = groups.m, groups.n
    rows, columns = len(m), len(n)
    if min(rows, columns) < 2:
        return 0.0, 0.0
    influence, row, column = group_influence(row, column, groups)
    variance, of_rows, of_columns = ((x * x).sum() for x in (influence, row, column))
    free_rows = m.sum() ** 2 / (m @ m) - 1  # groups of unequal size count as fewer (Kish)
    free_columns = n.sum() ** 2 / (n @ n) - 1
    spread = of_rows**2 / free_rows + of_columns**2 / free_columns
    df = (of_rows + of_columns) ** 2 / spread if spread > 0 else min(free_rows, free_columns)
    return float(variance), float(df)


def group_influence(
    row: np.ndarray, column: np.ndarray, groups: Groups
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all groups [..., groups], and through malignant and through benign images alone.

    `row`, `column`: as of `group_variance`, of one estimate or of several [..., groups of a class],
    two groups or more of each class.
    """
    rows, columns = row.shape[-1], column.shape[-1]
    row, column = row * np.sqrt(rows / (rows - 1)), column * np.sqrt(columns / (columns - 1))
    influence = np.zeros((*row.shape[:-1], groups.n_groups))
    influence[..., groups.malignant] += row
    influence[..., groups.benign] += column
    return influence, row, column


def group_draws(groups: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is drawn, with replacement: float32 [<= replicates, groups] blocks."""
    rng = seeds.generator(seed, "group-bootstrap")
    step = max(1, BLOCK // groups)
    for at in range(0, replicates, step):
        count = min(step, replicates - at)
        drawn = rng.integers(0, groups, (count, groups)) + groups * np.arange(count)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=count * groups)
        yield counts.reshape(count, groups).astype(np.float32)


def estimates(pairs: Pairs, weights: np.ndarray) -> np.ndarray:
    """The AUC under group weights [replicates, groups]; NaN where a class has no weight."""
    row, column = weights[:, pairs.malignant], weights[:, pairs.benign]
    wins = np.einsum("bi,bi->b", column @ pairs.wins.T, row, dtype=np.float64)
    drawn = (row @ pairs.m).astype(np.float64) * (column @ pairs.n) * pairs.unit
    return np.divide(wins, drawn, out=np.full(len(wins), np.nan), where=drawn > 0)


def resampled(pairs: Pairs, replicates: int, seed: int) -> np.ndarray:
    """Sorted AUCs of resamples of groups that hold both classes: float64 [<= replicates]."""
    draws = group_draws(pairs.n_groups, replicates, seed)
    drawn = np.concatenate([estimates(pairs, weights) for weights in draws])
    return np.sort(drawn[np.isfinite(drawn)])


def interval(
    drawn: np.ndarray, df: float, alpha: float, limit: tuple[float, float]
) -> tuple[float, float]:
    """Percentile interval of sorted estimates, with Hesterberg's (2015) small-sample expansion.

    A percentile interval is too short by sqrt(n / (n - 1)) and by the normal in place of Student's
    t; its tail level is therefore Phi(sqrt((df + 1) / df) * t_df(alpha / 2)). Where that lies
    beyond the most extreme replicate, `limit` bounds the interval.
    """
    if df <= 0:
        return limit
    level = stats.norm.cdf(np.sqrt((df + 1) / df) * stats.t.ppf(alpha / 2, df))
    rank = int(level * (len(drawn) + 1))
    if rank == 0:
        return limit
    return float(drawn[rank - 1]), float(drawn[-rank])
