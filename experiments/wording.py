"""The verdict and the power of a design in plain words, for the screen and the report alike."""

import math
from collections.abc import Sequence
from typing import Any

from dermsynth.errors import some

CONTROL = "real_oversampled"  # the arm, or the start of its name
VERBS = {
    "helps": "helped",
    "hurts": "hurt",
    "equivalent": "made no difference that matters",
    "inconclusive": "did not measurably help",
}
AGAINST_DUPLICATES = {  # what the control found, what it means where the arm beat `real`
    "helps": ("better than duplicates", "so class counts alone do not explain the gain"),
    "hurts": ("worse than duplicates", "which would have been the better choice"),
    "equivalent": ("as good as duplicates", "which come for free"),
    "inconclusive": (
        "not measurably different from duplicates",
        "so class counts alone may explain the gain",
    ),
}


def summary(comparisons: Sequence[dict[str, Any]], leaky: Sequence[str] = ()) -> list[str]:
    """The verdict as plain sentences: those that the screen and the report's head show.

    `comparisons`: comparisons.json, the primary one first. `leaky`: arms with a leaky trial. The
    first sentence is the verdict (after a warning where `leaky`), then comes the control, then
    what weakens or widens the verdict: training variance, external test sets.
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
    sentences.append(_verdict(primary))
    if primary["arm"].startswith("synthetic") and primary["reference"] != CONTROL:
        sentences.append(_control(primary, comparisons))
    sentences += filter(None, [_training_doubt(primary), primary.get("note")])
    pair = (primary["arm"], primary["reference"])
    elsewhere = [c for c in comparisons[1:] if (c["arm"], c["reference"]) == pair]
    return sentences + [f"On {_test_set(c)}: {_numbers(c)} ({c['verdict']})." for c in elsewhere]


def _verdict(c: dict[str, Any]) -> str:
    subject = "Synthetic lesions" if c["arm"].startswith("synthetic") else f"The arm {c['arm']}"
    if c["arm"].startswith("synthetic_"):
        subject += f" ({c['arm']})"
    verb = VERBS[c["verdict"]]
    if c["verdict"] == "inconclusive" and c["delta_auc"] < 0:
        verb = "neither measurably helped nor hurt"
    if c["reference"] != "real":
        verb += f" against {c['reference']}"
    place = f"on {_where(c)}"
    if c["verdict"] == "inconclusive" and (c["ci_low"] > 0 or c["ci_high"] < 0):
        place += ", an interval without zero that does not stand after correction (Holm)"
    return f"{subject} {verb}: {_numbers(c)} {place}; {_reach(c)}."


def _where(c: dict[str, Any]) -> str:
    if not c.get("n"):
        return _test_set(c)
    groups = f"{c['n_groups']:,} lesion groups"
    if c["test_set"] == "test":
        return f"{c['n']:,} test images of {groups}"
    return f"{_test_set(c)} ({c['n']:,} images of {groups})"


def _reach(c: dict[str, Any]) -> str:
    if c["verdict"] == "equivalent":
        margin = f"the margin of {c['margin']:.3f}" if c.get("margin") else "the margin"
        return f"two one-sided tests place it within {margin} that was fixed beforehand"
    if not c.get("mde"):
        return "what this design could have seen is not known"
    visible = f"differences of {c['mde']:.3f} or more"
    if c["verdict"] == "inconclusive":
        return f"this design could only have seen {visible}"
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
    tail = f"{finding}, {if_gained}" if primary["verdict"] == "helps" else finding
    return f"Against as many duplicated real lesions ({c['reference']}): {_numbers(c)}, {tail}."


def _training_doubt(c: dict[str, Any]) -> str | None:
    low, high = c.get("ci_low_hierarchical"), c.get("ci_high_hierarchical")
    if c["verdict"] not in ("helps", "hurts") or low is None or high is None:
        return None
    if low > 0 or high < 0:
        return None
    return (
        f"With the variance of training included the interval is [{low:+.3f}, {high:+.3f}] and "
        "holds zero: another round of training may not repeat this."
    )


def _numbers(c: dict[str, Any]) -> str:
    return (
        f"AUC {c['auc_reference']:.3f} -> {c['auc_arm']:.3f}, "
        f"{c['delta_auc']:+.3f} [{c['ci_low']:+.3f}, {c['ci_high']:+.3f}]"
    )


def _test_set(c: dict[str, Any]) -> str:
    name = c["test_set"].replace("external/", "external ")
    return "the test part" if name == "test" else f"the {name} set"


def power(c: dict[str, Any]) -> list[str]:
    """What a comparison could have seen, and what it would take to see its margin, in words."""
    if not c.get("mde"):
        return [f"On {_test_set(c)} the smallest visible difference is not known."]
    sentences = []
    groups = c.get("n_malignant_groups")
    if groups:
        sentences.append(
            f"On {_test_set(c)}: {c['n']:,} images of {c['n_groups']:,} lesion groups, of which "
            f"{c['n_malignant']:,} images of {groups:,} groups are malignant."
        )
    sentences.append(
        f"With these, a true difference of {c['mde']:.3f} AUC is found in four of five such "
        "experiments (80% power, two-sided 5%, before Holm's correction); smaller ones less often."
    )
    margin = c.get("margin")
    if not margin or not groups:
        return sentences
    if c["mde"] <= margin:
        sentences.append(f"That is fine enough for the margin of {margin:.3f}.")
    else:
        needed = math.ceil(groups * (c["mde"] / margin) ** 2)
        sentences.append(
            f"To see differences the size of the margin ({margin:.3f}) it would take about "
            f"{needed:,} malignant groups, {needed - groups:,} more than there are: the smallest "
            "visible difference shrinks with one over the square root of their number. More "
            "training runs do not replace them."
        )
    return sentences
