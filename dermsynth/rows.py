"""Rows in a file, a JSON object with a `step` a line, as a run that may be killed leaves them."""

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(path: Path, last: int) -> tuple[list[Row], int]:
    """The rows until step `last`, and how many lines were damaged and left out.

    A line is damaged that is not UTF-8, not JSON, or no object with a whole number as `step`: a
    kill cuts the last line, a full disk or a bad copy may spoil any. No file, no rows.
    """
    if not path.exists():
        return [], 0
    rows, damaged = [], 0
    for line in path.read_bytes().split(b"\n"):
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            damaged += 1
        elif row["step"] <= last:
            rows.append(row)
    return rows, damaged


def as_lines(rows: list[Row]) -> str:
    """The rows as such a file holds them."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    good = isinstance(row, dict) and isinstance(row.get("step"), int)
    return row if good and not isinstance(row["step"], bool) else None
