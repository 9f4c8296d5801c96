"""What a pool was worth in real lesions, read off the real-only learning curve. Exploratory.

Nested subsets of the malignant training groups are trained on with and without synthetic images,
each with a generator of its own. Between neighbouring subsets the AUC of real images alone is taken
as linear in log2 of the number of groups; the worth is where that curve reaches the AUC that the
synthetic images brought. Its interval holds every number of groups at which the two AUCs are not
significantly apart: Fieller's (1954) set for the ratio of two differences, carried from one segment
of the curve to all of them. Nothing is extrapolated: no worth beyond the largest subset, and no
fitted power law.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from dermsynth.errors import counted
from dermsynth.records import Record
from experiments.compared import FoldScores, scores_by_fold
from experiments.joint_aucs import JointAucs, joint_aucs
from experiments.nested_subsets import Subset

ALPHA = 0.05
ROUNDING = 1e-12  # of AUCs
STEPS = 2000  # of the grid on which the ends of an interval are looked for

Outcome = Literal["interpolated", "below", "beyond", "flat", "largest"]


class CurveAuc(Record):
    """AUC of an arm, mean of single trainings, with its 95% interval (None: unknown)."""

    arm: str
    auc: float
    ci_low: float | None
    ci_high: float | None


class CurvePoint(Record):
    """A subset of the curve."""

    share: float
    n_images: float
    n_groups: float
    real: CurveAuc
    synthetic: CurveAuc


class Worth(Record):
    """What the pool of one subset was worth.

    `equals` groups of real lesions alone do as well as the subset with its pool. An end that is
    None lies outside the data: below the smallest subset, or beyond the largest.
    """

    share: float
    n_groups: float
    outcome: Outcome
    equals: float | None  # None but for `interpolated`
    ci_low: float | None
    ci_high: float | None


class LearningCurve(Record):
    """AUC with and without synthetic images over subsets, and what the pools were worth."""

    test_set: str
    scope: Literal["pool", "method"]  # method: how generators vary is counted
    points: list[CurvePoint]  # the smallest subset first
    worths: list[Worth]  # one a point; the last is `largest`
    rise: float  # AUC of real images alone, largest subset less smallest
    rise_low: float | None  # 95%
    rise_high: float | None
    n_folds: int
    n_seeds: int
    n_gan_seeds: int  # generators a subset and fold; 0: none was trained here
    left_out: int  # trainings without a partner in the other arms
    arms_left_out: list[str]  # that have no finished training


# --- from scores to worths ------------------------------------------------------------------------


def learning_curve(
    predictions: pd.DataFrame, subsets: Sequence[Subset], test_set: str = "test"
) -> LearningCurve | None:
    """The curve and the worth of each subset's pool; None with fewer than two whole subsets.

    Parameters
    ----------
    predictions : PREDICTION_COLUMNS of the finished trials
    subsets : of `nested_subsets`, the smallest first
    test_set : `test`, or an external one
    """
    return curve_of(scores_by_fold(predictions, test_set), subsets, test_set)


def curve_of(
    folds: Sequence[FoldScores], subsets: Sequence[Subset], test_set: str
) -> LearningCurve | None:
    """`learning_curve` of scores by fold."""
    there = {arm for fold in folds for arm in fold.arms}
    whole = [subset for subset in subsets if there >= {subset.real, subset.synthetic}]
    named = [arm for subset in subsets for arm in (subset.real, subset.synthetic)]
    arms = [subset.real for subset in whole] + [subset.synthetic for subset in whole]
    if len(whole) < 2 or (joint := joint_aucs(folds, arms)) is None:
        return None
    count = len(whole)
    rise = np.zeros((1, 2 * count))
    rise[0, count - 1], rise[0, 0] = 1.0, -1.0
    rise_low, rise_high = _interval(joint, rise)
    return LearningCurve(
        test_set=test_set,
        scope="pool" if joint.gans is None else "method",
        points=[
            CurvePoint(
                share=subset.share,
                n_images=subset.n_images,
                n_groups=subset.n_groups,
                real=_curve_auc(joint, arms, number),
                synthetic=_curve_auc(joint, arms, count + number),
            )
            for number, subset in enumerate(whole)
        ],
        worths=_worths(whole, joint, rises=rise_low is not None and rise_low > 0),
        rise=float(rise[0] @ joint.auc),
        rise_low=rise_low,
        rise_high=rise_high,
        n_folds=joint.n_folds,
        n_seeds=joint.n_seeds,
        n_gan_seeds=joint.n_gans,
        left_out=joint.left_out,
        arms_left_out=[arm for arm in named if arm not in arms],
    )


def _interval(joint: JointAucs, contrast: np.ndarray) -> tuple[float | None, float | None]:
    """95%, of a contrast [1, arms]."""
    middle, reach = float(contrast[0] @ joint.auc), float(joint.reach(contrast, ALPHA)[0])
    return (middle - reach, middle + reach) if np.isfinite(reach) else (None, None)


def _curve_auc(joint: JointAucs, arms: Sequence[str], number: int) -> CurveAuc:
    low, high = _interval(joint, np.eye(len(arms))[[number]])
    return CurveAuc(
        arm=arms[number],
        auc=float(joint.auc[number]),
        ci_low=None if low is None else max(0.0, low),
        ci_high=None if high is None else min(1.0, high),
    )


def _worths(subsets: Sequence[Subset], joint: JointAucs, rises: bool) -> list[Worth]:
    """What each subset's pool was worth; `joint`: all real arms, then all synthetic ones.

    Contrasts are the AUC with the pool less that of the real curve at every place of a fine grid.
    """
    nodes = np.log2([subset.n_groups for subset in subsets])
    at = np.union1d(np.linspace(nodes[0], nodes[-1], STEPS), nodes)
    curve = np.stack([np.interp(at, nodes, unit) for unit in np.eye(len(nodes))], axis=1)
    worths = []
    for number, subset in enumerate(subsets):
        outcome: Outcome
        equals = low = high = None
        if number == len(subsets) - 1:
            outcome = "largest"
        elif not rises:
            outcome = "flat"
        else:
            with_pool = np.tile(np.eye(len(nodes))[number], (len(at), 1))
            contrasts = np.hstack([-curve, with_pool])
            above, reach = contrasts @ joint.auc, joint.reach(contrasts, ALPHA)
            outcome, equals = _crossing(at, above)
            low, high = _fieller(at, above, reach)
        worths.append(
            Worth(
                share=subset.share,
                n_groups=subset.n_groups,
                outcome=outcome,
                equals=equals,
                ci_low=low,
                ci_high=high,
            )
        )
    return worths


def _crossing(at: np.ndarray, above: np.ndarray) -> tuple[Outcome, float | None]:
    """Where the real curve first reaches the AUC with the pool, in groups.

    Parameters
    ----------
    at : float64 [k], log2 of numbers of groups, ascending
    above : float64 [k], AUC with the pool less that of real images alone
    """
    if abs(above[0]) < ROUNDING:
        return "interpolated", float(2 ** at[0])
    if above[0] < 0:
        return "below", None
    if (above > ROUNDING).all():
        return "beyond", None
    place = _first_fall(at, above)
    assert place is not None
    return "interpolated", float(2**place)


def _fieller(
    at: np.ndarray, above: np.ndarray, reach: np.ndarray
) -> tuple[float | None, float | None]:
    """The smallest and largest number of groups that the AUC with the pool may equal.

    An end is known where that AUC is significantly above the curve's first point, or below its
    last one; that the curve falls nowhere outside the data is taken for granted. `reach`: [k], of
    the 95% intervals of `above`.
    """
    low = _first_fall(at, above - reach)
    high = _first_fall(at[::-1], (-above - reach)[::-1])
    return None if low is None else 2**low, None if high is None else 2**high


def _first_fall(at: np.ndarray, values: np.ndarray) -> float | None:
    """Where values, positive at first, fall to 0, else the end; None if not positive at first."""
    if values[0] <= ROUNDING:
        return None
    below = np.flatnonzero(values <= ROUNDING)
    if len(below) == 0:
        return float(at[-1])
    after = below[0]
    part = values[after - 1] / (values[after - 1] - values[after])
    return float(at[after - 1] + part * (at[after] - at[after - 1]))


# --- in words -------------------------------------------------------------------------------------


def curve_sentences(curve: LearningCurve, one: str = "malignant") -> list[str]:
    """The curve in plain sentences: what each pool was worth, and what that rests on.

    `one`: what target 1 means.
    """
    first, last = curve.points[0], curve.points[-1]
    where = "the test part" if curve.test_set == "test" else curve.test_set.replace("/", " set ")
    sentences = [
        "Exploratory: what the synthetic lesions were worth in real ones, on "
        f"{where}, read off the curve of real images alone between nested subsets of "
        f"{first.n_groups:.0f} to {last.n_groups:.0f} {one} lesion groups."
    ]
    if any(worth.outcome == "flat" for worth in curve.worths):
        sentences.append(_flat(curve))
    else:
        sentences += [_worth_sentence(worth, curve) for worth in curve.worths]
    sentences.append(_rests_on(curve))
    if curve.left_out or curve.arms_left_out:
        arms = f", and the arms {', '.join(curve.arms_left_out)}" if curve.arms_left_out else ""
        sentences.append(
            f"Left out: {counted(curve.left_out, 'training')} without a partner{arms}."
        )
    return sentences


def _flat(curve: LearningCurve) -> str:
    sizes = f"{curve.points[0].n_groups:.0f} to {curve.points[-1].n_groups:.0f}"
    if curve.rise_low is None:
        return "What the pools were worth cannot be told: too few groups were tested on."
    return (
        f"What the pools were worth cannot be told: from {sizes} groups the AUC of real images "
        f"alone moved by {curve.rise:+.3f} [{curve.rise_low:+.3f}, {curve.rise_high:+.3f}], which "
        "is no rise that can be told from a flat curve, so that Fieller's interval has no end."
    )


def _worth_sentence(worth: Worth, curve: LearningCurve) -> str:
    n, least, most = worth.n_groups, curve.points[0].n_groups, curve.points[-1].n_groups
    start = f"At {100 * worth.share:g}% ({n:.0f} groups)"
    if worth.outcome == "largest":
        return (
            f"{start} the curve of real images ends: what the pool was worth there lies beyond "
            "the data, and nothing is extrapolated."
        )
    if worth.ci_low is None and worth.ci_high is None:
        return (
            f"{start} the worth cannot be told: the AUC with the pool fits real images of any "
            f"number of groups, from {least:.0f} or fewer to {most:.0f} or more."
        )
    ends = _ends(worth)
    if worth.outcome == "below":
        return (
            f"{start} real images and the pool did less well than {least:.0f} groups of real "
            f"images alone: the worth lies below the data; {ends}."
        )
    if worth.outcome == "beyond":
        return (
            f"{start} real images and the pool did better than any real subset, up to "
            f"{most:.0f} groups: how much the pool was worth lies beyond the data; {ends}."
        )
    assert worth.equals is not None
    return (
        f"{start} real images and the pool did as well as {worth.equals:.0f} groups of real images "
        f"alone: the pool was worth {worth.equals - n:+z.0f} groups, {worth.equals / n:.2f} times "
        f"as many; {ends}."
    )


def _ends(worth: Worth) -> str:
    """The 95% interval of the worth, in groups added."""
    low, high = (
        None if end is None else f"{end - worth.n_groups:+z.0f}"
        for end in (worth.ci_low, worth.ci_high)
    )
    if low is None:
        return f"95% interval: at most {high}, its lower end below the smallest subset"
    if high is None:
        return f"95% interval: at least {low}, its upper end beyond the data"
    return f"95% interval {low} to {high}"


def _rests_on(curve: LearningCurve) -> str:
    tried = counted(curve.n_seeds, "classifier seed")
    if curve.scope == "method":
        about = f"{tried} and {curve.n_gan_seeds} generators a subset"
    else:
        about = f"{tried}; how other generators would do is not counted"
    if curve.n_seeds < 2:
        about += ", nor how trainings vary"
    folds = f", in {curve.n_folds} folds" if curve.n_folds > 1 else ""
    return (
        f"This rests on {about}{folds}, on AUC being linear in the logarithm of the number of "
        "groups between neighbouring subsets, and on one draw of subsets: others would differ."
    )
