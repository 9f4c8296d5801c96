"""Do probabilities mean what they say, and does one number fitted on validation mend them?

Temperature scaling (Guo et al. 2017, arXiv:1706.04599): logits are divided by T, which is fitted to
the log loss of validation images alone. T above 1: the classifier was too sure. For one score the
order of images, so the AUC, stays as it is; for several classes the most probable one does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, logit, softmax
from scipy.stats import binomtest

from classifier.evaluation.intervals import (
    ALPHA,
    UNDEFINED,
    Figure,
    Freedom,
    Resampling,
    Scored,
    figure,
    resample,
)
from classifier.evaluation.metrics import ECE_BINS, ece_bin
from classifier.evaluation.multiclass import ScoredClasses

LEAST, MOST = 0.02, 50.0  # temperatures that are tried
LARGEST_LOGIT = 36.0  # logit of 1 - 2e-16: beyond it float64 has no other probability than 1
QUALITY = ("log_loss", "brier", "ece")  # all of them better the smaller


# --- temperature ---------------------------------------------------------------------------------


def fit_temperature(target: np.ndarray, score: np.ndarray) -> float | None:
    """T of logit(score) / T with the least log loss. `target` 0/1 [n], `score` [n] in 0..1.

    None where a class is missing: the log loss then falls without end. T at LEAST or MOST says that
    no temperature suits (classes separated without error, or scores that say nothing).
    """
    if len(np.unique(target)) < 2:
        return None
    signed = np.where(np.asarray(target).astype(bool), 1, -1) * _logits(score)
    return _least(lambda temperature: -log_expit(signed / temperature).mean())


def scale(score: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [...] after temperature scaling: expit(logit(score) / T)."""
    return expit(logit(score) / temperature)


def fit_class_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float | None:
    """T of softmax(log p / T) with the least log loss. `truth` int [n], `probabilities` [n, k].

    None where all images are of one class.
    """
    if len(np.unique(truth)) < 2:
        return None
    logits, rows = _log(probabilities), np.arange(len(truth))
    return _least(
        lambda temperature: -log_softmax(logits / temperature, axis=1)[rows, truth].mean()
    )


def scale_classes(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [n, k] after temperature scaling: softmax(log p / T)."""
    return softmax(_log(probabilities) / temperature, axis=1)


def _least(loss: Callable[[float], float]) -> float:
    """The temperature of the least loss, looked for over its logarithm."""
    bounds = (np.log(LEAST), np.log(MOST))
    best = minimize_scalar(
        lambda power: loss(np.exp(power)), bounds=bounds, method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(best.x))


def _logits(score: np.ndarray) -> np.ndarray:
    return np.clip(logit(np.asarray(score, np.float64)), -LARGEST_LOGIT, LARGEST_LOGIT)


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, np.exp(-LARGEST_LOGIT)))


# --- how good probabilities are ------------------------------------------------------------------


def calibration(rows: Scored, temperature: float | None, resampling: Resampling) -> dict[str, Any]:
    """Log loss, Brier score and ECE of a part `before` and `after` scaling, and their `change`.

    Figures; the change is paired (the same resamples). Brier: mean squared error of `score`; ECE:
    15 bins of equal width, as in metrics.json; `ece_of_noise`: what calibrated scores would show on
    average with so many images in such groups. `bins` of both for a reliability diagram. Without a
    temperature `after` and `change` are undefined.
    """
    scores = {"before": rows.score}
    if temperature is not None:
        scores["after"] = scale(rows.score, temperature)
    judged = {
        name: _judge(_loss(rows.target, score), (score - rows.target) ** 2, score, rows.target)
        for name, score in scores.items()
    }
    bins_by_name = {name: bins(rows.target, score) for name, score in scores.items()}
    return {**_quality(rows, judged, resampling), "bins": bins_by_name}


def class_calibration(
    classes: ScoredClasses, temperature: float | None, resampling: Resampling
) -> dict[str, Any]:
    """As `calibration`, of all classes together and without bins.

    Brier: squared error summed over classes (0 to 2); ECE: of the most probable class's
    probability against how often it is right (Guo et al. 2017).
    """
    probabilities = {"before": classes.probabilities}
    if temperature is not None:
        probabilities["after"] = scale_classes(classes.probabilities, temperature)
    truth, rows, judged = classes.truth, np.arange(len(classes.truth)), {}
    for name, p in probabilities.items():
        brier = ((p - np.eye(p.shape[1])[truth]) ** 2).sum(1)
        judged[name] = _judge(-_log(p)[rows, truth], brier, p.max(1), p.argmax(1) == truth)
    grouped = Scored.of(rows * 0, rows * 0.0, classes.group)
    return _quality(grouped, judged, resampling, most_brier=2)


def bins(target: np.ndarray, score: np.ndarray) -> list[dict[str, float | int]]:
    """Bins of the reliability diagram that hold images, with the 95% Wilson interval of each.

    `low`, `high` edges, `n`, mean `predicted`, `observed` share, `wilson_low`, `wilson_high` (which
    takes images for independent).
    """
    lines, places = [], ece_bin(score)
    for place in np.unique(places).tolist():
        chosen = places == place
        n, hits = int(chosen.sum()), int(target[chosen].sum())
        wilson = binomtest(hits, n).proportion_ci(method="wilson")
        lines.append(
            {
                "low": place / ECE_BINS,
                "high": (place + 1) / ECE_BINS,
                "n": n,
                "predicted": float(score[chosen].mean()),
                "observed": hits / n,
                "wilson_low": float(wilson.low),
                "wilson_high": float(wilson.high),
            }
        )
    return lines


def _loss(target: np.ndarray, score: np.ndarray) -> np.ndarray:
    return -log_expit(np.where(target, 1, -1) * _logits(score))


def _judge(
    loss: np.ndarray, brier: np.ndarray, confidence: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """What an image adds to each figure: [n, 2 + bins], loss, squared error, gap in its bin."""
    gaps = np.zeros((len(loss), ECE_BINS))
    gaps[np.arange(len(loss)), ece_bin(confidence)] = confidence - right
    return np.column_stack([loss, brier, gaps])


def _quality(
    rows: Scored, judged: dict[str, np.ndarray], resampling: Resampling, most_brier: float = 1
) -> dict[str, dict[str, Any]]:
    sums = rows.group_sums(np.hstack([np.ones((len(rows.target), 1)), *judged.values()]))
    whole = _means(np.ones((1, rows.n_groups)), sums, len(judged))

    def draw(weights: np.ndarray) -> np.ndarray:
        means = _means(weights, sums, len(judged))
        noise = [_figures(mean - at)[:, 2] for mean, at in zip(means, whole, strict=True)]
        return np.column_stack([*(_figures(mean) for mean in means), *noise])

    values, drawn = resample(rows, draw, resampling)
    count = len(QUALITY) * len(judged)
    values, drawn, noise = values[:count], drawn[:, :count], drawn[:, count:]
    names = list(judged)
    if len(judged) > 1:  # paired: both under the same resample
        names.append("change")
        values = np.append(values, values[3:] - values[:3])
        drawn = np.hstack([drawn, drawn[:, 3:] - drawn[:, :3]])
    df, most = Freedom.of(rows).all, (LARGEST_LOGIT, most_brier, 1.0)
    quality: dict[str, dict[str, Any]] = {name: {} for name in names}
    for at, (name, key) in enumerate((name, key) for name in names for key in QUALITY):
        limit = most[at % len(QUALITY)]
        limits = (-limit if name == "change" else 0.0, limit)
        quality[name][key] = figure(values[at], drawn[:, at], df, limits)
    for at, name in enumerate(judged):
        quality[name]["ece"] = _mirrored(quality[name]["ece"], noise[:, at])
        quality[name]["ece_of_noise"] = float(noise[:, at].mean())
    if len(judged) == 1:
        nothing = dict.fromkeys(QUALITY, UNDEFINED)
        quality |= {"after": {**nothing, "ece_of_noise": None}, "change": nothing}
    return quality


def _means(weights: np.ndarray, sums: np.ndarray, count: int) -> list[np.ndarray]:
    """What `_judge` gave, as means under group weights [b, groups]: `count` of [b, 2 + bins]."""
    totals = weights @ sums
    return np.split(totals[:, 1:] / totals[:, :1], count, axis=1)


def _figures(means: np.ndarray) -> np.ndarray:
    """Log loss, Brier score and ECE: [b, 3]."""
    return np.column_stack([means[:, :2], np.abs(means[:, 2:]).sum(1)])


def _mirrored(ece: Figure, noise: np.ndarray) -> Figure:
    """The basic bootstrap interval of an ECE: percentiles mirrored at the value, from 0 on.

    ECE adds up absolute gaps, so noise only raises it: that of a resample lies above that of the
    sample about as the sample's lies above the truth. Where noise alone (the gaps of resamples less
    those of the sample) reaches the value in one of 40 resamples, the truth may be 0.
    """
    value, low, high = ece["value"], ece["low"], ece["high"]
    if value is None or low is None or high is None:
        return ece
    least = 0.0 if value <= np.quantile(noise, 1 - ALPHA / 2) else 2 * value - high
    ends = np.clip([least, max(2 * value - low, 0.0)], 0, 1)
    return {"value": value, "low": float(ends[0]), "high": float(ends[1])}
