import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.folds import assign_folds, group_images
from data.store import TEST
from runtime.errors import UserError

NO_PAIRS = np.zeros((0, 2), np.int64)


def frame(patients, lesions):
    return pd.DataFrame({"patient_id": patients, "lesion_id": lesions})


def test_groups_are_connected_components():
    table = frame(["p", None, "p", None, None, None], ["a", "a", "b", "c", "d", "e"])
    pairs = np.array([[3, 4]])
    assert group_images(table, pairs).tolist() == [0, 0, 0, 1, 1, 2]
    assert group_images(table, NO_PAIRS).tolist() == [0, 0, 0, 1, 2, 3]


def test_missing_ids_tie_nothing():
    table = frame([None, np.nan, None], [None, None, None])
    assert group_images(table, NO_PAIRS).tolist() == [0, 1, 2]


ids = st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), min_size=2, max_size=30)


@given(ids, st.randoms(use_true_random=False), st.data())
def test_groups_agree_with_union_find(patients, random, data):
    lesions = [random.choice(["u", "v", "w", "x", "y", None]) for _ in patients]
    row = st.integers(0, len(patients) - 1)
    pairs = data.draw(st.lists(st.tuples(row, row), max_size=5))
    parent = list(range(len(patients)))

    def find(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for i in range(len(patients)):
        for j in range(i):
            same = any(c[i] is not None and c[i] == c[j] for c in (patients, lesions))
            if same or (i, j) in pairs or (j, i) in pairs:
                parent[find(i)] = find(j)
    groups = group_images(frame(patients, lesions), np.array(pairs, np.int64).reshape(-1, 2))
    roots = [find(i) for i in range(len(patients))]
    assert pd.factorize(np.array(roots))[0].tolist() == groups.tolist()


@st.composite
def labelled(draw):
    """Groups of 1-4 images, mostly of one class, enough of each for 3 folds and a test part."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=16, max_size=60))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    of_group = np.arange(len(sizes)) % draw(st.integers(2, 3)) == 0
    targets = of_group[groups].astype(np.uint8)
    flipped = draw(st.lists(st.integers(0, len(groups) - 1), max_size=4))
    targets[flipped] ^= 1
    return targets, groups


@given(labelled(), st.sampled_from([0.0, 0.1, 0.2, 0.34]), st.integers(0, 3), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_folds(rows, fraction, seed, shuffle):
    targets, groups = rows
    fold = assign_folds(targets, groups, 3, fraction, seed)
    assert set(fold) == {0, 1, 2} | ({TEST} if fraction else set())
    for group in np.unique(groups):
        assert len(set(fold[groups == group])) == 1
    for part in set(fold):
        assert set(targets[fold == part]) == {0, 1}
    again = np.random.default_rng(shuffle).permutation(len(fold))
    assert (assign_folds(targets[again], groups[again], 3, fraction, seed) == fold[again]).all()


def test_seed_changes_the_folds():
    targets, groups = np.arange(200) % 4 == 0, np.arange(200) // 2
    targets = targets.astype(np.uint8)
    one, other = (assign_folds(targets, groups, 5, 0.2, seed) for seed in (0, 1))
    assert (one != other).any()


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5])
def test_shares(fraction):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(1000), rng.integers(1, 4, 1000))
    targets = (rng.random(1000) < 0.15)[groups].astype(np.uint8)
    fold = assign_folds(targets, groups, 5, fraction, 0)
    assert (fold == TEST).mean() == pytest.approx(fraction, abs=0.01)
    shares = [targets[fold == part].mean() for part in range(-1, 5)]
    assert max(shares) / min(shares) < 1.1


@pytest.mark.parametrize(
    ("folds", "fraction", "expected"),
    [
        (1, 0.2, "--folds 1: expected at least 2"),
        (5, 1.0, "--test-fraction 1.0: expected 0 <= fraction < 1"),
        (5, -0.1, "--test-fraction -0.1"),
        (5, float("nan"), "--test-fraction nan"),
        (5, 0.2, "need at least 6 malignant groups .* found 5"),
        (4, 0.9, "--test-fraction 0.9 leaves"),
    ],
)
def test_impossible_splits(folds, fraction, expected):
    targets, groups = (np.arange(100) < 10).astype(np.uint8), np.arange(100) // 2
    with pytest.raises(UserError, match=expected):
        assign_folds(targets, groups, folds, fraction, 0)


def test_one_class_only():
    with pytest.raises(UserError, match="one class only: no malignant image"):
        assign_folds(np.zeros(50, np.uint8), np.arange(50), 5, 0.2, 0)


def test_one_giant_group_is_kept_whole():
    groups = np.r_[np.zeros(90, int), np.arange(1, 11)]
    targets = np.r_[np.arange(90) % 2, np.arange(10) % 2].astype(np.uint8)
    fold = assign_folds(targets, groups, 5, 0, 0)
    assert len(set(fold[groups == 0])) == 1
    assert all(set(targets[fold == part]) == {0, 1} for part in range(5))


def test_a_part_without_a_class_is_refused():
    groups = np.repeat(np.arange(8), [1, 2, 4, 1, 8, 5, 4, 2])
    targets = np.array(list("111011001000010111000101000")).astype(np.uint8)
    with pytest.raises(UserError, match="the test part would lack a class"):
        assign_folds(targets, groups, 3, 0.2, 0)
