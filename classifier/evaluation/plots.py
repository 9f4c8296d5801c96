"""Learning curves, ROC and precision-recall curves of a run."""

from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from dermsynth.page import MALIGNANT, OTHERS

COLOURS = [MALIGNANT, *OTHERS]
LEAKY = "LEAKY"  # how the title of a leaky run begins


@dataclass(frozen=True)
class Course:
    """How a training went."""

    history: list[dict[str, Any]]  # an epoch each: epoch, train_loss, train_auc, val_loss, val_auc
    rate: tuple[list[float], list[float]]  # places in epochs, and the learning rate there
    loss: str  # what was trained with; validation's is always cross-entropy
    best: int  # epoch that is tested
    monitor: str  # validation figure that chose it


@dataclass(frozen=True)
class Kind:
    """A kind of curve, and how it looks."""

    figure: str  # of metrics.json: the area below it
    word: str
    x: str
    y: str
    axes: dict[str, Any]
    legend: str  # where it leaves room

    def draw(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """x and y, rising x, of rows `target, score`."""
        target, score = rows["target"], rows["score"]
        if self is ROC:
            return roc_curve(target, score, drop_intermediate=False)[:2]
        precision, recall, _ = precision_recall_curve(target, score)
        return recall[::-1], precision[::-1]


ROC = Kind("auc", "AUC", "1 - specificity", "sensitivity", {"aspect": "equal"}, "lower right")
LIMITS = {"xlim": (0, 1), "ylim": (0, 1.02)}
PR = Kind("average_precision", "AP", "sensitivity (recall)", "precision", LIMITS, "best")
KINDS = {"roc.png": ROC, "pr.png": PR}


def draw_plots(
    folder: Path,
    course: Course,
    predictions: pd.DataFrame,
    metrics: dict[str, dict[str, Any]],
    title: str,
    one: str,
) -> None:
    """Write curves.png, roc.png and pr.png; parts whose AUC is undefined are left out.

    Parameters
    ----------
    folder : where
    course : how the training went
    predictions : predictions.parquet of the run
    metrics : its metrics.json
    title : of every plot, as `title_of` makes it
    one : what target 1 is called
    """
    folder.mkdir(exist_ok=True)
    _curves(folder / "curves.png", course, title)
    draw_part_plots(folder, predictions, metrics, title, one)


def draw_part_plots(
    folder: Path,
    predictions: pd.DataFrame,
    metrics: dict[str, dict[str, Any]],
    title: str,
    one: str,
) -> None:
    """Write roc.png and pr.png, arguments as of `draw_plots`."""
    folder.mkdir(exist_ok=True)
    parts = {part: figures for part, figures in metrics.items() if figures["auc"] is not None}
    for name, kind in KINDS.items():
        figure, axes = _square(kind)
        for (part, figures), colour in zip(parts.items(), cycle(COLOURS), strict=False):
            rows = predictions[predictions["part"] == part]
            label = f"{part}: {kind.word} {figures[kind.figure]:.3f}"
            _draw_curve(axes, kind, kind.draw(rows), c=colour, label=label)
            if kind is PR:
                axes.axhline(rows["target"].mean(), c=colour, lw=0.8, ls=":")
        dotted = f"dotted: share of {one}" if kind is PR else None
        axes.legend(loc=kind.legend, frameon=False, title=dotted)
        _save(figure, [axes], title, folder / name)


def draw_fold_plots(
    folder: Path,
    pooled: pd.DataFrame,
    folds: dict[int, dict[str, Any]],
    mean: dict[str, Any],
    title: str,
) -> None:
    """Write roc.png and pr.png of a cross-validated run: every fold's validation part, their mean.

    The mean curve is taken at equal false positive rate, or recall. Folds of one class are left
    out.

    Parameters
    ----------
    folder : where
    pooled : predictions of all folds, as `cross_validation.pool` makes them
    folds : figures of each fold's validation part
    mean : their means, and `FIGURE_std`
    title : of both plots, as `title_of` makes it
    """
    folder.mkdir(exist_ok=True)
    oof, at = pooled[pooled["part"] == "oof"], np.linspace(0, 1, 501)
    known = [fold for fold, figures in folds.items() if figures["auc"] is not None]
    for name, kind in KINDS.items():
        figure, axes = _square(kind)
        lines = []
        for fold, colour in zip(known, cycle(COLOURS), strict=False):
            x, y = kind.draw(oof[oof["fold"] == fold])
            # between two recalls the next threshold's precision holds, not a straight line
            lines.append(np.interp(at, x, y) if kind is ROC else y[np.searchsorted(x, at)])
            label = f"fold {fold}: {kind.word} {folds[fold][kind.figure]:.3f}"
            _draw_curve(axes, kind, (x, y), c=colour, lw=0.8, label=label)
        if lines:
            area, spread = mean[kind.figure], mean[f"{kind.figure}_std"]
            label = f"mean: {kind.word} {area:.3f}" if area is not None else "mean"
            label += f" ± {spread:.3f}" if spread is not None else ""
            axes.plot(at, np.mean(lines, axis=0), c="black", lw=2, label=label)
            axes.legend(loc=kind.legend, frameon=False)
        _save(figure, [axes], title, folder / name)


def title_of(words: str, leak: str | None) -> str:
    """The title of a run's plots: where it is leaky, they say so in red."""
    return f"{LEAKY} - not a result\n{words}" if leak else words


def _curves(path: Path, course: Course, title: str) -> None:
    epochs = [row["epoch"] for row in course.history]
    figure, axes = plt.subplots(1, 3, figsize=(12.5, 3.8), layout="constrained")
    left, middle, right = axes
    losses = {"train": f"training: {course.loss}", "val": "validation: cross-entropy"}
    chosen = {"marker": "o", "ms": 11, "mfc": "none", "mec": "black", "ls": "none"}
    for part, word, colour in (("train", "training", 0), ("val", "validation", 1)):
        style = {"c": COLOURS[colour], "clip_on": False}
        loss = [row[f"{part}_loss"] for row in course.history]
        left.plot(epochs, loss, "o-", label=losses[part], **style)
        values = [row.get(f"{part}_auc") for row in course.history]
        if None not in values:
            middle.plot(epochs, values, "o-", label=word, **style)
    at = epochs.index(course.best)
    marked = left if course.monitor == "loss" else middle
    kinds = dict.fromkeys([course.loss, "cross-entropy"])
    left.set(xlabel="epoch", ylabel=f"loss: {', '.join(kinds)}", ylim=(0, None))
    if None in values:
        middle.set(xlabel="epoch", ylabel="validation AUC: not defined, one class")
    else:
        middle.set(
            xlabel="epoch", ylabel=f"AUC, validation {values[at]:.4f} in epoch {course.best}"
        )
    if marked is left or None not in values:
        y = loss[at] if marked is left else values[at]
        label = f"epoch {course.best}, chosen by {course.monitor}"
        marked.plot(course.best, y, label=label, clip_on=False, zorder=3, **chosen)
    for plot in (left, middle):
        if plot.get_legend_handles_labels()[0]:
            plot.legend(frameon=False, fontsize=9)
    middle.margins(0.12, 0.2)
    places, rates = course.rate
    right.plot(places, rates, "o-" if len(places) < 3 else "-", c=COLOURS[2], clip_on=False)
    right.set(xlabel="epochs done", ylabel="learning rate", ylim=(0, None))
    for plot in axes:
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _save(figure, list(axes), title, path)


def _square(kind: Kind) -> tuple[plt.Figure, Axes]:
    figure, axes = plt.subplots(figsize=(5.2, 5.2), layout="constrained")
    if kind is ROC:
        axes.plot([0, 1], [0, 1], c="0.8", lw=1)
    axes.set(xlabel=kind.x, ylabel=kind.y, **kind.axes)
    return figure, axes


def _draw_curve(axes: Axes, kind: Kind, xy: tuple[np.ndarray, np.ndarray], **style: Any) -> None:
    axes.plot(*xy, drawstyle="default" if kind is ROC else "steps-pre", **style)


def _save(figure: plt.Figure, axes: list[Axes], title: str, path: Path) -> None:
    for plot in axes:
        plot.spines[["top", "right"]].set_visible(False)
        plot.grid(alpha=0.25)
    leaky = title.startswith(LEAKY)
    figure.suptitle(title, fontsize=10, color="#bb0000" if leaky else "black")
    figure.savefig(path, dpi=110)
    plt.close(figure)
