"""Blends: weighted means of several models' scores, and weights of the highest AUC."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import rankdata

from classifier.evaluation.members import Member, same_rows
from dermsynth.errors import UserError, some
from dermsynth.files import sha256

UNITS = 100  # weights that are found are multiples of 1 / UNITS
STEPS = (50, 20, 10, 5, 2, 1)  # units that the search moves from one member to another
FIGURES = ("auc", "fold_auc", "fold_auc_nested", "auc_truth")  # of the blend


def mix(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean, float64 [n], of columns [n, k] by weights [k] >= 0 that are not all 0."""
    # column by column: equal rows stay equal to the last bit, so ties stay ties
    total = np.zeros(len(columns))
    for number, weight in enumerate(weights / weights.sum()):
        total += weight * columns[:, number]
    return total


def auc(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve, counted as Mann & Whitney (1947) do; None with one class."""
    positive = int(targets.sum())
    negative = len(targets) - positive
    if not positive or not negative:
        return None
    above = rankdata(scores)[targets == 1].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def fit_weights(columns: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Weights [k], >= 0, sum 1, multiples of 0.01, whose mix of columns [n, k] has the best AUC.

    AUC and not log loss: it is what blends are judged by, and it takes members as they are, while
    log loss would throw out those that are no calibrated probabilities (all that were trained with
    balanced classes). It has no gradient: from the best of each member alone and all alike, the
    search moves weight between two members, 0.01 to 0.5, whichever helps most, until none does.
    """

    def value(units: tuple[int, ...]) -> float:
        return auc(targets, mix(columns, np.array(units))) or 0.0

    k = columns.shape[1]
    alike = tuple(UNITS // k + (number < UNITS % k) for number in range(k))
    alone = [tuple(UNITS * (number == member) for number in range(k)) for member in range(k)]
    best = max([alike, *alone], key=value)
    while True:
        top = max(_moves(best), key=value, default=best)
        if value(top) <= value(best):
            return np.array(best) / UNITS
        best = top


def _moves(units: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for giver, has in enumerate(units):
        for step in sorted({min(step, has) for step in STEPS if has}):
            for taker in range(len(units)):
                if taker != giver:
                    change = {giver: -step, taker: step}
                    yield tuple(old + change.get(number, 0) for number, old in enumerate(units))


def fold_auc(
    columns: np.ndarray, targets: np.ndarray, folds: np.ndarray, weights: np.ndarray | None
) -> float | None:
    """Mean over folds of the AUC within a fold; without `weights`, by those of all other folds.

    Within, as the test part meets one set of weights, too: pooled, another scale in another fold
    would count as error. None where a fold, or the rest, has one class only.
    """
    values = []
    for fold in np.unique(folds):
        own = folds == fold
        if len(np.unique(targets[own])) < 2 or len(np.unique(targets[~own])) < 2:
            return None
        chosen = fit_weights(columns[~own], targets[~own]) if weights is None else weights
        values.append(auc(targets[own], mix(columns[own], chosen)))
    return float(np.mean(values))


def weigh(
    members: list[Member], part: str, ranks: bool, fit_on: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """The weights [k], as given or found on the part `fit_on`, and what the record says of them.

    `part` is what is blended; with `ranks`, percentiles instead of scores. Raises UserError where
    weights cannot be found, and where some members have one and others have none.
    """
    weights = None if fit_on else _given_weights(members)
    own: list[float | None] = [None] * len(members)
    whole: dict[str, float | None] = dict.fromkeys(FIGURES)
    try:
        rows, columns = same_rows(members, fit_on or "oof", ranks)
        targets, note = rows["target"].to_numpy(np.int64), None
        if weights is None:
            weights = _found_weights(members, columns, targets, fit_on)
            folds = rows["fold"].to_numpy()
            whole["fold_auc"] = fold_auc(columns, targets, folds, weights)
            whole["fold_auc_nested"] = fold_auc(columns, targets, folds, None)
        whole["auc"] = auc(targets, mix(columns, weights))
        own = [auc(targets, column) for column in columns.T]
    except UserError as error:
        if weights is None:  # given ones need no figures
            raise
        note = f"no out-of-fold figures: {error}"
    return weights, {
        "part": part,
        "of": "percentiles" if ranks else "scores",
        "weights_found_on": fit_on,
        "auc_on": fit_on or "oof",
        "note": note,
        "members": {
            member.name: {
                "file": str(member.path),
                "sha256": sha256(member.path),
                "weight": float(weight),
                "auc": value,
            }
            for member, weight, value in zip(members, weights, own, strict=True)
        },
        "blend": whole,
        "leaky": [member.name for member in members if member.leaky],
    }


def _given_weights(members: list[Member]) -> np.ndarray:
    given = [member.weight for member in members if member.weight is not None]
    if not given:
        return np.full(len(members), 1 / len(members))
    if len(given) < len(members):
        bare = next(member.name for member in members if member.weight is None)
        raise UserError(f"--scores {bare}=...: no weight, and others have one; give all or none")
    if sum(given) == 0:
        raise UserError("--scores: the weights sum to 0; give at least one above 0")
    return np.array(given) / sum(given)


def _found_weights(
    members: list[Member], columns: np.ndarray, targets: np.ndarray, fit_on: str | None
) -> np.ndarray:
    for member in members:
        if member.weight is not None:
            raise UserError(
                f"--scores {member.name}=...:{member.weight:g}: weights are to be found; give none"
            )
    if len(members) < 2:
        raise UserError("--scores: weights are found for two members or more")
    if len(np.unique(targets)) < 2:
        raise UserError(f"--fit-on {fit_on}: its {len(targets)} images are all of one class")
    print(f"finding {len(members)} weights on the {len(targets):,} images of part {fit_on}")
    return fit_weights(columns, targets)


def screen_table(record: dict[str, Any]) -> str:
    """Weights and AUC of the members and of the blend, and what to think of them."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    whole = record["blend"]
    width = max(map(len, ["blend", *record["members"]])) + 2
    lines = [f"{'':<{width}}{'weight':>8}{'AUC, ' + record['auc_on']:>12}"]
    for name, member in record["members"].items():
        lines.append(f"{name:<{width}}{member['weight']:>8.3g}{number(member['auc']):>12}")
    lines.append(f"{'blend':<{width}}{'':>8}{number(whole['auc']):>12}")
    if record["note"]:
        lines.append(record["note"])
    if record["weights_found_on"]:
        fitted, nested = (number(whole[key]) for key in ("fold_auc", "fold_auc_nested"))
        lines.append("warning: optimistic, the weights were found on the same images")
        lines.append(
            f"AUC of a fold, mean: {fitted} by these weights, {nested} by those of the other folds"
            if whole["fold_auc"] is not None
            else "with one fold, or one class in a fold, nothing better is known"
        )
    if whole["auc_truth"] is not None:
        lines.append(f"AUC of the blend on --truth: {number(whole['auc_truth'])}")
    if record["leaky"]:
        lines.append(f"LEAKY: {some(record['leaky'])} trained with a leak; this is not a result")
    return "\n".join(lines)
