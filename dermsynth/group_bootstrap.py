"""AUCs and their differences under resampling of groups.

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


@dataclass(frozen=True)
class Pairs:
    """An AUC, or a difference, as a matrix over groups; a mixed group is a row and a column."""

    wins: np.ndarray  # float32 [malignant groups, benign groups], whole numbers
    unit: int  # of `wins` for a pair of images won
    malignant: np.ndarray  # [malignant groups] number of each among all groups
    benign: np.ndarray  # [benign groups] likewise
    m: np.ndarray  # float32 [malignant groups] malignant images in each
    n: np.ndarray  # float32 [benign groups] benign images in each
    n_groups: int


def count_pairs(
    target: np.ndarray, group: np.ndarray, a: np.ndarray, b: np.ndarray | None
) -> Pairs:
    """Pairs won under `a` minus those won under `b`.

    Parameters
    ----------
    target : bool [n], True malignant
    group : int64 [n], numbers from 0 on
    a, b : scores [models, n]; without `b` nothing is subtracted
    """
    order = np.argsort(group, kind="stable")
    rows, columns = order[target[order]], order[~target[order]]
    malignant, first_row, m = np.unique(group[rows], return_index=True, return_counts=True)
    benign, first_column, n = np.unique(group[columns], return_index=True, return_counts=True)
    wins = np.zeros((len(malignant), len(benign)), np.float32)
    step = max(1, BLOCK // len(columns))
    models = len(a) * (1 if b is None else len(b))
    for scores, sign in [(a, 1), *([] if b is None else [(b, -1)])]:
        for score in scores:
            for at in range(0, len(rows), step):
                positive, negative = score[rows[at : at + step], None], score[None, columns]
                won = (positive > negative).astype(np.int8) + (positive >= negative)
                won = np.add.reduceat(won, first_column, axis=1, dtype=np.float32)
                row = np.searchsorted(first_row, np.arange(at, at + len(won)), side="right") - 1
                np.add.at(wins, row, won * (sign * models // len(scores)))
    m, n = m.astype(np.float32), n.astype(np.float32)
    return Pairs(wins, 2 * models, malignant, benign, m, n, int(group.max()) + 1)


def clustered(pairs: Pairs) -> tuple[float, float, float]:
    """The estimate, its variance over groups, and Satterthwaite's degrees of freedom.

    Obuchowski 1997: DeLong's components summed by group; groups of one image give DeLong's
    variance. Fewer than two malignant or benign groups leave the variance unknown: (x, 0, 0).
    """
    wins, m, n = pairs.wins.astype(np.float64) / pairs.unit, pairs.m, pairs.n
    total_m, total_n = float(m.sum()), float(n.sum())
    value = float(wins.sum() / (total_m * total_n))
    rows, columns = wins.shape
    if min(rows, columns) < 2:
        return value, 0.0, 0.0
    row = (wins.sum(axis=1) / total_n - m * value) / total_m * np.sqrt(rows / (rows - 1))
    column = (wins.sum(axis=0) / total_m - n * value) / total_n
    column *= np.sqrt(columns / (columns - 1))
    influence = np.zeros(pairs.n_groups)
    influence[pairs.malignant] += row
    influence[pairs.benign] += column
    variance, of_rows, of_columns = ((x * x).sum() for x in (influence, row, column))
    free_rows = total_m**2 / (m @ m) - 1  # groups of unequal size count as fewer (Kish)
    free_columns = total_n**2 / (n @ n) - 1
    spread = of_rows**2 / free_rows + of_columns**2 / free_columns
    df = (of_rows + of_columns) ** 2 / spread if spread > 0 else min(free_rows, free_columns)
    return value, float(variance), float(df)


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
    """The estimate under group weights [replicates, groups], leaving out those without a class."""
    row, column = weights[:, pairs.malignant], weights[:, pairs.benign]
    wins = np.einsum("bi,bi->b", column @ pairs.wins.T, row, dtype=np.float64)
    drawn = (row @ pairs.m).astype(np.float64) * (column @ pairs.n) * pairs.unit
    return wins[drawn > 0] / drawn[drawn > 0]


def resampled(pairs: Pairs, replicates: int, seed: int) -> np.ndarray:
    """Sorted estimates of resamples of groups: float64 [<= replicates]."""
    draws = group_draws(pairs.n_groups, replicates, seed)
    return np.sort(np.concatenate([estimates(pairs, weights) for weights in draws]))


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


def p_value(drawn: np.ndarray, df: float) -> float:
    """Two-sided p: the alpha at which `interval` begins to hold 0."""
    if df <= 0:
        return 1.0
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    level = min(0.5, (1 + beyond) / (len(drawn) + 1))
    return float(2 * stats.t.cdf(stats.norm.ppf(level) / np.sqrt((df + 1) / df), df))
