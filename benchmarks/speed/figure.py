"""The report as a picture: how many times as fast ours is, and what grows with what."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

LONGEST = 8.0  # of a bar, times
OURS, OTHERS, INK = "#3b6ea5", "#b8b8b8", "#333333"


def draw(report: dict[str, Any], path: Path) -> None:
    """Write a PNG or SVG of a report of benchmarks.run, by the name's ending."""
    parts = report["parts"]
    tables = [table for part in parts.values() for table in part.get("comparisons", [])]
    tables = [table for table in tables if any(not row["ours"] for row in table["ways"])]
    curves = [curve for part in parts.values() for curve in part.get("curves", [])]
    rows = sum(len(table["ways"]) + 1.6 for table in tables)
    below = -(-len(curves) // 3)
    figure = plt.figure(figsize=(11, 0.24 * rows + 2.6 * below + 0.8), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[0.24 * rows + 0.4, 2.6 * below + 0.1])
    bars(upper.subplots(), tables)
    if curves:
        axes = lower.subplots(below, 3, squeeze=False).ravel()
        for axis, curve in zip(axes, curves, strict=False):
            line(axis, curve)
        for axis in axes[len(curves) :]:
            axis.set_axis_off()
    machine = report["machine"]
    upper.suptitle(
        f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores, commit {report['commit']}",
        fontsize=9,
        color=INK,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def bars(axis: Axes, tables: list[dict[str, Any]]) -> None:
    """Rates within each table, the fastest of others' ways being 1."""
    at, ticks, names = 0.0, [], []
    for table in tables:
        best = max(row["rate"] for row in table["ways"] if not row["ours"])
        axis.text(0.0, -at, table["what"], fontsize=8, weight="bold", va="center", color=INK)
        at += 1
        for row in table["ways"]:
            times = row["rate"] / best
            shown = min(times, LONGEST)  # the words beside it have the number
            axis.barh(-at, shown, color=OURS if row["ours"] else OTHERS, height=0.75)
            words = f" {times:.2f}  ({row['rate']:,.3g} {table['unit']}/s)"
            axis.text(shown, -at, words, fontsize=7, va="center", color=INK)
            ticks.append(-at)
            names.append(row["way"])
            at += 1
        at += 0.6
    axis.set_yticks(ticks, names, fontsize=7)
    axis.set_xlabel("times the fastest other way", fontsize=8)
    axis.set_ylim(-at, 1)
    axis.margins(x=0.25)
    axis.axvline(1, color=INK, linewidth=0.6)
    axis.spines[["top", "right", "left"]].set_visible(False)


def line(axis: Axes, curve: dict[str, Any]) -> None:
    """Seconds over what grows."""
    at = [point["at"] for point in curve["points"]]
    axis.plot(at, [point["seconds"] for point in curve["points"]], "o-", color=OURS, label="clock")
    axis.plot(at, [p["cpu_seconds"] for p in curve["points"]], "o:", color=INK, label="processors")
    axis.set_title(curve["what"], fontsize=7, wrap=True)
    axis.set_xlabel(curve["over"], fontsize=7)
    axis.set_ylabel("seconds", fontsize=7)
    axis.tick_params(labelsize=7)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=6, frameon=False)
