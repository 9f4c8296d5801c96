"""Small pictures for the gallery of runs, made without matplotlib: a run must not wait for them."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from dermsynth.page import picture

WIDE, HIGH = 150, 44  # px, of a curve
ROW = 13  # px, of a comparison
MOST = 6  # comparisons that are drawn


def grid(png: bytes) -> str | None:
    """A `data:` URI of a PNG or JPEG, made small; None where it is no picture."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else picture(image[..., ::-1])


def curve(history: Sequence[dict[str, Any]], best: int | None) -> Markup | None:
    """Validation AUC by epoch in blue, training grey, a mark at epoch `best`; None without any.

    `history`: a row an epoch, as metrics.jsonl has them. From 0.5, or the least, to 1.
    """
    lines = {name: _known(history, name) for name in ("train_auc", "val_auc")}
    values = [value for line in lines.values() for _, value in line]
    if not lines["val_auc"]:
        return None
    low, last = min(0.5, *values), max(row[0] for row in lines["val_auc"])

    def place(epoch: int, value: float) -> str:
        x = 5 + (WIDE - 10) * ((epoch - 1) / (last - 1) if last > 1 else 0.5)
        return f"{x:.1f},{HIGH - 5 - (HIGH - 10) * (value - low) / (1 - low or 1):.1f}"

    parts = []
    for name, colour in (("train_auc", "faint"), ("val_auc", "blue")):
        points = [place(*row) for row in lines[name]]
        style = f"fill:none;stroke:var(--{colour});stroke-width:1.6"
        parts.append(f'<polyline points="{" ".join(points)}" style="{style}"/>')
    for epoch, value in lines["val_auc"]:
        if epoch == best or last == 1:
            x, y = place(epoch, value).split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3.2" style="fill:var(--blue)"/>')
    words = f"validation AUC by epoch, at the end {lines['val_auc'][-1][1]:.3f}"
    return _svg(WIDE, HIGH, words, parts)


def forest(comparisons: Sequence[dict[str, Any]]) -> Markup | None:
    """Differences in AUC with their intervals, the primary one thick on top; None without any."""
    rows = [row for row in comparisons if row.get("delta_auc") is not None][:MOST]
    if not rows:
        return None
    spans = []
    for row in rows:
        kind = "" if row.get("ci_low") is not None else "_models"  # where there is no other
        ends = [row.get(f"ci_{end}{kind}") for end in ("low", "high")]
        spans.append([row["delta_auc"] if end is None else end for end in ends])
    reach = 1.08 * max(*(abs(end) for span in spans for end in span), 0.01)

    def x(value: float) -> float:
        return WIDE / 2 * (1 + value / reach)

    high = ROW * len(rows) + 4
    parts = [
        f'<line x1="{WIDE / 2}" x2="{WIDE / 2}" y1="0" y2="{high}" style="stroke:var(--ink)"/>'
    ]
    for at, (row, (low, top)) in enumerate(zip(rows, spans, strict=True)):
        y, colour = ROW * at + ROW / 2 + 2, "blue" if at == 0 else "reference"
        style = f"stroke:var(--{colour});stroke-width:{3 if at == 0 else 2}"
        line = f'x1="{x(low):.1f}" x2="{x(top):.1f}" y1="{y}" y2="{y}"'
        dot = f'cx="{x(row["delta_auc"]):.1f}" cy="{y}" r="3.4"'
        parts.append(f'<line {line} style="{style}"/>')
        parts.append(f'<circle {dot} style="fill:var(--paper);stroke:var(--{colour})"/>')
    return _svg(WIDE, high, "differences in AUC with their intervals", parts)


def _known(history: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    rows = [(row.get("epoch"), row.get(name)) for row in history]
    return [(epoch, value) for epoch, value in rows if epoch is not None and value is not None]


def _svg(wide: int, high: int, words: str, parts: Sequence[str]) -> Markup:
    """Only numbers and words of ours are in the parts: nothing is to be escaped."""
    head = f'<svg width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" role="img"'
    return Markup(f'{head} aria-label="{words}">{"".join(parts)}</svg>')
