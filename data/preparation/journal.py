"""What became of the files of an ingest, on disk chunk by chunk: who comes back goes on behind it.

An entry counts only where it is whole, its images are as they were written, and so is its shard.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from data.images.native import shard_path
from data.images.stored import count_intact
from data.preparation.scratch import read_scratch, write_scratch
from data.store import parquet_bytes
from dermsynth.errors import UserError
from dermsynth.manifest import read_table

FOLDER = "journal"
KEPT, COPY, BAD = "kept", "copy", "bad"  # states
FACTS = ("width", "height", "sha256", "phash")
NATIVE = ("shard", "offset", "length")
WORDS = ("state", "reason", "sha256", "phash")
COLUMNS = ["row", "state", "reason", "first", *FACTS, *NATIVE]
TYPES = {name: "str" if name in WORDS else "Int64" for name in COLUMNS}


def read_journal(folder: Path, size: int, native: bool) -> list[pd.DataFrame]:
    """The entries that an earlier start left and that can be built upon; the others are removed."""
    (folder / FOLDER).mkdir(exist_ok=True)
    files = sorted((folder / FOLDER).iterdir())
    entries: list[pd.DataFrame] = []
    for file in files:
        entry = _read(file) if file == _path(folder, len(entries)) else None
        if entry is None or (native and not _shard_intact(folder, len(entries), entry)):
            break
        entries.append(entry)
    intact = count_intact(folder, size, [int((entry["state"] == KEPT).sum()) for entry in entries])
    for file in files[intact:]:
        file.unlink()
    if intact < len(files):
        print(f"note: {len(files) - intact} of {len(files)} chunks are damaged and done again")
    return entries[:intact]


def write_entry(folder: Path, number: int, outcomes: list[dict[str, object]]) -> pd.DataFrame:
    """Add an entry, whose images and shard are on disk already."""
    entry = pd.DataFrame(outcomes).reindex(columns=COLUMNS).astype(TYPES)
    write_scratch(_path(folder, number), parquet_bytes(entry))
    return entry


def joined(entries: list[pd.DataFrame]) -> pd.DataFrame:
    """All entries as one table."""
    return pd.concat(entries or [pd.DataFrame(columns=COLUMNS).astype(TYPES)], ignore_index=True)


def _path(folder: Path, number: int) -> Path:
    return folder / FOLDER / f"{number:06d}"


def _read(path: Path) -> pd.DataFrame | None:
    content = read_scratch(path)
    try:
        return None if content is None else read_table(content, COLUMNS, path, "")
    except UserError:
        return None


def _shard_intact(folder: Path, number: int, entry: pd.DataFrame) -> bool:
    """Whether the files of an entry's kept rows lie in its shard as they came."""
    kept = entry[entry["state"] == KEPT]
    places = kept[["offset", "length"]].to_numpy(np.int64).tolist()
    try:
        with open(shard_path(folder, number), "rb") as file:
            for (offset, length), digest in zip(places, kept["sha256"], strict=True):
                file.seek(offset)
                if hashlib.sha256(file.read(length)).hexdigest() != digest:
                    return False
    except OSError:
        return False
    return True
