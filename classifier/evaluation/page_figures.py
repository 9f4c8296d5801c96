"""Figures of the evaluation page: each is written as PNG and given back as SVG for the page.

The styles are those of the dataset card. The forest plot comes in two widths: shrunk to a phone, a
wide one cannot be read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from classifier.evaluation.subgroups import TITLES
from dermsynth.page import (
    BENIGN,
    FAINT,
    GRID,
    INK,
    MALIGNANT,
    MUTED,
    ON_DEEP,
    ON_PALE,
    OTHERS,
    STYLE,
    WIDTH,
    inline_figure,
)

COLOURS = (MALIGNANT, *OTHERS)
WIDE, NARROW = 8.6, 3.9  # inches at 96 px an inch: the page's column, a phone
DPI = 150  # of the PNG files
THRESHOLDS = {  # chosen on validation: what it holds there, its mark in the ROC plot
    "specificity_95": ("95% specificity", "v"),
    "sensitivity_95": ("95% sensitivity", "^"),
    "youden": ("Youden", "o"),
}
WORDS = STYLE | {"text.parse_math": False}  # a site may be called anything, `$` included


def _finish(figure: Figure, path: Path | None) -> Markup:
    if path is not None:
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return inline_figure(figure)


def _square(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(color=GRID, linewidth=0.8)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    return figure, axes


# --- curves --------------------------------------------------------------------------------------


def roc(parts: dict[str, pd.DataFrame], result: dict[str, Any], path: Path) -> Markup:
    """ROC curve of each part (rows `target, score`), with a mark at each validation threshold."""
    with matplotlib.rc_context(WORDS):
        figure, axes = _square(4.5 + 0.19 * len(parts))
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 4)))
        for (name, rows), colour in zip(parts.items(), _colours(len(parts)), strict=True):
            fpr, tpr, _ = roc_curve(rows["target"], rows["score"], drop_intermediate=False)
            label = f"{name}: AUC {result[name]['auc']['value']:.3f}"
            axes.plot(fpr, tpr, color=colour, linewidth=1.6, label=label)
            for key, rates in (result[name]["at_validation_thresholds"] or {}).items():
                place = 1 - rates["specificity"]["value"], rates["sensitivity"]["value"]
                style = {"marker": THRESHOLDS[key][1], "markeredgecolor": colour}
                axes.plot(*place, markerfacecolor="white", markersize=6.5, zorder=3, **style)
        axes.set(xlabel="1 − specificity", ylabel="sensitivity")
        figure.legend(loc="outside lower center", frameon=False, fontsize=9)
        return _finish(figure, path)


def precision_recall(parts: dict[str, pd.DataFrame], result: dict[str, Any], path: Path) -> Markup:
    """Precision against recall of each part; dotted, the share of images of target 1."""
    curves = {
        f"{name}: AP {result[name]['average_precision']['value']:.3f}": (
            rows["target"].to_numpy(),
            rows["score"].to_numpy(),
        )
        for name, rows in parts.items()
    }
    return _precision_recall(curves, path)


def class_precision_recall(
    one_hot: np.ndarray, probabilities: np.ndarray, figures: dict[str, Any], path: Path
) -> Markup:
    """Precision against recall of each class that is there, `one_hot` and `probabilities` [n, k].

    `figures`: `classes` of `measure_classes`, in the order of the columns.
    """
    curves = {
        f"{name}: AP {ap:.3f}": (one_hot[:, at], probabilities[:, at])
        for at, (name, of_class) in enumerate(figures.items())
        if (ap := of_class["average_precision"]) is not None
    }
    return _precision_recall(curves, path)


def _precision_recall(curves: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> Markup:
    """Curves of (target, score) by their label in the legend."""
    with matplotlib.rc_context(WORDS):
        columns = 1 if len(curves) < 5 else 2
        figure, axes = _square(4.5 + 0.19 * -(-len(curves) // columns))
        for (label, (target, score)), colour in zip(
            curves.items(), _colours(len(curves)), strict=True
        ):
            precision, recall, _ = precision_recall_curve(target, score)
            style = {"color": colour, "linewidth": 1.6, "drawstyle": "steps-post"}
            axes.plot(recall, precision, label=label, **style)
            axes.axhline(np.mean(target), color=colour, linewidth=0.8, linestyle=":")
        axes.set(xlabel="sensitivity (recall)", ylabel="precision")
        figure.legend(loc="outside lower center", frameon=False, fontsize=9, ncols=columns)
        return _finish(figure, path)


def _colours(count: int) -> list[str]:
    return [COLOURS[at % len(COLOURS)] for at in range(count)]


# --- calibration ---------------------------------------------------------------------------------


def reliability(bins: dict[str, list[dict[str, float]]], one: str, path: Path) -> Markup:
    """Observed against predicted share of target 1 by bin, with Wilson intervals, and the counts.

    `bins`: those of `calibration`, `before` and, where there is a temperature, `after`; `one`: what
    target 1 is called.
    """
    styles = {"before": (MUTED, "white"), "after": (MALIGNANT, MALIGNANT)}
    with matplotlib.rc_context(WORDS):
        figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1.1))
        upper.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 4)))
        for name, lines in bins.items():
            table, (colour, face) = pd.DataFrame(lines), styles[name]
            x, wilson = table["predicted"], (table["wilson_low"], table["wilson_high"])
            upper.vlines(x, *wilson, color=colour, linewidth=1.2, alpha=0.8)
            style = {"color": colour, "markerfacecolor": face, "markersize": 5, "label": name}
            upper.plot(x, table["observed"], "o", **style)
            shift = 0.35 if name == "before" else 0.65
            places = table["low"] + shift / 15
            lower.bar(places, table["n"], 0.28 / 15, color=BENIGN if shift < 0.5 else colour)
        upper.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), ylabel=f"share {one} (observed)")
        lower.set(yscale="log", xlabel=f"probability of {one} (predicted)", ylabel="images")
        lower.set_ylim(0.7, None)
        lower.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        lower.yaxis.set_minor_locator(NullLocator())
        for axes in (upper, lower):
            axes.grid(color=GRID, linewidth=0.8)
        upper.legend(loc="upper left", frameon=False, fontsize=9)
        return _finish(figure, path)


# --- subgroups -----------------------------------------------------------------------------------


def forest(
    groups: dict[str, list[dict[str, Any]]],
    whole: dict[str, float | None],
    one: str,
    path: Path | None,
) -> Markup:
    """AUC of every subgroup with its interval; numbers beside it; the line and band: all images.

    `groups` as `subgroups` gives them, `whole` the part's AUC, `one` what target 1 is called.
    Without `path` the narrow form.
    """
    narrow = path is None
    lines: list[tuple[str, dict[str, Any] | None]] = []
    for variable, subgroups in groups.items():
        lines.append((TITLES[variable], None))
        lines += [(subgroup["name"], subgroup) for subgroup in subgroups]
    with matplotlib.rc_context(WORDS):
        size = (NARROW if narrow else WIDE, 0.235 * len(lines) + 0.9)
        ratio = {} if narrow else {"width_ratios": (2, 1.15)}
        figure = Figure(figsize=size, layout="constrained")
        axes, *beside = np.atleast_1d(figure.subplots(1, 1 if narrow else 2, sharey=True, **ratio))
        if whole["value"] is not None:
            axes.axvline(whole["value"], color=FAINT, linewidth=1, zorder=0)
        if whole["low"] is not None and whole["high"] is not None:
            axes.axvspan(whole["low"], whole["high"], color=GRID, linewidth=0, zorder=-1)
        for place, (_, subgroup) in enumerate(lines):
            if subgroup is not None:
                _forest_line(axes, subgroup["auc"], -place)
        axes.set(ylim=(-len(lines) + 0.4, 0.9), xlim=_limits(groups, whole), xlabel="AUC")
        _forest_names(axes, lines, narrow)
        for numbers in beside:
            _forest_numbers(numbers, lines, one)
        return _finish(figure, path)


def _forest_line(axes: Axes, auc: dict[str, float | None], y: float) -> None:
    if auc["value"] is not None:
        low, high = (auc["value"] if auc[end] is None else auc[end] for end in ("low", "high"))
        axes.plot([low, high], [y, y], color=MALIGNANT, linewidth=2.2, solid_capstyle="butt")
        axes.plot(auc["value"], y, "o", color="white", markeredgecolor=MALIGNANT, markersize=6)


def _forest_numbers(axes: Axes, lines: Sequence[tuple[str, Any]], one: str) -> None:
    """Images, those of target 1 and the AUC in figures, in axes of their own."""
    axes.set_axis_off()
    places, style = (0.17, 0.44, 1.0), {"va": "center", "ha": "right", "size": 9}
    for x, words in zip(places, ("images", one, "AUC [95% interval]"), strict=True):
        axes.text(x, 0, words, color=MUTED, **style)
    for place, (_, subgroup) in enumerate(lines):
        if subgroup is not None:
            auc, few = subgroup["auc"], subgroup["auc"]["value"] is None
            words = (f"{subgroup['n']:,}", f"{subgroup['n_malignant']:,}", _span(auc))
            for x, word in zip(places, words, strict=True):
                axes.text(x, -place, word, color=MUTED if few else INK, **style)


def _forest_names(axes: Axes, lines: Sequence[tuple[str, Any]], narrow: bool) -> None:
    names = [
        f"{name}  ({subgroup['n_malignant']:,}/{subgroup['n']:,})" if narrow and subgroup else name
        for name, subgroup in lines
    ]
    axes.set_yticks([-place for place in range(len(lines))], names)
    for label, (_, subgroup) in zip(axes.get_yticklabels(), lines, strict=True):
        label.set(color=INK, size=9 if subgroup else 9.5, weight="normal" if subgroup else "bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.locator_params(axis="x", nbins=4 if narrow else 8)


def _limits(
    groups: dict[str, list[dict[str, Any]]], whole: dict[str, float | None]
) -> tuple[float, float]:
    figures = [whole, *(line["auc"] for subgroups in groups.values() for line in subgroups)]
    ends = [figure[key] for figure in figures for key in ("value", "low", "high")]
    least = min([value for value in ends if value is not None], default=0.0)
    return max(-0.02, least - 0.03), 1.01


def _span(auc: dict[str, float | None]) -> str:
    if auc["value"] is None:
        return "too few"
    low, high = ("–" if auc[end] is None else f"{auc[end]:.3f}" for end in ("low", "high"))
    return f"{auc['value']:.3f} [{low}, {high}]"


# --- classes and pictures ------------------------------------------------------------------------


def confusion(matrix: dict[str, Any], path: Path, called: str = "most probable class") -> Markup:
    """Confusion matrix, true classes in rows: the rate of the row in colour, rate over count.

    `matrix`: `confusion` of `measure_classes`; `called`: what the columns are.
    """
    names, counts = matrix["names"], np.array(matrix["counts"])
    rates = np.array([row or [np.nan] * len(names) for row in matrix["rates"]], float)
    with matplotlib.rc_context(WORDS):
        figure = Figure(figsize=(WIDTH, WIDTH + 0.4), layout="constrained")
        axes = figure.subplots()
        axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
        for (row, column), rate in np.ndenumerate(rates):
            words = "–" if np.isnan(rate) else f"{rate:.2f}\n{counts[row, column]:,}"
            colour = MUTED if np.isnan(rate) else ON_DEEP if rate > 0.6 else ON_PALE
            size = 8.5 if len(names) < 9 else 6.5
            axes.text(column, row, words, ha="center", va="center", color=colour, size=size)
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0, labelcolor=INK)
        axes.spines[:].set_visible(False)
        axes.set(xlabel=called, ylabel="true class")
        return _finish(figure, path)


def sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]],
    path: Path,
    bar: np.ndarray | None = None,
) -> None:
    """A PNG of titled rows of pictures uint8 [h, w, 3], a caption below each.

    `bar`: the colours of Grad-CAM from none to most, uint8 [1, n, 3], drawn as a scale below.
    """
    most = max(1, *(len(images) for _, images, _ in rows))
    with matplotlib.rc_context(WORDS):
        below = 0.0 if bar is None else 0.5  # inches
        figure = Figure(figsize=(1.25 * most, 1.85 * len(rows) + below), layout="constrained")
        whole = figure
        if bar is not None:
            whole, foot = figure.subfigures(2, height_ratios=[1.85 * len(rows), below])
            _draw_scale(foot.add_axes((0.02, 0.5, min(0.6, 2.4 / most), 0.3)), bar)
        grid = whole.subplots(len(rows), most, squeeze=False)
        for line, (title, images, captions) in zip(grid, rows, strict=True):
            for axes in line:
                axes.set_axis_off()
            line[0].set_title(title, loc="left", size=9, weight="bold")
            for axes, image, caption in zip(line, images, captions, strict=False):
                axes.imshow(image)
                axes.text(0.5, -0.03, caption, transform=axes.transAxes, ha="center", va="top")
                axes.texts[0].set_fontsize(6)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _draw_scale(axes: Axes, bar: np.ndarray) -> None:
    """None of the evidence at the left end, the most at the right; maps do not compare."""
    axes.imshow(bar, aspect="auto", extent=(0, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([0, 1], ["no evidence", "most in this image"], size=6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)
