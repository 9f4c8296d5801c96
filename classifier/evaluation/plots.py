"""Learning curves, ROC and precision-recall curves of a run."""

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

COLOURS = ["#4477aa", "#cc6677", "#228833", "#ccbb44", "#aa3377", "#66ccee"]
LEAKY = "LEAKY"  # how the title of a leaky run begins


def draw_plots(
    folder: Path,
    history: list[dict[str, Any]],
    predictions: pd.DataFrame,
    metrics: dict[str, dict[str, Any]],
    title: str,
) -> None:
    """Write curves.png, roc.png and pr.png to `folder`.

    `history` is one dict an epoch (epoch, train_loss, val_loss, val_auc). Parts whose AUC is
    undefined are left out.
    """
    folder.mkdir(exist_ok=True)
    _curves(folder / "curves.png", history, title)
    parts = [part for part in metrics if metrics[part]["auc"] is not None]
    _roc(folder / "roc.png", predictions, metrics, parts, title)
    _precision_recall(folder / "pr.png", predictions, metrics, parts, title)


def draw_fold_plots(
    folder: Path,
    pooled: pd.DataFrame,
    folds: dict[int, dict[str, Any]],
    mean: dict[str, Any],
    title: str,
) -> None:
    """Write roc.png and pr.png of a cross-validated run: every fold's validation part, their mean.

    `pooled` is what classifier.pooling makes, `folds` has the figures of each validation part,
    `mean` their means. The mean curve is taken at equal false positive rate, or recall. Folds of
    one class are left out.
    """
    folder.mkdir(exist_ok=True)
    known = [fold for fold, of in folds.items() if of["auc"] is not None]
    oof, at = pooled[pooled["part"] == "oof"], np.linspace(0, 1, 501)
    parts = {fold: oof[oof["fold"] == fold] for fold in known}
    for name, key, words in (("roc", "auc", "AUC"), ("pr", "average_precision", "AP")):
        figure, axes = _roc_axes() if name == "roc" else _pr_axes()
        lines = []
        for (fold, rows), colour in zip(parts.items(), COLOURS * len(parts), strict=False):
            if name == "roc":
                x, y, _ = roc_curve(rows["target"], rows["score"], drop_intermediate=False)
                lines.append(np.interp(at, x, y))
            else:  # between two recalls the next threshold's precision holds, not a straight line
                y, x, _ = precision_recall_curve(rows["target"], rows["score"])
                x, y = x[::-1], y[::-1]
                lines.append(y[np.searchsorted(x, at)])
            label = f"fold {fold}: {words} {folds[fold][key]:.3f}"
            step = "default" if name == "roc" else "steps-pre"
            axes.plot(x, y, c=colour, lw=0.8, label=label, drawstyle=step)
        if lines:
            spread = mean[f"{key}_std"]
            label = f"mean: {words} {mean[key]:.3f}" if mean[key] is not None else "mean"
            label += f" ± {spread:.3f}" if spread is not None else ""
            axes.plot(at, np.mean(lines, axis=0), c="black", lw=2, label=label)
            axes.legend(loc="lower right" if name == "roc" else "best", frameon=False)
        _save(figure, [axes], title, folder / f"{name}.png")


def title_of(words: str, leak: str | None) -> str:
    """The title of a run's plots: where it is leaky, they say so in red."""
    return f"{LEAKY} - not a result\n{words}" if leak else words


def _curves(path: Path, history: list[dict[str, Any]], title: str) -> None:
    epochs = [row["epoch"] for row in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    left.plot(epochs, [row["train_loss"] for row in history], "o-", c=COLOURS[0], label="train")
    left.plot(epochs, [row["val_loss"] for row in history], "o-", c=COLOURS[1], label="validation")
    left.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, None))
    left.legend(frameon=False)
    values = [row["val_auc"] for row in history]
    if None in values:
        right.set(xlabel="epoch", ylabel="validation AUC: not defined, one class")
    else:
        best = int(np.argmax(values))
        right.plot(epochs, values, "o-", c=COLOURS[1])
        right.plot(epochs[best], values[best], "o", ms=11, mfc="none", mec="black")
        right.set(xlabel="epoch", ylabel=f"validation AUC, best {values[best]:.4f}")
    right.margins(0.12, 0.2)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _save(figure, [left, right], title, path)


def _roc(
    path: Path,
    predictions: pd.DataFrame,
    metrics: dict[str, dict[str, Any]],
    parts: list[str],
    title: str,
) -> None:
    figure, axes = _roc_axes()
    for part, colour in zip(parts, COLOURS * len(parts), strict=False):
        rows = predictions[predictions["part"] == part]
        fpr, tpr, _ = roc_curve(rows["target"], rows["score"], drop_intermediate=False)
        axes.plot(fpr, tpr, c=colour, label=f"{part}: AUC {metrics[part]['auc']:.3f}")
    axes.legend(loc="lower right", frameon=False)
    _save(figure, [axes], title, path)


def _precision_recall(
    path: Path,
    predictions: pd.DataFrame,
    metrics: dict[str, dict[str, Any]],
    parts: list[str],
    title: str,
) -> None:
    figure, axes = _pr_axes()
    for part, colour in zip(parts, COLOURS * len(parts), strict=False):
        rows = predictions[predictions["part"] == part]
        precision, recall, _ = precision_recall_curve(rows["target"], rows["score"])
        label = f"{part}: AP {metrics[part]['average_precision']:.3f}"
        axes.plot(recall, precision, c=colour, label=label, drawstyle="steps-post")
        axes.axhline(rows["target"].mean(), c=colour, lw=0.8, ls=":")
    axes.legend(frameon=False, title="dotted: share of malignant")
    _save(figure, [axes], title, path)


def _roc_axes() -> tuple[plt.Figure, Axes]:
    figure, axes = plt.subplots(figsize=(5.2, 5.2), layout="constrained")
    axes.plot([0, 1], [0, 1], c="0.8", lw=1)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
    return figure, axes


def _pr_axes() -> tuple[plt.Figure, Axes]:
    figure, axes = plt.subplots(figsize=(5.2, 5.2), layout="constrained")
    axes.set(xlabel="sensitivity (recall)", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    return figure, axes


def _save(figure: plt.Figure, axes: list[Axes], title: str, path: Path) -> None:
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25)
    leaky = title.startswith(LEAKY)
    figure.suptitle(title, fontsize=10, color="#bb0000" if leaky else "black")
    figure.savefig(path, dpi=110)
    plt.close(figure)
