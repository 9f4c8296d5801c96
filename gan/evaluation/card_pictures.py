"""Pictures of the evaluation page, in the page itself, so that it is one file."""

import cv2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dermsynth.page import (
    BENIGN,
    FAINT,
    INK,
    MALIGNANT,
    MUTED,
    STYLE,
    embedded_jpeg,
    inline_figure,
)
from gan.evaluation.drift import ATTRIBUTES

REAL, SYNTHETIC = BENIGN, MALIGNANT  # as in the page's key
TILE = 112  # px, of a picture in a grid
WIDE, NARROW = (8.9, 3), (3.9, 2)  # inches at 96 px an inch, and histograms a row: page and phone
BINS = 24


def jpeg(image: np.ndarray) -> str:
    """uint8 [h, w, 3] RGB."""
    return embedded_jpeg(image, 88)


def grid(images: np.ndarray, columns: int) -> str:
    """uint8 [n, s, s, 3] in rows of `columns`, each at most TILE px; what is left over is cut."""
    side = min(TILE, images.shape[1])
    small = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]
    rows = [small[at : at + columns] for at in range(0, len(small) - columns + 1, columns)]
    return jpeg(np.concatenate([np.concatenate(row, 1) for row in rows]))


def histograms(measured: dict[str, dict[str, np.ndarray]], narrow: bool = False) -> Markup:
    """Distribution of every attribute over training (filled) and synthetic images (outlined).

    `measured`: `synthetic` and `training`, each as `drift.measure` gives it; `narrow`: for a phone.
    """
    width, columns = NARROW if narrow else WIDE
    rows = -(-len(ATTRIBUTES) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 1.5 * rows), layout="constrained")
        for axes, name in zip(figure.subplots(rows, columns).flat, ATTRIBUTES, strict=False):
            kinds = [measured[kind][name] for kind in ("training", "synthetic")]
            training, synthetic = (values[np.isfinite(values)] for values in kinds)
            axes.set_title(ATTRIBUTES[name].words, fontsize=9.5, color=INK, loc="left")
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            both = np.concatenate([training, synthetic])
            if not len(training) or not len(synthetic):
                axes.text(0.5, 0.5, "not measured", color=FAINT, ha="center")
                continue
            if (least := ATTRIBUTES[name].present) is not None:
                _shares(axes, [float((values >= least).mean()) for values in (training, synthetic)])
                continue
            low, high = np.percentile(both, [0.5, 99.5])
            edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
            for values, options in (
                (training, {"color": REAL}),
                (synthetic, {"histtype": "step", "color": SYNTHETIC, "linewidth": 1.5}),
            ):
                weights = np.full(len(values), 1 / len(values))
                axes.hist(values.clip(low, high), edges, weights=weights, **options)
            axes.margins(x=0.01)
        for axes in list(figure.axes)[len(ATTRIBUTES) :]:
            axes.remove()
        return inline_figure(figure)


def spectrum(values: dict[str, list[float]], narrow: bool = False) -> Markup:
    """Synthetic and held-out images against training images, in dB by cycles a pixel.

    `values`: gan.evaluation.audit.SpectrumRecord; `narrow`: for a phone.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=((NARROW if narrow else WIDE)[0], 2.4), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color=FAINT, linewidth=0.8)
        dashed = {"color": MUTED, "linestyle": (0, (4, 2)), "linewidth": 1.2}
        axes.plot(values["frequency"], values["held_out"], label="held-out real", **dashed)
        axes.plot(values["frequency"], values["synthetic"], color=SYNTHETIC, label="synthetic")
        axes.set(xlim=(0, 0.5), xlabel="cycles a pixel", ylabel="dB")
        axes.legend(frameon=False)
        return inline_figure(figure)


def _shares(axes: Axes, shares: list[float]) -> None:
    """Two bars: share of the training and of the synthetic images that have it at all."""
    axes.barh([1, 0], shares, 0.6, color=[REAL, SYNTHETIC])
    for y, share in zip((1, 0), shares, strict=True):
        axes.text(share, y, f"  {share:.0%} of images", va="center", fontsize=9, color=MUTED)
    axes.set(xlim=(0, max(1.6 * max(shares), 0.1)), ylim=(-0.6, 1.6))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
