"""Groups that no split may divide, and folds made of whole groups."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data.store import TEST, TargetMeaning
from dermsynth.errors import UserError, counted, some
from dermsynth.seeds import generator

WORDS = TargetMeaning().words
SAME = ("patient_id", "lesion_id")  # columns whose equal values tie images together
# The search for better folds: rounds at most; kinds of group tried on each side of an exchange;
# rounds in vain for each pair of parts that end it, where there are more kinds than are tried.
ROUNDS, SAMPLE, PATIENCE = 2000, 200, 10
FIRST = 5  # weight of images and malignant images; matters with less than 100 groups


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


def check_enough(
    targets: np.ndarray,
    groups: np.ndarray,
    folds: int,
    test_fraction: float,
    words: tuple[str, str] = WORDS,
) -> None:
    """Raise UserError unless both classes have groups enough for every part to get one.

    `words`: what the targets 0 and 1 mean.
    """
    have, name = _scarcest(targets, groups, words)
    if not have:
        raise UserError(f"one class only: no {name} image, and both classes are needed")
    if have < (parts := folds + (test_fraction > 0)):
        raise UserError(
            f"--folds {folds} --test-fraction {test_fraction}: need at least {parts} {name} groups "
            f"(all images of one patient or lesion are one group), found {have}: bring more "
            "lesions, or choose fewer --folds or --test-fraction 0"
        )
    if (left := have - max(int(test_fraction * have), test_fraction > 0)) < folds:
        raise UserError(
            f"--test-fraction {test_fraction} leaves {counted(left, f'{name} group')} for "
            f"--folds {folds}; choose a smaller test part or fewer folds"
        )


def assign_folds(
    targets: np.ndarray,
    groups: np.ndarray,
    folds: int,
    test_fraction: float,
    seed: int,
    words: tuple[str, str] = WORDS,
) -> np.ndarray:
    """Fold of each row, int64 [n]: 0..folds-1, or TEST for the test part; groups stay whole.

    Triple stratification, as in SIIM-ISIC 2020 (C. Deotte): every part gets its share of images,
    malignant images, groups, groups with a malignant image, and groups of each size, as nearly as
    whole groups allow, and never lacks a class. The test part is one more part, `test_fraction` of
    everything. The result depends on the rows, not on their order, and is the same on every
    machine. Raises UserError where there are too few groups of a class.

    Parameters
    ----------
    targets, groups : of each row, int [n]: its target, 0 or 1; and its group
    folds : how many
    test_fraction : share of the test part, 0 <= test_fraction < 1
    seed : another seed, other folds
    words : what the targets 0 and 1 mean, for messages
    """
    check_options(folds, test_fraction)
    check_enough(targets, groups, folds, test_fraction, words)
    shares = np.full(folds, (1 - test_fraction) / folds)
    labels = np.arange(folds)
    if test_fraction:
        shares, labels = np.append(shares, test_fraction), np.append(labels, TEST)
    rng = generator(seed, "folds")
    _, group = np.unique(groups, return_inverse=True)
    kind, kinds = _kinds(targets == 1, group)
    counts = _share_out(kinds, shares, rng)
    labels[:folds] = rng.permutation(folds)
    # Groups of one kind are interchangeable: which of them goes where is left to chance.
    shuffled = np.lexsort((rng.permutation(len(kind)), kind))
    part = np.empty(len(kind), np.int64)
    part[shuffled] = np.repeat(np.tile(labels, len(counts)), counts.ravel())
    return part[group]


def given_folds(given: np.ndarray, groups: np.ndarray, names: np.ndarray) -> np.ndarray:
    """A user's own folds, float [n], as int64 [n]: 0..k-1 without gaps, k >= 2, or -1 (test).

    `names` [n] says which row is meant in an error. Raises UserError for other values, for a fold
    that is empty, and for a group (see group_images) that lies in more than one part.
    """
    given = np.asarray(given, np.float64)
    wrong = ~((given == np.floor(given)) & (given >= TEST) & (given < len(given)))
    if wrong.any():
        raise UserError(
            f"{counted(wrong.sum(), 'row has', 'rows have')} no usable fold: "
            f"{some(names[wrong].tolist())}; expected whole numbers 0, 1, 2 ... (-1: test part)"
        )
    fold = given.astype(np.int64)
    present = np.unique(fold[fold != TEST])
    if len(present) < 2 or present[-1] != len(present) - 1:
        raise UserError(
            f"the given folds are {some(present.tolist())}; expected all of 0 to k - 1, k at least "
            "2"
        )
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    first = np.zeros(len(size), np.int64)
    first[group] = fold  # some row's fold: in a whole group it is every row's
    split = np.flatnonzero(np.bincount(group, weights=fold == first[group]) < size)
    if len(split):
        rows = np.flatnonzero(group == split[0])
        named = [f"{names[row]} (fold {fold[row]})" for row in rows[np.argsort(fold[rows])]]
        raise UserError(
            f"{counted(len(split), 'group lies', 'groups lie')} in several of the given folds (a "
            "group is one patient, lesion or near-duplicates), for one "
            f"{some([named[0], *named[:0:-1]])}; move each into one fold, or let the folds be "
            "made here"
        )
    return fold


def _scarcest(targets: np.ndarray, groups: np.ndarray, words: tuple[str, str]) -> tuple[int, str]:
    """In how many groups the class that is in the fewest is found, and its name."""
    return min(
        ((len(np.unique(groups[targets == target])), words[target]) for target in (1, 0)),
        key=lambda found: found[0],
    )


# ------------------------------------------------------------------------------- stratification


def _kinds(malignant: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kind of each group, int64 [groups], and the kinds, int64 [kinds, 3].

    Groups with as many images and malignant images are of one kind; its columns are those two
    numbers and the number of such groups. Sharing out kinds, not groups, is what makes this fast.
    """
    sizes = np.column_stack([np.bincount(group), np.bincount(group, weights=malignant)])
    kinds, kind, number = np.unique(
        sizes.astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    return kind.ravel(), np.column_stack([kinds, number])


def _features(kinds: np.ndarray, parts: int) -> np.ndarray:
    """What a part should have its share of, float [features, kinds], for one group of a kind.

    Images, malignant images, groups with a malignant image, and groups with at least s images, for
    every s up to 21, then in steps of 6%: cumulative, so that neighbouring sizes can stand in. An
    s that fewer groups reach than there are parts is left to the number of images.
    """
    images, malignant, number = kinds.T
    steps = 12 * int(images.max()).bit_length()
    sizes = images >= np.unique(np.round(2 ** (np.arange(steps) / 12)))[:, None]
    sizes = sizes[(sizes * number).sum(axis=1) >= parts]
    return np.vstack([images, malignant, malignant > 0, sizes]).astype(np.float64)


def _share_out(kinds: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How many groups of each kind each part gets, int64 [kinds, parts].

    Minimises the squared deviations from the wanted amounts of _features, each over the wanted
    amount (chi-squared), images and malignant images FIRST times: whole shares first, then group
    by group, the large first, then swaps.
    Only elementwise arithmetic and exact sums: no machine may round differently.
    """
    features, number = _features(kinds, len(shares)), kinds[:, 2]
    wanted = (features * number).sum(axis=1)[:, None] * shares
    scale = np.divide(1, wanted, out=np.zeros_like(wanted), where=wanted > 0)
    scale[:2] *= FIRST
    counts = _core(kinds, len(shares))
    left = number - counts.sum(axis=1)
    counts += np.floor(left[:, None] * shares + 1e-9).astype(np.int64)
    excess = np.array([(row[:, None] * counts).sum(axis=0) for row in features]) - wanted
    rest = np.repeat(np.arange(len(kinds)), number - counts.sum(axis=1))
    octave = np.frexp(kinds[rest, 0])[1]  # 1, 2-3, 4-7, 8-15 ... images
    for kind in rest[np.lexsort((rng.permutation(len(rest)), -octave, -kinds[rest, 1]))]:
        gain = features[:, kind, None]
        part = np.argmin((scale * gain * (2 * excess + gain)).sum(axis=0))
        counts[kind, part] += 1
        excess[:, part] += gain[:, 0]
    return _improve(counts, features, excess, scale, rng)


def _core(kinds: np.ndarray, parts: int) -> np.ndarray:
    """As _share_out, but only what gives each part both classes: the smallest groups that do."""
    images, malignant, number = kinds.T
    counts = np.zeros((len(kinds), parts), np.int64)

    def smallest(wanted: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(wanted)  # kinds are sorted by images
        return np.repeat(rows, np.minimum(number[rows], parts))

    ill, well = smallest(malignant == images), smallest(malignant == 0)
    mixed = smallest((malignant > 0) & (malignant < images))
    pure = min(parts, len(ill), len(well))
    for part in range(pure):
        counts[[ill[part], well[part]], part] += 1
    for part in range(pure, parts):
        counts[mixed[part - pure], part] += 1
    return counts


def _improve(
    counts: np.ndarray,
    features: np.ndarray,
    excess: np.ndarray,
    scale: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Exchange groups between two parts at a time, the best exchange first, while it helps.

    An exchange gives one group for one or for nothing; one that takes a class from a part is out.
    """
    kinds, parts = counts.shape
    features = np.column_stack([features, np.zeros(len(features))])  # the last kind is "nothing"
    counts = np.vstack([counts, np.ones(parts, np.int64)])
    classes = np.array([features[1], features[0] - features[1]])
    pairs = [(p, q) for q in range(parts) for p in range(q)]
    idle, patience = 0, len(pairs) * (PATIENCE if kinds > SAMPLE else 1)
    for turn in range(ROUNDS):
        p, q = pairs[turn % len(pairs)]
        give, take = (_some_of(np.flatnonzero(counts[:kinds, part]), rng) for part in (p, q))
        give, take = np.append(give, kinds), np.append(take, kinds)
        change = np.zeros((len(give), len(take)))
        for row, s, x in zip(features, scale, excess, strict=True):
            gain = row[take] - row[give][:, None]
            change += gain * (gain * (s[p] + s[q]) + 2 * (s[p] * x[p] - s[q] * x[q]))
        for row in classes:
            held, gain = (row[:, None] * counts).sum(axis=0), row[take] - row[give][:, None]
            change[(held[p] + gain < 1) | (held[q] - gain < 1)] = np.inf
        best = np.unravel_index(np.argmin(change), change.shape)
        idle += 1
        if change[best] < -1e-9:
            given, taken = give[best[0]], take[best[1]]
            counts[[given, taken], p] += [-1, 1]
            counts[[given, taken], q] += [1, -1]
            gain = features[:, taken] - features[:, given]
            excess[:, p] += gain
            excess[:, q] -= gain
            idle = 0
        if idle == patience:
            break
    return counts[:kinds]


def _some_of(kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return kinds if len(kinds) <= SAMPLE else np.sort(rng.choice(kinds, SAMPLE, replace=False))
