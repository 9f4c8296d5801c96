"""Did the arm beat its reference on the same real test images, and can one tell?

The images of a patient or lesion are not independent, so the verdict rests on a group bootstrap
of the AUC difference, with percentile levels widened for the few malignant groups that a test set
has. The paired DeLong test stands beside it to compare with the literature only. Reasons:
docs/guides/statistics.md; measured error rates: docs/measurements/statistics.md.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from dermsynth.errors import UserError
from dermsynth.group_bootstrap import (
    Pairs,
    clustered,
    count_pairs,
    group_draws,
    interval,
    p_value,
    resampled,
)

ALPHA = 0.05
POWER = 0.80
FEW_GROUPS = 10  # malignant groups; with fewer the error rates were not measured


def compare(
    arm: str,
    reference: str,
    test_set: str,
    target: np.ndarray,
    scores_arm: np.ndarray,
    scores_reference: np.ndarray,
    group: np.ndarray,
    margin: float = 0.01,
    replicates: int = 9999,
    seed: int = 0,
) -> dict[str, Any]:
    """One row of comparisons.json, but for p_holm and verdict, which `finish` fills in.

    target: uint8 or bool [n]; group: [n], any sortable type; margin: AUC. Scores: float
    [GAN seeds, classifier seeds, n] of the same images, classifier seeds in the same order in both
    arms; an arm without synthetic images has one "GAN seed" and meets each of the other's.

    Scores are averaged over classifier seeds, AUCs over GAN seeds: averaging scores over those too
    would favour the arm for being an ensemble of more models than its reference.

    Floats are finite; `mde` and the hierarchical interval are None where undefined. Raises
    UserError where a class is missing, a score is not finite, or shapes do not fit.

    Parameters
    ----------
    arm, reference, test_set : names, for the row
    target : uint8 or bool [n], 1 for malignant
    scores_arm, scores_reference : float [GAN seeds, classifier seeds, n]
    group : [n], any sortable type; images of one value are dependent
    margin : AUC; a difference below it counts as none
    replicates, seed : of the group bootstrap
    """
    where = f"{arm} against {reference} on {test_set}"
    target, group = _check_rows(target, group, where)
    _check_scores(scores_arm, scores_reference, len(target), where)
    a, b = scores_arm.mean(axis=1), scores_reference.mean(axis=1)  # [GAN seeds, n]
    pairs = count_pairs(target, group, a, b)
    delta, variance, df = clustered(pairs)
    drawn = resampled(pairs, replicates, seed)
    low, high = interval(drawn, df, ALPHA, (-1.0, 1.0))
    low90, high90 = interval(drawn, df, 2 * ALPHA, (-1.0, 1.0))
    wide = _with_training(target, scores_arm, scores_reference, (low, high), delta, variance, df)
    n_gan_seeds = max(len(a), len(b))
    return {
        "arm": arm,
        "reference": reference,
        "test_set": test_set,
        "auc_arm": float(np.mean([auc(target, score) for score in a])),
        "auc_reference": float(np.mean([auc(target, score) for score in b])),
        "delta_auc": delta,
        "ci_low": low,
        "ci_high": high,
        "ci90_low": low90,
        "ci90_high": high90,
        "ci_low_hierarchical": wide[0] if wide else None,
        "ci_high_hierarchical": wide[1] if wide else None,
        "hierarchical_note": _training_note(scores_arm.shape[1], n_gan_seeds),
        "p_delong": delong_test(target, a, b)[2],
        "p_bootstrap": p_value(drawn, df),
        "p_holm": None,
        "mde": detectable(variance) if df > 0 else None,
        "verdict": None,
        "margin": margin,
        "n": len(target),
        "n_malignant": int(target.sum()),
        "n_groups": pairs.n_groups,
        "n_malignant_groups": len(pairs.malignant),
        "n_seeds": scores_arm.shape[1],
        "n_gan_seeds": n_gan_seeds,
        "note": _note(pairs),
    }


def finish(comparisons: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All comparisons of an experiment with their Holm-adjusted p-values and verdicts."""
    adjusted = holm([row["p_bootstrap"] for row in comparisons])
    return [
        row
        | {
            "p_holm": p,
            "verdict": verdict(
                row["delta_auc"], p, row["ci90_low"], row["ci90_high"], row["margin"]
            ),
        }
        for row, p in zip(comparisons, adjusted, strict=True)
    ]


def verdict(delta: float, p_holm: float, ci90_low: float, ci90_high: float, margin: float) -> str:
    """`equivalent`, `helps`, `hurts` or `inconclusive`, looked for in this order.

    Two one-sided tests at 5% (the 90% interval within +-margin) say that the difference is too
    small to matter. That stays the answer where a large test set makes it significant as well.

    Parameters
    ----------
    delta : difference in AUC, arm less reference
    p_holm : two-sided p, corrected for the number of comparisons
    ci90_low, ci90_high : 90% interval of the difference
    margin : AUC, fixed beforehand
    """
    if -margin < ci90_low and ci90_high < margin:
        return "equivalent"
    if p_holm < ALPHA and delta != 0:
        return "helps" if delta > 0 else "hurts"
    return "inconclusive"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979), in the order given."""
    adjusted = np.array(p_values, dtype=float)
    order = np.argsort(adjusted)
    steps = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


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
    if se < 1e-12:  # rounding noise of constant components
        return delta, 0.0, float(abs(delta) < 1e-12)
    return delta, se, float(2 * stats.norm.sf(abs(delta) / se))


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
    target, group = _check_rows(target, group, "AUC interval")
    pairs = count_pairs(target, group, np.atleast_2d(score), None)
    value, _, df = clustered(pairs)
    if value == 1:
        return 1.0, (ALPHA / 2) ** (1 / min(len(pairs.malignant), len(pairs.benign))), 1.0
    return value, *interval(resampled(pairs, replicates, seed), df, ALPHA, (0.0, 1.0))


def roc_band(
    target: np.ndarray,
    score: np.ndarray,
    group: np.ndarray,
    points: int = 101,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """ROC curve on an even grid of false-positive rates, with its pointwise 95% band, for JSON.

    score: [n]. Returns lists `fpr, tpr, low, high` of `points` values in 0..1 and `auc, ci_low,
    ci_high` of `auc_interval`. The band is a plain percentile bootstrap over groups: a picture.
    Raises UserError where a class is missing.

    Parameters
    ----------
    target : uint8 or bool [n], 1 for malignant
    score : float [n]
    group : [n], any sortable type
    points : of the grid of false-positive rates
    replicates, seed : of the group bootstrap
    """
    target, group = _check_rows(target, group, "ROC band")
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    malignant, grid = target[order], np.linspace(0, 1, points)

    def curve(weight: np.ndarray) -> np.ndarray:
        tpr = np.append(0, np.cumsum(weight * malignant)[ends])
        fpr = np.append(0, np.cumsum(weight * ~malignant)[ends])
        return np.interp(grid, fpr / fpr[-1], tpr / tpr[-1])

    drawn = [
        curve(weight)
        for weights in group_draws(int(group.max()) + 1, replicates, seed)
        for weight in weights[:, group[order]]
        if 0 < weight @ malignant < weight.sum()
    ]
    low, high = np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    value, ci_low, ci_high = auc_interval(target, score, group, seed=seed)
    curves = {"fpr": grid, "tpr": curve(np.ones(len(target))), "low": low, "high": high}
    lists = {name: values.tolist() for name, values in curves.items()}
    return lists | {"auc": value, "ci_low": ci_low, "ci_high": ci_high}


def detectable(variance: float) -> float:
    """The smallest true difference that a two-sided 5% test sees with 80% power."""
    return float((stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER)) * np.sqrt(variance))


# --- the variance of training ---------------------------------------------------------------------


def _with_training(
    target: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    primary: tuple[float, float],
    delta: float,
    variance: float,
    df: float,
) -> tuple[float, float] | None:
    """`primary` widened by the variance of training; None with one GAN and one classifier seed.

    Three levels: `variance` over groups; over GAN seeds, that of their mean difference; over
    classifier seeds, shared by the arms, a jackknife, because a bootstrap of three seeds repeats
    some, which weakens the average of scores. Satterthwaite's degrees of freedom for the sum.
    Scores: [GAN seeds, classifier seeds, n].
    """
    count_gan, count_seeds = max(len(a), len(b)), a.shape[1]
    if max(count_gan, count_seeds) == 1:
        return None
    if df <= 0:
        return primary
    parts = [(variance, df)]
    if count_gan > 1:
        by_gan = _delta_auc(target, a, b)
        parts.append((by_gan.var(ddof=1) / count_gan, count_gan - 1))
    if count_seeds > 1:
        left_out = [
            _delta_auc(target, np.delete(a, at, axis=1), np.delete(b, at, axis=1)).mean()
            for at in range(count_seeds)
        ]
        parts.append((np.var(left_out) * (count_seeds - 1), count_seeds - 1))
    total = sum(part for part, _ in parts)
    if total == 0:
        return primary
    total_df = total**2 / sum(part**2 / free for part, free in parts if part > 0)
    reach = stats.t.ppf(1 - ALPHA / 2, total_df) * np.sqrt(total)
    if variance == 0:
        return float(delta - reach), float(delta + reach)
    ratio = max(1.0, reach / (stats.t.ppf(1 - ALPHA / 2, df) * np.sqrt(variance)))
    low, high = (float(delta + ratio * (end - delta)) for end in primary)
    return max(low, -1.0), min(high, 1.0)


def _delta_auc(target: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """AUC differences by GAN seed, of scores averaged over classifier seeds: [GAN seeds]."""
    return np.array([auc(target, score) for score in a.mean(axis=1)]) - np.array(
        [auc(target, score) for score in b.mean(axis=1)]
    )


def _training_note(n_seeds: int, n_gan_seeds: int) -> str:
    """What the hierarchical interval covers, in a sentence."""
    if n_gan_seeds == 1 and n_seeds == 1:
        return "One classifier seed and one generator: no variance of training is covered."
    if n_gan_seeds == 1:
        return (
            f"{n_seeds} classifier seeds and at most one generator: how results vary from one "
            "trained generator to the next is not covered."
        )
    if n_seeds == 1:
        return f"{n_gan_seeds} generators, one classifier seed: its variance is not covered."
    return f"{n_gan_seeds} generators and {n_seeds} classifier seeds, each known only that roughly."


# --- checks ---------------------------------------------------------------------------------------


def _check_rows(target: np.ndarray, group: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """target as bool [n] and groups numbered 0.. [n]."""
    target = np.asarray(target).astype(bool)
    malignant = int(target.sum())
    if malignant in (0, len(target)):
        raise UserError(
            f"{where}: an AUC needs both classes, found {malignant} malignant of "
            f"{len(target)} images"
        )
    if len(group) != len(target):
        raise UserError(f"{where}: {len(target)} targets but {len(group)} groups")
    return target, np.unique(np.asarray(group), return_inverse=True)[1]


def _check_scores(a: np.ndarray, b: np.ndarray, n: int, where: str) -> None:
    fits = a.ndim == b.ndim == 3 and a.shape[1] == b.shape[1] and a.shape[2] == b.shape[2] == n
    if not fits or (len(a) != len(b) and 1 not in (len(a), len(b))):
        raise UserError(
            f"{where}: scores of shape {a.shape} and {b.shape} for {n} images; expected "
            "[GAN seeds, classifier seeds, images] with the same seeds in both arms"
        )
    for scores in (a, b):
        if not np.isfinite(scores).all():
            raise UserError(f"{where}: {int((~np.isfinite(scores)).sum())} scores are not finite")


def _note(pairs: Pairs) -> str | None:
    """What a reader must know before trusting the row."""
    count = min(len(pairs.malignant), len(pairs.benign))
    rarer = "malignant" if count == len(pairs.malignant) else "benign"
    if count >= FEW_GROUPS:
        return None
    return (
        f"Only {count} {rarer} patients or lesions: with fewer than {FEW_GROUPS} the interval is "
        "itself unsure."
    )
