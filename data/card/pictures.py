"""Pictures and figures of the dataset card: in the page itself, so that the card is one file."""

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from data.images.skin_tone import BANDS
from dermsynth.page import (
    BENIGN,
    FAINT,
    GRID,
    MALIGNANT,
    MUTED,
    STYLE,
    WIDTH,
    embedded,
    inline_figure,
)

BUBBLES = 300  # image sizes drawn


def png(content: bytes) -> str:
    """The bytes of a PNG file."""
    return embedded("png", content)


def sizes(table: pd.DataFrame, one: str) -> Markup:
    """Width against height of the originals: a disc a size, its area the number of images.

    `table`: `width`, `height` in px, `target`; blue as dark as the share of target 1, which `one`
    names.
    """
    sides = table.groupby(["width", "height"])["target"].agg(["size", "mean"]).reset_index()
    sides = sides.sort_values("size", ascending=False).head(BUBBLES)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
        axes = figure.subplots()
        axes.grid(color=GRID, linewidth=0.8)
        shares = sides["mean"].fillna(0)
        disc = axes.scatter(
            sides["width"],
            sides["height"],
            s=12 + 500 * sides["size"] / sides["size"].max(),
            c=shares,
            cmap="Blues",
            vmin=-0.35 * max(float(shares.max()), 0.01),  # 0 is pale, not white
            vmax=max(float(shares.max()), 0.01),
            edgecolors=MUTED,
            linewidths=0.6,
            alpha=0.85,
        )
        _log_pixels(axes, sides)
        axes.set(xlabel="width, px", ylabel="height, px")
        bar = figure.colorbar(disc, ax=axes, shrink=0.8, aspect=28, pad=0.02)
        bar.ax.set_ylim(0, max(float(shares.max()), 0.01))
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        bar.set_label(one)
        bar.outline.set_visible(False)
        return inline_figure(figure)


def _log_pixels(axes: Axes, sides: pd.DataFrame) -> None:
    """Logarithmic axes of equal scale that say 300, 600, 1000 instead of powers of ten."""
    ticks = [100, 200, 300, 450, 600, 1000, 1500, 2000, 3000, 4000, 6000, 10000]
    axes.set(xscale="log", yscale="log")
    for axis, name, least in ((axes.xaxis, "width", 5), (axes.yaxis, "height", 4)):
        low, high = sides[name].min() / 1.35, sides[name].max() * 1.35
        inside = [tick for tick in ticks if low <= tick <= high]
        inside = inside[:: max(1, len(inside) // least)]
        (axes.set_xlim if name == "width" else axes.set_ylim)(low, high)
        axis.set_major_locator(FixedLocator(inside or [int(sides[name].iloc[0])]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def angles(angles: np.ndarray, target: np.ndarray, words: tuple[str, str]) -> Markup:
    """Distribution of ITA (degrees; those of no band left out) of either class, with the bounds.

    `target` float: 1, 0, which `words` (of 0, of 1) name, NaN no label (drawn with those of 0).
    """
    bounds = [bound for bound in BANDS.values() if np.isfinite(bound)]
    known = np.abs(angles) <= 90
    low = np.percentile(angles[known], 0.5) if known.any() else 0
    edges = np.arange(5 * min(np.floor(low / 5) - 1, 0), 91, 5)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        axes = figure.subplots()
        for bound in bounds:
            if edges[0] < bound < edges[-1]:
                axes.axvline(bound, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
        ones = known & (target == 1)
        others = words[0] + (" or no label" if np.isnan(target).any() else "")
        for rows, label, options in (
            (known & ~ones, others, {"color": BENIGN}),
            (ones, words[1], {"histtype": "step", "color": MALIGNANT, "linewidth": 1.6}),
        ):
            if rows.any():
                weights = np.full(rows.sum(), 1 / rows.sum())
                axes.hist(angles[rows], edges, weights=weights, label=label, **options)
        axes.margins(x=0)
        axes.set_xlim(edges[0], edges[-1])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("individual typology angle, degrees  (dark → light)")
        axes.set_ylabel("share of the class")
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
        return inline_figure(figure)
