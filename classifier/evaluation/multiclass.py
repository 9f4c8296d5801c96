"""Figures of a classifier of several diagnoses. What a set leaves undefined is None, never 0."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from classifier.evaluation import intervals
from classifier.evaluation.intervals import Figure, Freedom, Resampling, Scored
from dermsynth.errors import UserError, counted

TOLERANCE = 1e-3  # by which probabilities may miss a sum of 1


@dataclass(frozen=True)
class ScoredClasses:
    """Images of known diagnosis with the probability of each class."""

    names: Sequence[str]
    truth: np.ndarray  # int64 [n], numbers of names
    probabilities: np.ndarray  # float64 [n, k]
    group: np.ndarray  # [n], patients or lesions


def measure_classes(
    diagnosis: object, probabilities: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """How well `probabilities` float64 [n, k], columns `names`, tell the true `diagnosis` [n].

    `macro_auc` (mean over classes, each against the rest), `macro_average_precision`,
    `balanced_accuracy` (mean recall), `accuracy` of the most probable class, `classes`: by name
    `n, auc, average_precision, recall`; `confusion`: `counts` [k, k], true classes in rows, and
    `rates`, each row divided by its sum.

    A class without images is in `absent`, has None for figures and stays out of the means; AUC and
    AP are None as well where there is no other class. Images whose diagnosis is none of `names`
    are left out and counted by name in `left_out`. Raises UserError where shapes do not fit or
    probabilities are not finite, not in 0..1, or do not sum to 1.
    """
    names = list(names)
    words = np.asarray(diagnosis, dtype=object)
    _check(words, probabilities, names)
    known = np.isin(words.astype(str), names)
    truth = class_numbers(words[known], names)
    p = probabilities[known]
    classes = {name: _figures(truth == at, p[:, at]) for at, name in enumerate(names)}
    counts = confusion_matrix(truth, p.argmax(1), labels=range(len(names))) if len(p) else None
    for at, name in enumerate(names):
        n = classes[name]["n"]
        classes[name]["recall"] = float(counts[at, at] / n) if n else None
    left = [str(word) for word in words[~known]]
    return {
        "n": len(truth),
        "macro_auc": _mean(classes, "auc"),
        "macro_average_precision": _mean(classes, "average_precision"),
        "balanced_accuracy": _mean(classes, "recall"),
        "accuracy": float((p.argmax(1) == truth).mean()) if len(p) else None,
        "classes": classes,
        "confusion": {
            "names": names,
            "counts": counts.tolist() if len(p) else [[0] * len(names) for _ in names],
            "rates": [
                (counts[at] / counts[at].sum()).tolist() if classes[name]["n"] else None
                for at, name in enumerate(names)
            ],
        },
        "absent": [name for name in names if not classes[name]["n"]],
        "left_out": {word: left.count(word) for word in sorted(set(left))},
    }


def equal_prior(probabilities: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Probabilities float64 [n, k], as if all classes were equally common.

    Each class's is divided by `common` [k], its mean over validation images, and each image's are
    brought to a sum of 1 again (Saerens et al. 2002). Calling the class that is then the most
    probable makes the most of balanced accuracy instead of accuracy (Menon et al. 2021).
    """
    weighed = probabilities / np.maximum(common, np.finfo(np.float64).tiny)
    return weighed / weighed.sum(1, keepdims=True)


def class_numbers(diagnosis: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """int64 [n]: the place in `names` of each diagnosis, all of which must be there."""
    place = {name: at for at, name in enumerate(names)}
    return np.array([place[str(word)] for word in diagnosis], np.int64)


def one_against_rest(target: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    """AUC and average precision of `target` 0/1 [n]; None where all images are alike."""
    both = 0 < target.sum() < len(target)
    return {
        "auc": float(roc_auc_score(target, score)) if both else None,
        "average_precision": float(average_precision_score(target, score)) if both else None,
    }


# --- intervals -----------------------------------------------------------------------------------


def class_intervals(classes: ScoredClasses, resampling: Resampling) -> dict[str, Any]:
    """Figures over groups: `auc` by class, and `recall_intervals` of the most probable class."""
    called = classes.probabilities.argmax(1)
    return recall_intervals(classes.truth, called, classes.group, resampling) | {
        "auc": {
            name: intervals.auc_figure(
                Scored.of(classes.truth == at, classes.probabilities[:, at], classes.group),
                resampling,
            )
            for at, name in enumerate(classes.names)
        }
    }


def recall_intervals(
    truth: np.ndarray, called: np.ndarray, group: np.ndarray, resampling: Resampling
) -> dict[str, Figure]:
    """Figures over groups: `accuracy`, and `balanced_accuracy` over the classes that occur.

    `truth` and `called` int [n] classes, `group` [n] patients or lesions.
    """
    rows = Scored.of(np.zeros(len(truth)), np.zeros(len(truth)), group)
    present = np.unique(truth)
    one_hot = (truth[:, None] == present).astype(float)
    right = (called == truth)[:, None]
    sums = rows.group_sums(np.hstack([one_hot * right, one_hot]))

    def recalls(weights: np.ndarray) -> np.ndarray:
        hits, images = np.split(weights @ sums, 2, axis=1)
        with np.errstate(invalid="ignore"):
            return np.column_stack([hits / images, hits.sum(1) / images.sum(1)])

    values, drawn = intervals.resample(rows, recalls, resampling)
    freedom = [Freedom.of(Scored.of(truth == at, truth, group)) for at in present]
    fewest = min(class_freedom.n_malignant for class_freedom in freedom)
    df = _satterthwaite(
        np.nanvar(drawn[:, :-1], axis=0), [class_freedom.malignant for class_freedom in freedom]
    )
    means, mean = drawn[:, :-1].mean(1), float(values[:-1].mean())
    return {
        "balanced_accuracy": intervals.figure(mean, means, df, groups=fewest),
        "accuracy": intervals.figure(
            values[-1], drawn[:, -1], freedom[0].all, groups=rows.n_groups
        ),
    }


def _satterthwaite(variances: np.ndarray, freedom: list[float]) -> float:
    """Degrees of freedom of a sum of parts; 0, not known, where a part has none."""
    if min(freedom) <= 0:
        return 0.0
    spread = (variances**2 / freedom).sum()
    return float(variances.sum() ** 2 / spread) if spread > 0 else float(min(freedom))


# --- parts of the above --------------------------------------------------------------------------


def _figures(target: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    return {"n": int(target.sum()), **one_against_rest(target, score)}


def _mean(classes: dict[str, dict[str, Any]], key: str) -> float | None:
    known = [figures[key] for figures in classes.values() if figures[key] is not None]
    return float(np.mean(known)) if known else None


def _check(diagnosis: np.ndarray, probabilities: np.ndarray, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise UserError(f"classes {', '.join(names)}: a name is there twice")
    if probabilities.shape != (len(diagnosis), len(names)):
        raise UserError(
            f"probabilities of shape {list(probabilities.shape)} for {len(diagnosis)} images and "
            f"{len(names)} classes; expected [{len(diagnosis)}, {len(names)}]"
        )
    bad = ~np.isfinite(probabilities) | (probabilities < 0) | (probabilities > 1)
    bad = bad.any(1) | ~(np.abs(probabilities.sum(1) - 1) < TOLERANCE)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"probabilities of {counted(int(bad.sum()), 'image')} outside 0..1, or of another sum "
            f"than 1; the first is row {row}: "
            f"{', '.join(f'{value:.4g}' for value in probabilities[row])}"
        )
