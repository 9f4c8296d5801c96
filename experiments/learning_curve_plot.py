"""The figure of a learning curve: AUC with and without synthetic images over log2 of the groups."""

from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from dermsynth.page import GRID, INK, MUTED, inline_figure
from experiments.learning_curve import CurveAuc, LearningCurve, Worth
from experiments.plots import PRIMARY, REFERENCE, STYLE

ASIDE = 0.02  # octaves between the intervals of a subset's two arms


def learning_curve_plot(curve: LearningCurve, width: float, one: str = "malignant") -> Markup:
    """The curves with 95% intervals; arrows go to as many real lesions' worth.

    An arrow starts at a subset with its pool, runs level, and ends on the curve of real images; the
    bar under its head is its 95% interval, up to the figure's edge where an end lies outside the
    data. `width` in inches; `one`: what target 1 means.
    """
    with matplotlib.rc_context(STYLE):
        return inline_figure(draw(curve, width, one))


def draw(curve: LearningCurve, width: float, one: str) -> Figure:
    """The figure itself, in the style that is set."""
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    axes = figure.subplots()
    sizes = [point.n_groups for point in curve.points]
    for place, (label, colour) in enumerate(
        [("real images alone", REFERENCE), ("with synthetic images", PRIMARY)]
    ):
        aucs = [(point.real, point.synthetic)[place] for point in curve.points]
        at = [size * 2 ** (ASIDE * (2 * place - 1)) for size in sizes]
        axes.plot(at, [auc.auc for auc in aucs], color=colour, linewidth=1.6, label=label)
        _intervals(axes, at, aucs, colour)
    for number, worth in enumerate(curve.worths):
        _arrow(axes, worth, curve.points[number].synthetic.auc, sizes)
    axes.set_xscale("log", base=2)
    axes.set_xlim(sizes[0] * 2**-0.25, sizes[-1] * 2**0.25)
    axes.set_xticks(sizes, [_size(curve, number, width) for number in range(len(sizes))])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{one} lesion groups trained on (log scale)")
    axes.set_ylabel("AUC")
    axes.grid(color=GRID, linewidth=0.8)
    handles = axes.get_legend_handles_labels()[0]
    if any(worth.outcome == "interpolated" for worth in curve.worths):
        handles.append(Patch(color=PRIMARY, alpha=0.2, label="95% interval of the worth"))
    style: dict[str, Any] = {"ncols": 1 if width < 6 else 3, "frameon": False, "fontsize": 9}
    figure.legend(handles=handles, loc="outside lower left", **style)
    return figure


def _intervals(axes: Axes, at: list[float], aucs: list[CurveAuc], colour: str) -> None:
    for place, auc in zip(at, aucs, strict=True):
        axes.plot([place], [auc.auc], "o", color=colour, markersize=5, zorder=4)
        if auc.ci_low is not None and auc.ci_high is not None:
            axes.plot([place, place], [auc.ci_low, auc.ci_high], color=colour, linewidth=1)


def _arrow(axes: Axes, worth: Worth, auc: float, sizes: list[float]) -> None:
    """From a subset with its pool to the real images that do as well, over its interval."""
    if worth.outcome != "interpolated" or worth.equals is None:
        return
    style: dict[str, Any] = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.4}
    axes.annotate("", (worth.equals, auc), (worth.n_groups, auc), arrowprops=style, zorder=5)
    low, high = worth.ci_low or sizes[0] * 2**-0.25, worth.ci_high or sizes[-1] * 2**0.25
    axes.plot([low, high], [auc, auc], color=PRIMARY, alpha=0.2, linewidth=7, zorder=1)
    known = worth.ci_low is not None or worth.ci_high is not None
    more = worth.equals > worth.n_groups
    axes.annotate(  # beyond the arrow's head, where a rising curve of real images is not
        f"worth {worth.equals / worth.n_groups:.2f}×" if known else "cannot be told",
        (worth.equals, auc),
        (8, -7) if more else (-8, 7),
        textcoords="offset points",
        ha="left" if more else "right",
        va="top" if more else "bottom",
        fontsize=8.5,
        color=INK if known else MUTED,
    )


def _size(curve: LearningCurve, number: int, width: float) -> str:
    point = curve.points[number]
    share = f"{100 * point.share:g}%"
    return f"{point.n_groups:.0f}\n{share}" if width < 6 else f"{point.n_groups:.0f} ({share})"
