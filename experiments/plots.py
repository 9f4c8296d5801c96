"""The report's figures, each an SVG in the page itself, so that the report stays one file.

Text stays text (selectable, in the reader's font). Figures that carry words come in two widths,
because an 860 px figure shrunk to a phone cannot be read.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dermsynth import page
from dermsynth.page import FAINT, GRID, INK, MALIGNANT, MUTED, OTHERS, inline_figure
from experiments.numbers import number
from experiments.wording import short_verdict

WIDE, NARROW = 8.6, 4.0  # inches at 96 px an inch: the column of the report, a phone
PALE, BAND = FAINT, GRID
REFERENCE, PRIMARY = "#4d4d4d", MALIGNANT
MDES = {"mde_helps": 1, "mde_hurts": -1}  # keys of a comparison: the side that they lie on
STYLE = page.STYLE | {
    "font.size": 10,
    "axes.axisbelow": "line",
    "text.parse_math": False,  # an arm may be called anything, `$` included
}


def arm_colours(comparisons: Sequence[dict[str, Any]], arms: Sequence[str]) -> dict[str, str]:
    """One colour an arm, the same in every figure: grey the reference, blue the arm in question."""
    colours = {}
    if comparisons:
        colours = {comparisons[0]["reference"]: REFERENCE, comparisons[0]["arm"]: PRIMARY}
    rest = [arm for arm in arms if arm not in colours]
    return colours | {arm: OTHERS[i % len(OTHERS)] for i, arm in enumerate(rest)}


def forest(comparisons: Sequence[dict[str, Any]], width: float) -> Markup:
    """Difference in AUC of every comparison with its interval, the first one at the top.

    Thick: all that varies counted; thin below it: given the trained models; band: equivalence
    margin; carets: the smallest loss and gain that the comparison could have seen. Comparisons
    without a difference are left out by the caller. `width` in inches.
    """
    narrow = width < 6
    row = 0.92 if narrow else 0.66
    height = row * len(comparisons) + (1.5 if narrow else 1.1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=1, zorder=1)
        for place, comparison in enumerate(comparisons):
            _forest_row(axes, comparison, -place, narrow, bold=place == 0)
        axes.set_ylim(-len(comparisons) + 0.62, 0.85 if narrow else 0.72)
        axes.set_xlim(*_forest_limits(comparisons))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(lambda value, _: _signed(value))
        axes.locator_params(axis="x", nbins=4 if narrow else 9)
        axes.set_xlabel("difference in AUC", labelpad=18 if narrow else 4)
        below: dict[str, Any] = {
            "xycoords": "axes fraction",
            "textcoords": "offset points",
            "va": "baseline",
        }
        axes.annotate("← reference better", (0, 0), (0, -31), color=MUTED, **below)
        axes.annotate("arm better →", (1, 0), (0, -31), color=MUTED, ha="right", **below)
        figure.legend(
            handles=_forest_legend(comparisons),
            loc="outside lower left",
            ncols=1 if narrow else 4,
            frameon=False,
            fontsize=8.5,
            handlelength=1.6,
            columnspacing=1.4,
        )
        return inline_figure(figure)


def _forest_row(axes: Axes, comparison: dict[str, Any], y: float, narrow: bool, bold: bool) -> None:
    delta, margin = comparison["delta_auc"], comparison["margin"]
    kind = "" if comparison["ci_low"] is not None else "_models"  # where there is no other
    low, high = comparison[f"ci_low{kind}"], comparison[f"ci_high{kind}"]
    axes.fill_betweenx([y - 0.22, y + 0.22], -margin, margin, color=BAND, linewidth=0, zorder=0)
    colour = PRIMARY if bold else REFERENCE
    if comparison["ci_low"] is not None:
        axes.plot([low, high], [y, y], color=colour, linewidth=4, zorder=3, solid_capstyle="butt")
    if comparison["ci_low_models"] is not None:
        ends = [comparison["ci_low_models"], comparison["ci_high_models"]]
        axes.plot(ends, [y - 0.13] * 2, color=MUTED, linewidth=1.2, zorder=2)
    axes.plot([delta], [y], "o", color="white", markeredgecolor=colour, markersize=7, zorder=4)
    carets = [s * comparison[k] for k, s in MDES.items() if comparison[k] is not None]
    if carets:
        heights = [y - 0.17] * len(carets)
        axes.plot(carets, heights, linestyle="none", marker=6, color=MUTED, zorder=4)
    name = f"{_short(comparison['arm'])} against {_short(comparison['reference'])}"
    value = _signed(delta) + (f" [{_signed(low)}, {_signed(high)}]" if low is not None else "")
    line: dict[str, Any] = {  # x: 0 to 1 over the width, y: data
        "transform": axes.get_yaxis_transform(),
        "weight": "bold" if bold else "normal",
        "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        "in_layout": False,
    }
    if narrow:
        axes.text(0, y + 0.3, f"{name}\n{comparison['test_set']}: {value}", size=9, **line)
    else:
        axes.text(0, y + 0.33, f"{name}, {comparison['test_set']}", **line)
        axes.text(1, y + 0.33, f"{value}, {short_verdict(comparison)}", ha="right", **line)


def _signed(value: float) -> str:
    return number(value, sign=True) if abs(value) > 1e-9 else "0"


def _forest_limits(comparisons: Sequence[dict[str, Any]]) -> tuple[float, float]:
    keys = ("ci_low", "ci_high", "ci_low_models", "ci_high_models", "delta_auc")
    ends = [c[key] for c in comparisons for key in keys if c[key] is not None]
    signs = MDES | {"margin": 1}
    ends += [sign * c[k] for c in comparisons for k, sign in signs.items() if c[k] is not None]
    ends += [-c["margin"] for c in comparisons]
    room = 0.06 * (max(ends) - min(ends)) or 0.01
    return min(ends) - room, max(ends) + room


def _forest_legend(comparisons: Sequence[dict[str, Any]]) -> list[Line2D | Patch]:
    point: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "markersize": 6}
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=REFERENCE, linewidth=4, label="95% interval, all that varies", **point)
    ]
    if any(c["ci_low_models"] is not None for c in comparisons):
        handles.append(Line2D([], [], color=MUTED, linewidth=1.2, label="for these models alone"))
    handles.append(Patch(color=BAND, label="equivalence margin"))
    if any(c[key] is not None for c in comparisons for key in MDES):
        handles.append(
            Line2D([], [], marker=6, color=MUTED, linestyle="none", label="smallest visible effect")
        )
    return handles


def decision_curve(
    record: dict[str, Any],
    points: Sequence[dict[str, Any]],
    width: float,
    one: str = "malignant",
) -> Markup:
    """Net benefit of both arms and of treating all by threshold, and below it the difference.

    `record`: of paired.json; `points`: of its decision curve, those with a difference. `width` in
    inches; `one`: what target 1 means.
    """
    at = [point["threshold"] for point in points]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 4.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for side, colour in (("reference", REFERENCE), ("arm", PRIMARY)):
            values = [point[side] for point in points]
            upper.plot(at, values, color=colour, linewidth=1.6, label=_short(record[side]))
        everyone = [point["treat_all"] for point in points]
        upper.plot(at, everyone, color=FAINT, linewidth=1, label=f"call all {one}")
        upper.axhline(0, color=INK, linewidth=0.8)
        best = max(point[side] for point in points for side in ("arm", "reference", "treat_all"))
        upper.set_ylim(-0.35 * best, 1.1 * best)  # calling all of them falls without end
        upper.set_ylabel("net benefit")
        upper.legend(frameon=False, fontsize=8.5)
        known = [point for point in points if point["ci_low"] is not None]
        if known:
            ends = [[point[end] for point in known] for end in ("ci_low", "ci_high")]
            where = [point["threshold"] for point in known]
            lower.fill_between(where, *ends, color=PRIMARY, alpha=0.15, linewidth=0)
        lower.plot(at, [point["delta"] for point in points], color=PRIMARY, linewidth=1.6)
        lower.axhline(0, color=INK, linewidth=0.8)
        lower.set_ylabel("difference")
        lower.set_xlabel("probability at which one would act")
        for axes in (upper, lower):
            axes.grid(color=GRID, linewidth=0.8)
        return inline_figure(figure)


def subgroups(records: Sequence[dict[str, Any]], width: float) -> Markup:
    """AUC difference with its interval by subgroup, a line each; 0 is no difference.

    `records`: subgroups of paired.json with an interval, those that are `few` left out by the
    caller: an interval from five lesions would set the scale of all. `width` in inches.
    """
    height = 0.34 * len(records) + 0.9
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=1, zorder=1)
        for place, record in enumerate(records):
            ends = [record["ci_low"], record["ci_high"]]
            axes.plot(ends, [-place] * 2, color=PRIMARY, linewidth=3, solid_capstyle="butt")
            point: dict[str, Any] = {"color": "white", "markeredgecolor": PRIMARY, "markersize": 6}
            axes.plot([record["delta_auc"]], [-place], "o", zorder=3, **point)
        names = [_short(f"{r['name']}, {r['variable'].replace('_', ' ')}") for r in records]
        axes.set_yticks([-place for place in range(len(records))], names)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(-len(records) + 0.5, 0.5)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(lambda value, _: _signed(value))
        axes.locator_params(axis="x", nbins=4 if width < 6 else 9)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_xlabel("difference in AUC")
        return inline_figure(figure)


def training_dots(comparison: dict[str, Any], width: float) -> Markup:
    """Difference in AUC of every training beside its reference, a line a fold; bars are means.

    Generators have a colour each. `width` in inches.
    """
    table = pd.DataFrame(comparison["trainings"]).astype({"gan_seed": "Int64"})
    folds = sorted(table["fold"].unique())
    generators = list(table["gan_seed"].drop_duplicates())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 0.5 * len(folds) + 0.9), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=1, zorder=1)
        for place, fold in enumerate(folds):
            of_fold = table[table["fold"] == fold]
            for number, generator in enumerate(generators):
                same = (
                    of_fold["gan_seed"].isna()
                    if pd.isna(generator)
                    else (of_fold["gan_seed"].eq(generator).fillna(False))
                )
                values = of_fold.loc[same, "delta_auc"].to_numpy(float)
                colour = PRIMARY if number == 0 else OTHERS[(number - 1) % len(OTHERS)]
                height = -place + 0.12 * (number - (len(generators) - 1) / 2)
                axes.plot(values, np.full(len(values), height), "o", color=colour, markersize=5)
            mean = float(of_fold["delta_auc"].mean())
            axes.plot([mean, mean], [-place - 0.3, -place + 0.3], color=INK, linewidth=1.6)
        axes.set_yticks([-place for place in range(len(folds))], [f"fold {fold}" for fold in folds])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(-len(folds) + 0.5, 0.5)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(lambda value, _: _signed(value))
        axes.locator_params(axis="x", nbins=4 if width < 6 else 9)
        axes.margins(x=0.08)
        axes.set_xlabel("difference in AUC of one training")
        return inline_figure(figure)


def roc(curves: dict[str, dict[str, Any]], colours: dict[str, str]) -> Markup:
    """ROC curves of the arms on one test set, each with its pointwise 95% band.

    `curves[arm]`: `fpr, tpr, low, high` as equally long lists, `auc, ci_low, ci_high`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.3, 4.4 + 0.19 * len(curves)), layout="constrained")
        axes = figure.subplots()
        alpha = 0.13 * min(1, 3 / len(curves))  # many bands must not add up to a dark one
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 4)))
        for arm, curve in curves.items():
            colour = colours.get(arm, INK)
            interval = f"{curve['auc']:.3f} [{curve['ci_low']:.3f}, {curve['ci_high']:.3f}]"
            if curve.get("low"):
                axes.fill_between(
                    curve["fpr"],
                    curve["low"],
                    curve["high"],
                    color=colour,
                    alpha=alpha,
                    linewidth=0,
                )
            axes.plot(
                curve["fpr"],
                curve["tpr"],
                color=colour,
                linewidth=1.6,
                label=f"{_short(arm)}: {interval}",
            )
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xlabel("false positive rate (1 − specificity)")
        axes.set_ylabel("true positive rate (sensitivity)")
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", frameon=False, fontsize=9, title_fontsize=9)
        return inline_figure(figure)


def seed_dots(trials: pd.DataFrame, column: str, colours: dict[str, str], width: float) -> Markup:
    """AUC (`column`) of every trial by arm; lines join trials of equal fold, seed and GAN seed.

    `trials`: rows with `arm, fold, seed, gan_seed` (nullable) and `column`. `width` in inches.
    """
    arms = list(dict.fromkeys(trials["arm"]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 0.62 * len(arms) + 0.8), layout="constrained")
        axes = figure.subplots()
        for place, (upper, lower) in enumerate(pairwise(arms)):
            for left, right in _pairs(trials, upper, lower, column):
                axes.plot([left, right], [-place, -place - 1], color=PALE, linewidth=0.9)
        for place, arm in enumerate(arms):
            values = trials.loc[trials["arm"] == arm, column].to_numpy(float)
            colour = colours.get(arm, INK)
            axes.plot(values, np.full(len(values), -place), "o", color=colour, markersize=6)
            mean = float(values.mean())
            axes.plot([mean, mean], [-place - 0.24, -place + 0.24], color=colour, linewidth=2)
        axes.set_yticks([-place for place in range(len(arms))], [_short(arm) for arm in arms])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(-len(arms) + 0.55, 0.45)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=5 if width < 6 else 9)
        axes.set_xlabel("AUC of a single trial")
        return inline_figure(figure)


def _pairs(trials: pd.DataFrame, upper: str, lower: str, column: str) -> list[tuple[float, float]]:
    """Values of trials that share fold and seed, and the GAN seed where both arms have one."""
    keys = ["fold", "seed", "gan_seed", column]
    above = trials.loc[trials["arm"] == upper, keys]
    below = trials.loc[trials["arm"] == lower, keys]
    both = above.merge(below, on=["fold", "seed"], suffixes=("_above", "_below"))
    one, other = both["gan_seed_above"], both["gan_seed_below"]
    both = both[one.isna() | other.isna() | (one == other)]
    return list(zip(both[f"{column}_above"], both[f"{column}_below"], strict=True))


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"
