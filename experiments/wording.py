"""The verdict and the power of a design in plain words, for the screen and the report alike."""

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from dermsynth.errors import counted, some

CONTROL = "real_oversampled"  # the arm, or the start of its name
VERBS = {
    "helps": "helped",
    "hurts": "hurt",
    "equivalent": "made no difference that matters",
    "inconclusive": "neither measurably helped nor hurt",
}
DECIDED = ("helps", "hurts")
DIRECTIONS = {"gain": "mde_helps", "loss": "mde_hurts"}
DRAWN = {  # by the phantom's sampler, by its quality: what made an arm's images
    "oracle": "drawn by the phantom's own sampler, a perfect generator and no GAN",
    "broken": "degraded images of the phantom's sampler, which must not help",
}
AGAINST_DUPLICATES = {  # what the control found, what it means where the arm beat `real`
    "helps": ("better than duplicates", "so class counts alone do not explain the gain"),
    "hurts": ("worse than duplicates", "which would have been the better choice"),
    "equivalent": ("as good as duplicates", "which come for free"),
    "inconclusive": (
        "not measurably different from duplicates",
        "so class counts alone may explain the gain",
    ),
    "undecidable": ("which could not be judged", "so class counts alone may explain the gain"),
}


def summary(
    comparisons: Sequence[dict[str, Any]],
    leaky: Sequence[str] = (),
    warnings: Sequence[str] = (),
    data_warnings: Sequence[str] = (),
) -> list[str]:
    """The verdict as plain sentences: those that the screen and the report's head show.

    The first sentence is the verdict and begins with its word (after a warning where `leaky`); the
    next one says what "inconclusive" means where that is the word, then what external sets say
    otherwise. Then come warnings of the data, then the control and what perfect images do, then
    what weakens or widens the verdict: what it holds for, the models alone, other external sets.

    Parameters
    ----------
    comparisons : comparisons.json, the primary one first
    leaky : arms with a leaky trial
    warnings : what is wrong with the generators, clauses without a full stop; they stand in the
        verdict's own sentence
    data_warnings : what is wrong with the data, clauses without a full stop
    """
    sentences = []
    if leaky:
        sentences.append(
            f"Not valid: trials of {some(list(leaky))} trained on synthetic images whose generator "
            "may have seen validation or test images (--allow-leakage)."
        )
    if not comparisons:
        return [*sentences, "No verdict: no two arms have finished trials to compare."]
    primary = comparisons[0]
    sentences.append("; ".join(headline(primary, warnings)) + ".")
    sentences += filter(None, [meaning(primary)])
    sentences += contradictions(comparisons)
    sentences += [f"Warning: {one}." for one in data_warnings]
    if _is_synthetic(primary) and not primary["reference"].startswith(CONTROL):
        sentences.append(_control(primary, comparisons))
    sentences += filter(None, [_perfect(primary, comparisons)])
    sentences += filter(None, [_holds_for(primary), _models_alone(primary), primary.get("note")])
    alike = (c for c in _elsewhere(comparisons) if not contradicts(c, primary))
    return sentences + [f"On {_test_set(c)}: {_numbers(c)} ({c['verdict']})." for c in alike]


def headline(c: dict[str, Any], warnings: Sequence[str] = ()) -> list[str]:
    """What came of one comparison, as clauses: the verdict with its word first, what it is about.

    Without a full stop; `warnings` as of `summary`.
    """
    beware = [f"beware: {'; '.join(warnings)}"] if warnings else []
    if c["verdict"] == "undecidable":
        about = (
            f"Undecidable: no verdict was possible for {_subject(c)} {_against(c)} on {_where(c)}"
        )
        alone = [] if c["delta_auc"] is None else [f"what was measured: {_numbers(c)}"]
        return [f"{about}: {c['why_undecidable']}", *alone, *beware]
    place = f"on {_where(c)}"
    if _fails_correction(c):
        how = "the test itself" if c["p_holm"] == c["p"] else "correction (Holm)"
        place += f", an interval without zero that does not stand after {how}"
    against = "" if c["reference"] == "real" else f" {_against(c)}"
    told = f"{c['verdict'].capitalize()}: {_subject(c)} {VERBS[c['verdict']]}{against}: "
    told = told.replace(",: ", ": ")
    return [told + f"{_numbers(c)} {place}", *filter(None, [_reach(c), _about(c)]), *beware]


def meaning(c: dict[str, Any]) -> str | None:
    """What "inconclusive" means, in one line; None where that is not the word."""
    if c["verdict"] != "inconclusive":
        return None
    seen = [
        f"a {word} of {c[key]:.3f} AUC" for word, key in DIRECTIONS.items() if c[key] is not None
    ]
    unseen = [word for word, key in DIRECTIONS.items() if c[key] is None]
    said = (
        f"{' or '.join(seen)} is found in four of five such experiments, a smaller one less often"
    )
    if unseen:
        said += f"; not even the largest possible {' or '.join(unseen)} would be"
    return f"Inconclusive means that neither an effect nor its absence was shown: {said}."


def contradictions(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """Differences on external sets that are not the verdict's: not to be quoted apart."""
    return [
        f"But it {c['verdict']} on {_test_set(c)}: {_numbers(c)}."
        for c in _elsewhere(comparisons)
        if contradicts(c, comparisons[0])
    ]


def contradicts(c: dict[str, Any], primary: dict[str, Any]) -> bool:
    """Whether a difference was found that is not the one of the verdict."""
    return c["verdict"] in DECIDED and c["verdict"] != primary["verdict"]


def _elsewhere(comparisons: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The primary pair of arms on external sets."""
    pair = itemgetter("arm", "reference")
    return [c for c in comparisons[1:] if pair(c) == pair(comparisons[0])]


def _fails_correction(c: dict[str, Any]) -> bool:
    """Whether the interval is without zero and the corrected test finds no difference."""
    return c["verdict"] == "inconclusive" and (c["ci_low"] > 0 or c["ci_high"] < 0)


def short_verdict(c: dict[str, Any]) -> str:
    """The word beside an interval, and why it is "inconclusive" where that is without zero."""
    if not _fails_correction(c):
        return c["verdict"]
    return f"{c['verdict']} {'by its test' if c['p_holm'] == c['p'] else 'after Holm'}"


def _is_synthetic(c: dict[str, Any]) -> bool:
    return bool(c.get("made_by")) or c["arm"].startswith("synthetic")


def _subject(c: dict[str, Any]) -> str:
    """The arm, what made its synthetic images, and whether these failed the quality gate."""
    if not _is_synthetic(c):
        return f"the arm {c['arm']}"
    lesions = "these synthetic lesions" if c["scope"] == "pool" else "synthetic lesions"
    named = [] if c["arm"] == "synthetic" else [c["arm"]]
    made = [c["made_by"]] if c.get("made_by") else []
    about = f" ({', '.join([*named, *made])})" if named or made else ""
    return lesions + about + _faults(c.get("gate_failed"))


def _against(c: dict[str, Any]) -> str:
    made = f" ({c['reference_made_by']})" if c.get("reference_made_by") else ""
    return f"against {c['reference']}{made}{_faults(c.get('reference_gate_failed'))}"


def _faults(codes: Sequence[str] | None) -> str:
    return f", which failed the quality gate ({', '.join(codes)})," if codes else ""


def _about(c: dict[str, Any]) -> str:
    """What the word is about, with what was tried."""
    a_fold = " a fold" if c["n_folds"] > 1 else ""
    seeds = f"{counted(c['n_seeds'], 'classifier seed')}{a_fold}"
    if c["scope"] == "method":
        return f"this is about the method: {c['n_gan_seeds']} generators and {seeds} were tried"
    if c["scope"] == "arms":
        return f"{seeds} were tried"
    pools = c["n_gan_seeds"] * c["n_folds"]
    if pools <= 1:
        return f"this is about this one pool of images and {seeds}: another generator was not tried"
    return (
        f"this is about these {pools} pools of images and {seeds}: from {c['n_gan_seeds']} a fold "
        "it is not known how generators vary, so another one may do otherwise"
    )


def _where(c: dict[str, Any]) -> str:
    if not c.get("n"):
        return _test_set(c)
    groups = counted(c["n_groups"], "lesion group")
    if c["test_set"] == "test":
        return f"{c['n']:,} test images of {groups}"
    return f"{_test_set(c)} ({c['n']:,} images of {groups})"


def _reach(c: dict[str, Any]) -> str | None:
    """How fine the design is; of an inconclusive one `meaning` says it."""
    if c["verdict"] == "inconclusive":
        return None
    if c["verdict"] == "equivalent":
        margin = f"the margin of {c['margin']:.3f}"
        return f"two one-sided tests place it within {margin} that was fixed beforehand"
    if c["mde"] is None:
        unseen = [word for word, key in DIRECTIONS.items() if c[key] is None]
        return f"not even the largest possible {' or '.join(unseen)} would be seen reliably"
    visible = f"differences of {c['mde']:.3f} or more"
    if abs(c["delta_auc"]) < c["mde"]:
        return f"this design reliably sees only {visible}, so the size may be overstated"
    return f"this design could have seen {visible}"


def _control(primary: dict[str, Any], comparisons: Sequence[dict[str, Any]]) -> str:
    wanted = (primary["arm"], primary["test_set"])
    rows = [c for c in comparisons if (c["arm"], c["test_set"]) == wanted]
    rows = [c for c in rows if c["reference"].startswith(CONTROL)]
    if not rows:
        return (
            "There was no control of duplicated real images, so any gain could come from class "
            "counts alone."
        )
    c = rows[0]
    finding, if_gained = AGAINST_DUPLICATES[c["verdict"]]
    if _fails_correction(c):
        finding = (
            f"{'better' if c['delta_auc'] > 0 else 'worse'} than duplicates by an interval without "
            f"zero, which does not stand after correction (Holm: p {_p(c['p'])}, corrected "
            f"{_p(c['p_holm'])})"
        )
    tail = f"{finding}, {if_gained}" if primary["verdict"] == "helps" else finding
    return f"Against as many duplicated real lesions ({c['reference']}): {_numbers(c)}, {tail}."


def _perfect(primary: dict[str, Any], comparisons: Sequence[dict[str, Any]]) -> str | None:
    """What images that no generator can better do in their place, where the phantom draws them."""
    alike = [primary[key] for key in ("reference", "test_set")]
    rows = [c for c in comparisons[1:] if [c["reference"], c["test_set"]] == alike]
    rows = [c for c in rows if c.get("made_by") == DRAWN["oracle"] and c["delta_auc"] is not None]
    if not rows:
        return None
    c = rows[0]
    told = f"Perfect lesions in their place ({c['arm']}, {c['made_by']}): {_numbers(c)} "
    told += f"({c['verdict']})"
    if c["verdict"] == "inconclusive":
        return f"{told}: not even these were seen to help, so no generator can be judged by it."
    if c["verdict"] == "helps" != primary["verdict"]:
        return f"{told}: there is a gain to be had, and these images were not seen to bring it."
    return f"{told}."


def _holds_for(c: dict[str, Any]) -> str | None:
    """What a verdict over rotated folds may be carried over to."""
    if c["n_folds"] < 2 or c["verdict"] == "undecidable":
        return None
    generators = ", new generators" if c["scope"] == "method" else ""
    return (
        f"Every image was tested once, by models of {c['n_folds']} folds. The word holds for "
        f"training sets like these, new test patients, new seeds{generators}: training sets of "
        "folds overlap, and how much other training sets would differ cannot be estimated."
    )


def _models_alone(c: dict[str, Any]) -> str | None:
    """Where these models differ, and nothing is known of others."""
    low, high = c["ci_low_models"], c["ci_high_models"]
    if low is None or c["verdict"] not in ("inconclusive", "undecidable") or low <= 0 <= high:
        return None
    return (
        f"For these trained models alone the interval is [{low:+.3f}, {high:+.3f}], without zero: "
        "these models differ on such patients, but another round of training may not repeat it."
    )


def _numbers(c: dict[str, Any]) -> str:
    if c["delta_auc"] is None:
        return "nothing could be compared"
    total = c["ci_low"] is not None
    low, high = (c["ci_low"], c["ci_high"]) if total else (c["ci_low_models"], c["ci_high_models"])
    interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
    only = "" if total or low is None else " for these trained models"
    return (
        f"AUC {c['auc_reference']:.3f} -> {c['auc_arm']:.3f}, {c['delta_auc']:+.3f}{interval}{only}"
    )


def _p(value: float | None) -> str:
    if value is None:
        return "unknown"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _test_set(c: dict[str, Any]) -> str:
    name = c["test_set"].replace("external/", "external ")
    return "the test part" if name == "test" else f"the {name} set"


def power(c: dict[str, Any], one: str = "malignant") -> list[str]:
    """What a comparison could have seen, and what it would take to see its margin, in words.

    `one`: what target 1 means.
    """
    if not c["mde"]:
        return [f"On {_test_set(c)} the smallest visible difference is not known."]
    groups = c["n_malignant_groups"]
    level = f"{100 * c['mde_level']:.3g}%"
    sentences = [
        f"On {_test_set(c)}: {c['n']:,} images of {c['n_groups']:,} lesion groups, of which "
        f"{c['n_malignant']:,} images of {groups:,} groups are {one}.",
        f"With these and {counted(c['n_trainings'], 'pair')} of trainings, a gain of "
        f"{c['mde_helps']:.3f} AUC or a loss of {c['mde_hurts']:.3f} is found in four of five such "
        f"experiments (80% power, two-sided {level}, all that varies counted); smaller ones less "
        "often.",
    ]
    margin = c["margin"]
    if c["mde"] <= margin:
        return [*sentences, f"That is fine enough for the margin of {margin:.3f}."]
    return [*sentences, _what_it_takes(c, groups, margin, one)]


def _what_it_takes(c: dict[str, Any], groups: int, margin: float, one: str) -> str:
    """How many groups of target 1 would show the margin, or that trainings must be more as well."""
    trained = math.hypot(c["se_seeds"] or 0.0, c["se_gans"] or 0.0)
    factor = c["mde"] / math.hypot(c["se_groups"], trained)
    left = (margin / factor) ** 2 - trained**2
    if left <= 0:
        return (
            f"To see differences the size of the margin ({margin:.3f}) more test images alone do "
            "not suffice: trainings vary too much, and it takes more seeds or generators."
        )
    needed = math.ceil(groups * c["se_groups"] ** 2 / left)
    return (
        f"To see differences the size of the margin ({margin:.3f}) it would take about {needed:,} "
        f"{one} groups, {needed - groups:,} more than there are, with as many trainings."
    )
