"""Did the arm beat its reference on the same real test images, and can one tell?

One comparison has a difference with intervals; the comparisons of an experiment together have
verdicts, because each is judged in its family. Reasons: docs/guides/statistics.md; measured error
rates: docs/measurements/statistics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experiments.statistics.curves import ALPHA, delong
from experiments.statistics.families import Family, family_of, holm, worst_level
from experiments.statistics.intervals import Spread
from experiments.statistics.power import Detectable, detectable
from experiments.statistics.resamples import Resamples
from experiments.statistics.trainings import Images, Trainings, from_cubes
from experiments.statistics.variance import Estimate, estimate, strata

FEW_GROUPS = 10  # malignant groups; with fewer the error rates were not measured
LEAST_GENERATOR_DF = 2  # three generators of one fold, or two of each of two folds

Scope = Literal["arms", "pool", "method"]
Row = dict[str, Any]  # of comparisons.json


@dataclass(frozen=True)
class Names:
    """What is compared."""

    arm: str
    reference: str
    test_set: str

    def __str__(self) -> str:
        return f"{self.arm} against {self.reference} on {self.test_set}"


@dataclass(frozen=True)
class Difference:
    """An arm against its reference on one test set, before the other comparisons are known."""

    names: Names
    folds: list[Trainings]  # empty: no training of the arm has one of the reference beside it
    scope: Scope
    margin: float
    left_out: int  # planned pairs of trainings that are not there
    folds_left_out: list[int]
    found: Estimate | None
    spread: Spread | None
    models: Spread | None  # given the trained models

    @property
    def why_undecidable(self) -> str | None:
        """Why no verdict is possible, whatever the other comparisons; None where one is."""
        if self.found is None:
            return "no fold has test images of both classes and finished trainings of both arms"
        if self.found.variance.groups.df <= 0:
            return "fewer than two patients or lesions of one of the targets were tested"
        if self.found.variance.seeds is None:
            return "one classifier seed: how much trainings vary is not known"
        return None

    def visible(self, alpha: float) -> Detectable:
        """The smallest differences that a test at `alpha` sees."""
        if self.found is None or self.why_undecidable:
            return Detectable(None, None)
        return detectable(self.folds, self.found, alpha)


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
) -> Row:
    """A row of comparisons.json: one comparison on its own, of models that one fold trained.

    AUCs of single trainings are averaged, never scores: an average of scores is another, better
    classifier than the one that a user trains. Several GAN seeds make the arm an arm with
    generators. Floats are finite; what is undefined is None. Raises UserError where a class is
    missing, a score is not finite, or shapes do not fit.

    Parameters
    ----------
    arm, reference, test_set : names, for the row
    target : uint8 or bool [n], 1 for malignant
    scores_arm, scores_reference : float [GAN seeds, classifier seeds, n] of the same images,
        classifier seeds in the same order; an arm without synthetic images has one "GAN seed" and
        meets each of the other's
    group : [n], any sortable type; images of one value are dependent
    margin : AUC; a difference below it counts as none
    replicates, seed : of the group bootstrap
    """
    names = Names(arm, reference, test_set)
    images = Images.of(target, group, str(names))
    folds = [from_cubes(images, scores_arm, scores_reference, str(names))]
    made = max(len(scores_arm), len(scores_reference)) > 1
    return finish([difference(names, folds, made, margin, Resamples(replicates, seed))])[0]


def difference(
    names: Names,
    folds: Sequence[Trainings],
    synthetic: bool,
    margin: float,
    resamples: Resamples,
    left_out: int = 0,
    folds_left_out: Sequence[int] = (),
) -> Difference:
    """An arm against its reference on one test set.

    Parameters
    ----------
    names : of what is compared
    folds : trainings by fold, those that have a pair
    synthetic : whether the arms differ in synthetic images, so that generators matter
    margin : AUC, fixed beforehand
    resamples : of groups, shared by comparisons
    left_out : planned pairs of trainings that are not there
    folds_left_out : folds without a pair, or without an AUC
    """
    gan_df = sum(fold.n_gans - 1 for fold in folds)
    scope: Scope = "arms"
    if synthetic:
        scope = "method" if gan_df >= LEAST_GENERATOR_DF else "pool"
    found, spread, models = None, None, None
    if folds:
        found = estimate(folds, count_gans=scope == "method")
        if found.variance.groups.df > 0:
            drawn = resamples.differences(folds)
            spread = Spread.of(found, drawn)
            models = Spread.of(found, drawn, models_only=True)
    return Difference(
        names,
        list(folds),
        scope,
        margin,
        left_out,
        list(folds_left_out),
        found,
        spread,
        models,
    )


def finish(compared: Sequence[Difference]) -> list[Row]:
    """Rows of comparisons.json, in the order given: each judged in its family.

    The first comparison on the first test set is primary and tested alone; so is the first one on
    the first external set. Holm's adjustment goes over the others of either kind.
    """
    families = family_of([one.names.test_set for one in compared])
    p_values = [
        one.spread.p() if one.spread and one.why_undecidable is None else None for one in compared
    ]
    rows: list[Row] = [{} for _ in compared]
    for family in dict.fromkeys(families):
        members = [place for place, name in enumerate(families) if name == family]
        known = [p_values[place] for place in members if p_values[place] is not None]
        adjusted = iter(holm(known))  # type: ignore[arg-type]
        for place in members:
            p = p_values[place]
            rows[place] = _row(
                compared[place],
                family,
                p,
                None if p is None else next(adjusted),
                worst_level(family, len(known)),
            )
    return rows


def verdict(delta: float, p_holm: float, ci90_low: float, ci90_high: float, margin: float) -> str:
    """`equivalent`, `helps`, `hurts` or `inconclusive`, looked for in this order.

    Two one-sided tests at 5% (the 90% interval within +-margin) say that the difference is too
    small to matter. That stays the answer where a large test set makes it significant as well.

    Parameters
    ----------
    delta : difference in AUC, arm less reference
    p_holm : two-sided p, adjusted within its family
    ci90_low, ci90_high : 90% interval of the difference
    margin : AUC, fixed beforehand
    """
    if -margin < ci90_low and ci90_high < margin:
        return "equivalent"
    if p_holm < ALPHA and delta != 0:
        return "helps" if delta > 0 else "hurts"
    return "inconclusive"


# --- a row ----------------------------------------------------------------------------------------


def _row(
    one: Difference, family: Family, p: float | None, p_holm: float | None, level: float
) -> Row:
    """A row of comparisons.json. `level`: the least level at which its family may test it."""
    names, reason = one.names, one.why_undecidable
    low, high, low90, high90, word = None, None, None, None, "undecidable"
    visible = one.visible(level)
    if reason is None and one.found is not None and one.spread is not None:
        (low, high), (low90, high90) = one.spread.interval(ALPHA), one.spread.interval(2 * ALPHA)
        assert p_holm is not None
        word = verdict(one.found.delta, p_holm, low90, high90, one.margin)
        if word == "inconclusive" and visible.helps is None and visible.hurts is None:
            reason = "no AUC differs from the reference's by as much as would be significant"
            word = "undecidable"
    return {
        "arm": names.arm,
        "reference": names.reference,
        "test_set": names.test_set,
        "family": family,
        "scope": one.scope,
        **_estimate_fields(one),
        "ci_low": low,
        "ci_high": high,
        "ci90_low": low90,
        "ci90_high": high90,
        "p": p,
        "p_holm": p_holm,
        "mde": visible.either,
        "mde_helps": visible.helps,
        "mde_hurts": visible.hurts,
        "mde_level": level,
        "verdict": word,
        "why_undecidable": reason,
        "margin": one.margin,
        **_counts(one),
        "note": _note(one),
    }


def _estimate_fields(one: Difference) -> Row:
    """What is known of the difference given the models, and its parts of variance."""
    found, models = one.found, one.models
    parts = {"groups": None, "seeds": None, "gans": None}
    if found is not None:
        variance = found.variance
        parts = {"groups": variance.groups, "seeds": variance.seeds, "gans": variance.gans}  # type: ignore[dict-item]
    low, high = models.interval(ALPHA) if models else (None, None)
    return {
        "auc_arm": found.auc_arm if found else None,
        "auc_reference": found.auc_reference if found else None,
        "delta_auc": found.delta if found else None,
        "ci_low_models": low,
        "ci_high_models": high,
        "p_models": models.p() if models else None,
        "p_delong": delong(one.folds) if one.folds else None,
        **{f"se_{name}": part and float(np.sqrt(part.variance)) for name, part in parts.items()},
        **{f"df_{name}": part and part.df for name, part in parts.items()},
        "se_crossed": found and float(np.sqrt(found.variance.crossed)),
        "trainings": _trainings(one),
    }


def _trainings(one: Difference) -> list[Row]:
    """The difference of each pair of trainings, for the figure."""
    if one.found is None:
        return []
    return [
        {
            "fold": fold.fold,
            "seed": int(seed),
            "gan_seed": int(gan) if gan >= 0 else None,
            "delta_auc": float(value),
        }
        for fold, values in zip(one.folds, one.found.differences, strict=True)
        for seed, gan, value in zip(fold.seed, fold.gan, values, strict=True)
    ]


def _counts(one: Difference) -> Row:
    sets = [images for images, _ in strata(one.folds)]
    return {
        "n": sum(len(images.target) for images in sets),
        "n_malignant": sum(int(images.target.sum()) for images in sets),
        "n_groups": sum(images.groups.n_groups for images in sets),
        "n_malignant_groups": sum(len(images.groups.m) for images in sets),
        "n_folds": len(one.folds),
        "n_seeds": max((fold.n_seeds for fold in one.folds), default=0),
        "n_gan_seeds": max((len(set(fold.gan.tolist()) - {-1}) for fold in one.folds), default=0),
        "n_trainings": sum(len(fold.pairs) for fold in one.folds),
        "left_out": one.left_out,
        "folds_left_out": one.folds_left_out,
    }


def _note(one: Difference) -> str | None:
    """What a reader must know before trusting the row."""
    said = []
    if one.folds_left_out:
        folds = ", ".join(map(str, one.folds_left_out))
        said.append(f"Fold {folds} left out: nothing there can be compared.")
    if one.left_out:
        said.append(f"{one.left_out} planned pairs of trainings are missing and left out.")
    sets = [images.groups for images, _ in strata(one.folds)]
    malignant = sum(len(groups.m) for groups in sets)
    benign = sum(len(groups.n) for groups in sets)
    count = min(malignant, benign)
    if sets and count < FEW_GROUPS:
        rarer = 1 if count == malignant else 0
        said.append(
            f"Only {count} patients or lesions of target {rarer}: with fewer than {FEW_GROUPS} the "
            "interval is itself unsure."
        )
    return " ".join(said) or None
