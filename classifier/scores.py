"""CSV files of scores, `image_name,target`: written and read here alone.

A spreadsheet takes a cell that begins with = + - @ or a tab for a formula. So a name that begins
with one of these, with a carriage return or with ' is written with a ' in front, which is taken
away when the file is read.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dermsynth.errors import UserError, some
from dermsynth.files import read_bytes, write_text

GUARDED = ("=", "+", "-", "@", "\t", "\r", "'")  # first characters of names that get GUARD in front
GUARD = "'"
COLUMNS = ("image_name", "target")
MOST_BYTES = 2**30
MEND = "write it again, or give another file"


def guard(name: str) -> str:
    """A name as it stands in the file."""
    return GUARD + name if name.startswith(GUARDED) else name


def unguard(name: str) -> str:
    """The name that stands in the file."""
    return name[1:] if name.startswith(GUARD) and name[1:].startswith(GUARDED) else name


def write_scores(path: Path, names: Sequence[str], scores: np.ndarray) -> None:
    """Replace a CSV atomically: a row an image, `scores` float [n]; folders are made."""
    lines = [",".join(COLUMNS)]
    for name, score in zip(names, scores.tolist(), strict=True):
        lines.append(f"{_cell(guard(name))},{score!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(lines) + "\n")


def _cell(text: str) -> str:
    """Quoted where it must be; csv and pandas forget carriage returns."""
    if any(character in text for character in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def read_scores(path: Path) -> pd.DataFrame:
    """`image_id` str, `score` float64, finite, an image once.

    Raises UserError for anything else than such a CSV.
    """
    content = read_bytes(path, MOST_BYTES, MEND)
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except (ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as CSV ({reason}); {MEND}") from None
    whole = isinstance(table.index, pd.RangeIndex)  # a longer row makes its first field the index
    if sorted(table.columns) != sorted(COLUMNS) or not whole:
        columns = some(table.columns.tolist())
        raise UserError(
            f"{path}: expected the columns {','.join(COLUMNS)} alone; found {columns}; {MEND}"
        )
    scores = pd.to_numeric(table["target"], errors="coerce").astype(np.float64)
    bad = table[~np.isfinite(scores)]
    if len(bad):
        shown = [f"{row.image_name} ({row.target!r})" for row in bad.itertuples()]
        raise UserError(f"{path}: {len(bad)} scores are no finite numbers: {some(shown)}")
    return pd.DataFrame({"image_id": table["image_name"].map(unguard), "score": scores})
