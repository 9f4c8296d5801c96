"""AUC, ROC curves and DeLong's test of single models and of averages over models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from dermsynth.group_bootstrap import clustered, count_pairs, group_draws, interval, resampled
from experiments.statistics.trainings import Images, Trainings
from experiments.statistics.variance import fold_weights, strata

ALPHA = 0.05


def auc(target: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve of scores [n], ties counted half; equal to scikit-learn's."""
    target = np.asarray(target, dtype=bool)
    m, n = target.sum(), (~target).sum()
    return float((stats.rankdata(score)[target].sum() - m * (m + 1) / 2) / (m * n))


def weighted_auc(target: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`auc` under many sets of image weights [replicates, n] from one sort: [replicates].

    NaN where a replicate gives one class no weight.
    """
    target = np.asarray(target, dtype=bool)
    _, block, counts = np.unique(score, return_inverse=True, return_counts=True)
    stop = np.cumsum(counts)[block[target]]  # a malignant image's ties lie at start..stop - 1
    start = stop - counts[block[target]]
    order = np.argsort(block, kind="stable")
    benign = np.zeros((len(weights), len(target) + 1))
    np.cumsum(weights[:, order] * ~target[order], axis=1, out=benign[:, 1:])
    malignant = weights[:, target]
    wins = (malignant * (benign[:, start] + benign[:, stop])).sum(axis=1) / 2
    with np.errstate(invalid="ignore"):
        return wins / (malignant.sum(axis=1) * benign[:, -1])


def delong_test(
    target: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[float, float | None, float]:
    """Paired DeLong test of AUC(a) - AUC(b): difference, standard error, two-sided p.

    DeLong et al. 1988 by the midranks of Sun and Xu 2014. Scores: [n], or [models, n] to average
    AUCs over models. It takes images for independent. Identical scores give (0, 0, 1); fewer than
    two images of a class give no standard error and p = 1.
    """
    target = np.asarray(target, dtype=bool)
    m, n = int(target.sum()), int((~target).sum())

    def components(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.atleast_2d(scores)
        ranks = stats.rankdata(scores, axis=1)
        malignant = ranks[:, target] - stats.rankdata(scores[:, target], axis=1)
        benign = ranks[:, ~target] - stats.rankdata(scores[:, ~target], axis=1)
        return malignant.mean(axis=0) / n, 1 - benign.mean(axis=0) / m

    (a10, a01), (b10, b01) = components(a), components(b)
    d10, d01 = a10 - b10, a01 - b01
    delta = float(d10.mean())
    if min(m, n) < 2:
        return delta, None, 1.0
    se = float(np.sqrt(d10.var(ddof=1) / m + d01.var(ddof=1) / n))
    return delta, se, _two_sided(delta, se)


def delong(folds: Sequence[Trainings]) -> float:
    """Two-sided p of the paired DeLong test of AUCs averaged over trainings and folds."""
    weights, delta, variance = fold_weights(folds), 0.0, 0.0
    for images, members in strata(folds):
        arm = np.concatenate([folds[at].arm[folds[at].pairs[:, 0]] for at in members])
        reference = np.concatenate([folds[at].reference[folds[at].pairs[:, 1]] for at in members])
        found, se, _ = delong_test(images.target, arm, reference)
        if se is None:
            return 1.0
        weight = weights[members].sum()
        delta, variance = delta + weight * found, variance + (weight * se) ** 2
    return _two_sided(delta, float(np.sqrt(variance)))


def _two_sided(delta: float, se: float) -> float:
    if se < 1e-12:  # rounding noise of constant components
        return float(abs(delta) < 1e-12)
    return float(2 * stats.norm.sf(abs(delta) / se))


def auc_interval(
    target: np.ndarray, score: np.ndarray, group: np.ndarray, replicates: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """One arm's AUC with its 95% group bootstrap interval: AUC, low, high.

    Where no pair is misordered all resamples agree and a bootstrap is blind. The bound is then the
    exact binomial one on the share of groups of the rarer class that outrank all of the other.
    Raises UserError where a class is missing.

    Parameters
    ----------
    target : uint8 or bool [n], 1 for malignant
    score : float [n]
    group : [n], any sortable type
    replicates, seed : of the group bootstrap
    """
    images = Images.of(target, group, "AUC interval")
    pairs = count_pairs(images.target, images.group, np.atleast_2d(score))
    value, _, df = clustered(pairs)
    if value == 1:
        return 1.0, (ALPHA / 2) ** (1 / min(len(pairs.malignant), len(pairs.benign))), 1.0
    return value, *interval(resampled(pairs, replicates, seed), df, ALPHA, (0.0, 1.0))


def roc_band(
    target: np.ndarray,
    scores: np.ndarray,
    group: np.ndarray,
    points: int = 101,
    replicates: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean ROC curve of single models on one fold: `roc_bands` of it alone.

    scores: [n], or [models, n]. Raises UserError where a class is missing.
    """
    images = Images.of(target, group, "ROC band")
    return mean_roc([(images, np.atleast_2d(scores))], points, replicates, seed)


def mean_roc(
    folds: Sequence[tuple[Images, np.ndarray]],
    points: int = 101,
    replicates: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean ROC curve of single models with its pointwise 95% band, for JSON.

    Sensitivities are averaged at each false-positive rate of an even grid: over models, and over
    folds by their numbers of pairs. Its area is the mean AUC. Returns lists `fpr, tpr, low, high`
    of `points` values in 0..1 and `auc, ci_low, ci_high`. Band and interval are plain percentiles
    of a bootstrap over groups, given the models: a picture.

    Parameters
    ----------
    folds : images and scores float [models, n] of the models that were tested on them
    points : of the grid of false-positive rates
    replicates, seed : of the group bootstrap
    """
    weights = np.array([images.n_pairs for images, _ in folds], np.float64)
    weights /= weights.sum()
    grid = np.linspace(0, 1, points)
    mean, mean_auc = np.zeros(points), 0.0
    drawn, drawn_auc = np.zeros((replicates, points)), np.zeros(replicates)
    for number, (weight, (images, scores)) in enumerate(zip(weights, folds, strict=True)):
        for score in scores:
            share = weight / len(scores)
            curve, area = _curves(images, score, np.ones((1, len(score)), np.float32), grid)
            mean, mean_auc = mean + share * curve[0], mean_auc + share * float(area[0])
            blocks = group_draws(images.groups.n_groups, replicates, seed + number)
            curves = [_curves(images, score, block[:, images.group], grid) for block in blocks]
            drawn += share * np.concatenate([curve for curve, _ in curves])
            drawn_auc += share * np.concatenate([area for _, area in curves])
    whole = np.isfinite(drawn_auc)
    levels = [ALPHA / 2, 1 - ALPHA / 2]
    low, high = np.quantile(drawn[whole], levels, axis=0)
    ci_low, ci_high = np.quantile(drawn_auc[whole], levels)
    lists = {"fpr": grid, "tpr": mean, "low": low, "high": high}
    figures = {"auc": mean_auc, "ci_low": float(ci_low), "ci_high": float(ci_high)}
    return {name: values.tolist() for name, values in lists.items()} | figures


def _curves(
    images: Images, score: np.ndarray, weights: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivities at `grid` [replicates, points] and AUCs [replicates]; NaN without a class.

    Parameters
    ----------
    images, score : [n]
    weights : float32 [replicates, n]
    grid : false-positive rates
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    malignant = images.target[order]
    tpr, fpr = (
        np.pad(np.cumsum(weights[:, order] * chosen, axis=1)[:, ends], ((0, 0), (1, 0)))
        for chosen in (malignant, ~malignant)
    )
    with np.errstate(invalid="ignore"):
        tpr, fpr = tpr / tpr[:, -1:], fpr / fpr[:, -1:]
    curves = np.array([np.interp(grid, x, y) for x, y in zip(fpr, tpr, strict=True)])
    return curves, np.trapezoid(tpr, fpr, axis=1)
