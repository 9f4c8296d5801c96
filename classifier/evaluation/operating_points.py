"""Ranking and operating points of scores, each with a 95% interval over patients or lesions.

A threshold is chosen on validation and applied elsewhere, which is what a user of the classifier
can do; points read off a part's own ROC curve are kept apart, because they pick the threshold with
the answers at hand. Intervals resample groups (dermsynth.group_bootstrap) with the percentile
levels widened for few groups, as docs/guides/statistics.md describes. They hold for the model and
the thresholds as they are, not for another training or another validation part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from classifier.evaluation.metrics import best_threshold
from dermsynth.group_bootstrap import clustered, count_pairs, group_draws, interval, resampled

ALPHA = 0.05
TARGET = 0.95  # of the sensitivity or specificity that is held
MIN_TPR = 0.80  # of the partial AUC
FEW_GROUPS = 10  # of the rarer class; below it the error rates of intervals were not measured
SLACK = 1e-12  # rounding of rates
BLOCK = 1_000_000  # entries of the largest temporary array
RANKING = (
    "average_precision",
    "partial_auc_tpr80",
    "sensitivity_at_95_specificity",
    "specificity_at_95_sensitivity",
    "youden_sensitivity",
    "youden_specificity",
)

Figure = dict[str, float | None]  # value, low, high; all None where undefined
UNDEFINED: Figure = {"value": None, "low": None, "high": None}


@dataclass(frozen=True)
class Scored:
    """Images with a score, and which of them belong together."""

    target: np.ndarray  # bool [n], True malignant
    score: np.ndarray  # float64 [n], higher is more malignant
    group: np.ndarray  # int64 [n], 0 .. n_groups - 1, every number there

    @staticmethod
    def of(target: np.ndarray, score: np.ndarray, group: np.ndarray) -> "Scored":
        """From 0/1 [n], finite scores [n] and group names [n] of any sortable type."""
        numbers = np.unique(np.asarray(group), return_inverse=True)[1]
        return Scored(np.asarray(target).astype(bool), np.asarray(score, np.float64), numbers)

    @property
    def n_groups(self) -> int:
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
        sizes = [np.bincount(rows.group[chosen]) for chosen in (rows.target, ~rows.target)]
        sizes.append(np.bincount(rows.group))
        kish = [float(s.sum() ** 2 / (s @ s) - 1) if s.sum() else 0.0 for s in sizes]
        return Freedom(*kish, int((sizes[0] > 0).sum()), int((sizes[1] > 0).sum()))

    @property
    def fewest(self) -> int:
        """Groups of the rarer class."""
        return min(self.n_malignant, self.n_benign)


# --- thresholds ----------------------------------------------------------------------------------


def choose_thresholds(target: np.ndarray, score: np.ndarray) -> dict[str, float] | None:
    """Scores at or above which an image is called malignant, chosen on validation images.

    `specificity_95`: the lowest with a specificity of 0.95 or more there; `sensitivity_95`: the
    highest with a sensitivity of 0.95 or more; `youden`: the largest sum of both (Youden 1950),
    the threshold of metrics.json. None where a class is missing.
    """
    if len(np.unique(target)) < 2:
        return None
    fpr, tpr, thresholds = roc_curve(target, score, drop_intermediate=False)
    # scikit-learn's first threshold, above all scores, is infinite: JSON has no such number
    thresholds[0] = np.nextafter(np.max(score), np.inf)
    return {
        "specificity_95": float(thresholds[np.flatnonzero(fpr <= 1 - TARGET + SLACK)[-1]]),
        "sensitivity_95": float(thresholds[np.flatnonzero(tpr >= TARGET - SLACK)[0]]),
        "youden": best_threshold(target, score),
    }


# --- figures of one part -------------------------------------------------------------------------


def operating_points(
    rows: Scored, thresholds: dict[str, float] | None, replicates: int, seed: int
) -> dict[str, Any]:
    """Ranking figures and operating points of one part.

    `auc, average_precision, partial_auc_tpr80` (0 to 0.2), `sensitivity_at_95_specificity,
    specificity_at_95_sensitivity` (on the part's own ROC, as in metrics.json), `own_youden`
    (sensitivity, specificity), `balanced_accuracy` at the threshold `youden`, and
    `at_validation_thresholds`: what each of `thresholds` achieves here. Each is a Figure; what a
    missing class leaves undefined is None.
    """
    ranking = ranking_figures(rows, replicates, seed)
    youden = {name: ranking.pop(f"own_youden_{name}") for name in ("sensitivity", "specificity")}
    applied = {
        name: at_threshold(rows, threshold, replicates, seed)
        for name, threshold in (thresholds or {}).items()
    }
    return {
        "auc": auc_figure(rows, replicates, seed),
        **ranking,
        "balanced_accuracy": applied["youden"]["balanced_accuracy"] if applied else UNDEFINED,
        "threshold": thresholds["youden"] if thresholds else None,
        "own_youden": youden,
        "at_validation_thresholds": applied or None,
    }


def auc_figure(rows: Scored, replicates: int, seed: int) -> Figure:
    """AUC with its interval, the same as that of `experiments.statistics.auc_interval`.

    Where no pair is misordered all resamples agree and a bootstrap is blind; the bound is then the
    exact binomial one on the groups of the rarer class.
    """
    if not rows.both:
        return UNDEFINED
    pairs = count_pairs(rows.target, rows.group, rows.score[None], None)
    value, _, df = clustered(pairs)
    drawn = resampled(pairs, replicates, seed)
    return figure(value, drawn, df, (0.0, 1.0), min(len(pairs.malignant), len(pairs.benign)))


def ranking_figures(rows: Scored, replicates: int, seed: int) -> dict[str, Figure]:
    """Figures of the ROC and precision-recall curves but for the AUC; None with one class."""
    names = [name.replace("youden", "own_youden") for name in RANKING]
    if not rows.both:
        return dict.fromkeys(names, UNDEFINED)
    curve = Curve.of(rows)
    values = curve.figures(np.ones((1, rows.n_groups)))[0]
    drawn = resample(rows, curve.figures, replicates, seed)
    df = clustered(count_pairs(rows.target, rows.group, rows.score[None], None))[2]
    limits = {"partial_auc_tpr80": (0.0, 1 - MIN_TPR)}
    behind = Freedom.of(rows)
    groups = [None, None, *(behind.n_malignant, behind.n_benign) * 2]
    return {
        name: figure(values[at], drawn[:, at], df, limits.get(name, (0.0, 1.0)), groups[at])
        for at, name in enumerate(names)
    }


def at_threshold(rows: Scored, threshold: float, replicates: int, seed: int) -> dict[str, Any]:
    """What calling scores at or above `threshold` malignant achieves.

    `threshold`, and as Figures `sensitivity` (None without malignant images), `specificity` (None
    without benign ones), `balanced_accuracy` (None without either), `called_malignant` (share).
    """
    called = rows.score >= threshold
    columns = [called & rows.target, rows.target, ~called & ~rows.target, ~rows.target, called]
    sums = rows.group_sums(np.stack(columns, 1).astype(float))

    def rates(weights: np.ndarray) -> np.ndarray:
        hit, malignant, passed, benign, both = (weights @ sums).T
        with np.errstate(invalid="ignore"):
            rate = [hit / malignant, passed / benign, both / (malignant + benign)]
        return np.stack([*rate[:2], (rate[0] + rate[1]) / 2, rate[2]], 1)

    values = rates(np.ones((1, rows.n_groups)))[0]
    drawn = resample(rows, rates, replicates, seed)
    behind = Freedom.of(rows)
    rarer = min(behind.malignant, behind.benign)
    of = {
        "sensitivity": (behind.malignant, behind.n_malignant),
        "specificity": (behind.benign, behind.n_benign),
        "balanced_accuracy": (rarer, behind.fewest),
        "called_malignant": (behind.all, rows.n_groups),
    }
    found = {
        name: figure(values[at], drawn[:, at], df, (0.0, 1.0), groups)
        for at, (name, (df, groups)) in enumerate(of.items())
    }
    return {"threshold": float(threshold), **found}


def class_intervals(
    truth: np.ndarray,
    probabilities: np.ndarray,
    group: np.ndarray,
    names: Sequence[str],
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """Group-bootstrap Figures: `auc` by class (None where undefined), and those of
    `recall_intervals` for the most probable class.

    `truth` int [n] numbers into `names`, `probabilities` [n, k], `group` [n] patients or lesions.
    """
    how = (group, replicates, seed)
    return recall_intervals(truth, probabilities.argmax(1), *how) | {
        "auc": {
            name: _class_auc(truth == at, probabilities[:, at], *how)
            for at, name in enumerate(names)
        }
    }


def recall_intervals(
    truth: np.ndarray, called: np.ndarray, group: np.ndarray, replicates: int, seed: int
) -> dict[str, Any]:
    """Group-bootstrap Figures: `accuracy`, and `balanced_accuracy` over the classes that are there.

    `truth` and `called` int [n] classes, `group` [n] patients or lesions.
    """
    rows = Scored.of(np.zeros(len(truth)), np.zeros(len(truth)), group)
    present = np.unique(truth)
    one_hot = (truth[:, None] == present).astype(float)
    right = (called == truth)[:, None]
    sums = rows.group_sums(np.hstack([one_hot * right, one_hot]))

    def recalls(weights: np.ndarray) -> np.ndarray:
        hits, of = np.split(weights @ sums, 2, axis=1)
        with np.errstate(invalid="ignore"):
            return np.column_stack([hits / of, hits.sum(1) / of.sum(1)])

    values = recalls(np.ones((1, rows.n_groups)))[0]
    drawn = resample(rows, recalls, replicates, seed)
    freedom = [Freedom.of(Scored.of(truth == at, truth, group)) for at in present]
    fewest = min(each.n_malignant for each in freedom)
    df = _satterthwaite(np.nanvar(drawn[:, :-1], axis=0), [each.malignant for each in freedom])
    means, mean = drawn[:, :-1].mean(1), float(values[:-1].mean())
    return {
        "balanced_accuracy": figure(mean, means, df, (0.0, 1.0), fewest),
        "accuracy": figure(values[-1], drawn[:, -1], freedom[0].all, (0.0, 1.0), rows.n_groups),
    }


def _satterthwaite(variances: np.ndarray, freedom: list[float]) -> float:
    """Degrees of freedom of a sum of parts; 0, not known, where a part has none."""
    if min(freedom) <= 0:
        return 0.0
    spread = (variances**2 / freedom).sum()
    return float(variances.sum() ** 2 / spread) if spread > 0 else float(min(freedom))


def _class_auc(
    target: np.ndarray, score: np.ndarray, group: np.ndarray, replicates: int, seed: int
) -> Figure:
    return auc_figure(Scored.of(target, score, group), replicates, seed)


# --- resampling ----------------------------------------------------------------------------------


def resample(
    rows: Scored, statistic: Callable[[np.ndarray], np.ndarray], replicates: int, seed: int
) -> np.ndarray:
    """`statistic` (group weights [b, groups] to [b, k]) of resamples: float64 [replicates, k]."""
    step = max(1, BLOCK // max(1, len(rows.target)))
    return np.concatenate(
        [
            statistic(weights[at : at + step].astype(np.float64))
            for weights in group_draws(rows.n_groups, replicates, seed)
            for at in range(0, len(weights), step)
        ]
    )


def figure(
    value: float, drawn: np.ndarray, df: float, limits: tuple[float, float], groups: int | None
) -> Figure:
    """A value with its interval from resamples `drawn` [replicates], NaN where undefined.

    `df` degrees of freedom of the widened levels (0: nothing is known but the `limits`). Where the
    value lies at a limit and all resamples agree, a bootstrap is blind: the bound is then the exact
    binomial one (Clopper and Pearson 1934) on so many `groups`, or None where there is none.
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


@dataclass(frozen=True)
class Curve:
    """Images by falling score, to draw curves under many sets of weights from one sort."""

    malignant: np.ndarray  # bool [n], in that order
    group: np.ndarray  # int64 [n]
    ends: np.ndarray  # int64: last image of each distinct score

    @staticmethod
    def of(rows: Scored) -> "Curve":
        order = np.argsort(-rows.score, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(rows.score[order]) != 0, True))
        return Curve(rows.target[order], rows.group[order], ends)

    def figures(self, weights: np.ndarray) -> np.ndarray:
        """RANKING under group weights [b, groups]: [b, 6], NaN where a class has no weight."""
        images = weights[:, self.group]
        hits = np.cumsum(images * self.malignant, axis=1)[:, self.ends]
        alarms = np.cumsum(images * ~self.malignant, axis=1)[:, self.ends]
        precision = np.divide(hits, hits + alarms, out=np.zeros_like(hits), where=hits > 0)
        start = np.zeros((len(weights), 1))
        with np.errstate(invalid="ignore"):
            tpr = np.hstack([start, hits / hits[:, -1:]])
            fpr = np.hstack([start, alarms / alarms[:, -1:]])
        best = np.argmax((tpr - fpr)[:, 1:], axis=1) + 1  # as metrics.best_threshold
        each = np.arange(len(weights))
        columns = [
            (np.diff(tpr, axis=1) * precision).sum(1),
            _area_above(fpr, tpr),
            np.where(fpr <= 1 - TARGET + SLACK, tpr, 0).max(1),
            1 - np.where(tpr >= TARGET - SLACK, fpr, 1).min(1),
            tpr[each, best],
            1 - fpr[each, best],
        ]
        found = np.stack(columns, 1)
        found[(hits[:, -1] == 0) | (alarms[:, -1] == 0)] = np.nan
        return found


def _area_above(fpr: np.ndarray, tpr: np.ndarray) -> np.ndarray:
    """Area between ROC curves [b, points] and the line TPR = MIN_TPR: [b], 0 .. 0.2 (ISIC 2024)."""
    above = np.maximum(tpr - MIN_TPR, 0)
    rise, width = np.diff(tpr, axis=1), np.diff(fpr, axis=1)
    # of a rising segment, only the piece above the line counts: a triangle or a trapezium
    lifted = np.diff(above**2, axis=1)
    height = np.divide(lifted, 2 * rise, out=above[:, :-1].copy(), where=rise > 0)
    return (width * height).sum(1)


def notes(rows: Scored) -> list[str]:
    """What a reader must know before trusting the figures of a part, in sentences."""
    behind, found = Freedom.of(rows), []
    if not rows.both:
        only = "malignant" if rows.target.any() else "benign"
        found.append(
            f"Only {only} images: AUC, average precision and all that needs both is undefined."
        )
    elif behind.fewest < FEW_GROUPS:
        rarer = "malignant" if behind.n_malignant == behind.fewest else "benign"
        found.append(
            f"Only {behind.fewest} {rarer} patients or lesions: with fewer than {FEW_GROUPS} the "
            "intervals are themselves unsure."
        )
    return found
