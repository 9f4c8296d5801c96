"""Pure scores of feature vectors: KID, precision and recall, memorisation."""

import contextlib
import io
from dataclasses import dataclass

import numpy as np
from prdc import compute_prdc
from scipy.stats import mannwhitneyu
from sklearn.metrics.pairwise import euclidean_distances

from dermsynth.seeds import generator

NEIGHBOURS = 5  # k of precision, recall, density and coverage (Naeem et al. 2020)
HALVINGS = 200  # half-samples behind the spread of KID
PERMUTATIONS = 999
ALPHA, NEAR = 0.01, 0.9  # memorisation is flagged with p and ratio below these,
COPIES = 0.02  # or with more than this share of near copies,
COPY = 2 / 3  # whose ratio is below this share of the smallest of a held-out image


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD between two sets of features: the kernel inception distance.

    x [n, d], y [m, d]; kernel (x.y / d + 1)^3 (Binkowski et al. 2018). Unbiased, so that it may
    come out below 0 and does not depend on n and m, only its spread does.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    return _mmd(*(_kernel(a, b) for a, b in ((x, x), (y, y), (x, y))))


def kid_spread(x: np.ndarray, y: np.ndarray, seed: int) -> float:
    """Standard error of `kid(x, y)`: its standard deviation over random halves of both sets.

    (A delete-half jackknife: the factor (n - d) / d is 1 for d = n / 2, Shao and Wu 1989.)
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    xx, yy, xy = (_kernel(a, b) for a, b in ((x, x), (y, y), (x, y)))
    rng = generator(seed, "gan/kid")
    values = []
    for _ in range(HALVINGS):
        i = rng.permutation(len(x))[: max(len(x) // 2, 2)]
        j = rng.permutation(len(y))[: max(len(y) // 2, 2)]
        values.append(_mmd(xx[np.ix_(i, i)], yy[np.ix_(j, j)], xy[np.ix_(i, j)]))
    return float(np.std(values, ddof=1))


def precision_recall(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    """`precision, recall, density, coverage` of features [n, d], with k = NEIGHBOURS or less."""
    k = min(NEIGHBOURS, len(real) - 2, len(synthetic) - 2)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its counts
        scores = compute_prdc(real, synthetic, nearest_k=k)
    return {name: float(value) for name, value in scores.items()}


@dataclass(frozen=True)
class Memorisation:
    """How much nearer synthetic images lie to training images than chance would have them.

    The distance ratio of an image is (to its nearest training image) / (to its nearest held-out
    image). Held-out real images, each measured without its own group, say what is chance.
    """

    ratio: float  # median ratio of synthetic over that of held-out images: 1 chance, 0 copies
    median_synthetic: float  # the two medians that `ratio` divides
    median_reference: float
    near_copies: float  # share of synthetic images far below any held-out one's ratio: COPY
    share_nearest_training: float  # share of synthetic images whose nearest real one is a training
    share_expected: float  # the same for held-out images
    p_permutation: float  # one-sided: groups of real images shuffled between training and held-out
    p_mann_whitney: float  # one-sided: synthetic ratios against held-out ones
    flagged: bool


def memorisation(
    synthetic: np.ndarray,
    held_out: np.ndarray,
    real_groups: np.ndarray,
    n_training: int,
    seed: int,
) -> Memorisation:
    """Compare nearest-neighbour distances to training and to held-out images.

    The permutation test asks whether the split is special: no group is shared by the two sides, so
    under no memorisation any other split into groups would do as well. It holds for a collapsed
    generator too, whose images are not independent.

    Parameters
    ----------
    synthetic : float [s, r], distances from synthetic images to the r = n_training + h real ones:
        the training images and then the held-out ones, in order
    held_out : float [h, r], distances from held-out images to the real ones
    real_groups : [r], images of one lesion or patient share a value
    n_training : how many of the real ones are training images
    seed : of the permutations
    """
    is_training = np.arange(synthetic.shape[1]) < n_training
    own = real_groups[n_training:][:, None] == real_groups[None]
    to_others = np.where(own, np.inf, held_out)
    ratios = _ratios(synthetic, is_training)
    reference = _ratios(to_others, is_training)
    reference = reference[np.isfinite(reference)]
    nearest = is_training[synthetic.argmin(1)]
    nearest_reference = is_training[to_others.argmin(1)]
    medians = float(np.median(ratios)), float(np.median(reference))
    ratio = medians[0] / medians[1]
    p = _permutation_p(synthetic, is_training, real_groups, seed)
    near_copies = float((ratios < COPY * reference.min()).mean())
    return Memorisation(
        ratio=ratio,
        median_synthetic=medians[0],
        median_reference=medians[1],
        near_copies=near_copies,
        share_nearest_training=float(nearest.mean()),
        share_expected=float(nearest_reference.mean()),
        p_permutation=p,
        p_mann_whitney=float(mannwhitneyu(ratios, reference, alternative="less").pvalue),
        flagged=(p < ALPHA and ratio < NEAR) or near_copies > COPIES,
    )


def nearest_distances(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest Euclidean distance over a query's versions, and which version has it.

    queries [v, q, d], references [r, d] -> float64 [q, r], int64 [q, r].
    """
    references = references.astype(np.float64)
    least = np.full((queries.shape[1], len(references)), np.inf)
    best = np.zeros(least.shape, np.int64)
    for number, version in enumerate(queries):
        distances = euclidean_distances(version.astype(np.float64), references)
        nearer = distances < least
        least[nearer], best[nearer] = distances[nearer], number
    return least, best


def _ratios(distances: np.ndarray, is_training: np.ndarray) -> np.ndarray:
    tiny = 1e-6 * float(np.median(distances[np.isfinite(distances)]))
    to_training = distances[:, is_training].min(1)
    return (to_training + tiny) / (distances[:, ~is_training].min(1) + tiny)


def _permutation_p(
    distances: np.ndarray, is_training: np.ndarray, groups: np.ndarray, seed: int
) -> float:
    """P(mean log ratio is as low or lower) when whole groups change sides at random."""
    rng = generator(seed, "gan/memorisation")
    names, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n_held_out = int((~is_training).sum())
    observed = np.log(_ratios(distances, is_training)).mean()
    lower = 0
    for _ in range(PERMUTATIONS):
        order = rng.permutation(len(names))
        enough = np.searchsorted(np.cumsum(sizes[order]), n_held_out) + 1
        swapped = ~np.isin(members, order[:enough])
        if swapped.any():
            lower += np.log(_ratios(distances, swapped)).mean() <= observed
    return (1 + int(lower)) / (1 + PERMUTATIONS)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mmd(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> float:
    n, m = xy.shape
    within_x = (xx.sum() - np.trace(xx)) / (n * (n - 1))
    within_y = (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within_x + within_y - 2 * xy.mean())
