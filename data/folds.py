"""Groups that no split may divide, and folds made of whole groups."""

from fractions import Fraction

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from data.store import TEST
from runtime.errors import UserError
from runtime.seeds import derive

SAME = ("patient_id", "lesion_id")  # columns whose equal values tie images together
FINEST = 20  # the test part is a whole number of n-ths of the groups, n at most this


def group_images(table: pd.DataFrame, pairs: np.ndarray) -> np.ndarray:
    """Number of each row's group, int64 [n], counted from 0 in order of first appearance.

    A group is a connected component over same patient, same lesion (missing ids tie nothing) and
    `pairs` of rows (int64 [m, 2]) whose images are near duplicates.
    """
    edges = [pairs.reshape(-1, 2)]
    for column in SAME:
        value = pd.factorize(table[column])[0]  # -1 where missing
        known = np.flatnonzero(value >= 0)
        _, first = np.unique(value[known], return_index=True)
        edges.append(np.column_stack([known, known[first][value[known]]]))
    one, other = np.concatenate(edges).T
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(table), len(table)))
    return pd.factorize(connected_components(graph, directed=False)[1])[0].astype(np.int64)


def check_options(folds: int, test_fraction: float) -> None:
    """Raise UserError for options that no dataset can satisfy."""
    if folds < 2:
        raise UserError(f"--folds {folds}: expected at least 2 (validate on one, train on others)")
    if not 0 <= test_fraction < 1:
        raise UserError(
            f"--test-fraction {test_fraction}: expected 0 <= fraction < 1 (0.2: one group in five "
            "is kept for the final test; 0: no test part)"
        )


def check_enough(targets: np.ndarray, groups: np.ndarray, folds: int, test_fraction: float) -> None:
    """Raise UserError unless both classes have groups enough for every part to get one."""
    have, name = _scarcest(targets, groups)
    if not have:
        raise UserError(f"one class only: no {name} image, and both classes are needed")
    if have < (parts := folds + (test_fraction > 0)):
        raise UserError(
            f"--folds {folds} --test-fraction {test_fraction}: need at least {parts} {name} groups "
            f"(all images of one patient or lesion are one group), found {have}: bring more "
            "lesions, or choose fewer --folds or --test-fraction 0"
        )


def assign_folds(
    targets: np.ndarray, groups: np.ndarray, folds: int, test_fraction: float, seed: int
) -> np.ndarray:
    """Fold of each row, int64 [n]: 0..folds-1, or TEST for the test part; groups stay whole.

    Every part gets its share of malignant images, as nearly as whole groups allow. The result
    depends on the rows, not on their order. Raises UserError where a part would lack a class.
    """
    check_options(folds, test_fraction)
    check_enough(targets, groups, folds, test_fraction)
    order = np.lexsort((targets, groups))
    y, g = targets[order], groups[order]
    fold = np.full(len(y), TEST, np.int64)
    rest = np.arange(len(y))
    if test_fraction:
        finest = min(FINEST, _scarcest(y, g)[0])
        share = Fraction(test_fraction).limit_denominator(finest)
        share = min(max(share, Fraction(1, finest)), Fraction(finest - 1, finest))
        rest = np.flatnonzero(_split(y, g, share.denominator, seed) >= share.numerator)
    if (left := _scarcest(y[rest], g[rest]))[0] < folds:
        raise UserError(
            f"--test-fraction {test_fraction} leaves {left[0]} {left[1]} groups for --folds "
            f"{folds}; choose a smaller test part or fewer folds"
        )
    fold[rest] = _split(y[rest], g[rest], folds, seed)
    for part in [*range(folds), *([TEST] if test_fraction else [])]:
        if len(np.unique(y[fold == part])) < 2:
            name = "the test part" if part == TEST else f"fold {part}"
            raise UserError(
                f"{name} would lack a class: too few or too large groups for --folds {folds} "
                f"--test-fraction {test_fraction}; choose fewer folds"
            )
    result = np.empty_like(fold)
    result[order] = fold
    return result


def _scarcest(targets: np.ndarray, groups: np.ndarray) -> tuple[int, str]:
    """In how many groups the class that is in the fewest is found, and its name."""
    return min(
        (len(np.unique(groups[targets == target])), name)
        for target, name in ((1, "malignant"), (0, "benign"))
    )


def _split(targets: np.ndarray, groups: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """Stratified part of each row, 0..parts-1."""
    part = np.empty(len(targets), np.int64)
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=derive(seed, "folds") >> 31)
    for number, (_, rows) in enumerate(splitter.split(targets, targets, groups)):
        part[rows] = number
    return part
