"""Files into pixels on disk, chunk by chunk: a killed process loses one chunk, not its work.

After each chunk a line of the journal says what became of its files; whoever comes back reads the
journal (data.preparation.journal) and goes on behind it. Memory does not grow with the number of
images but for the journal: about 200 bytes an image.
"""

import hashlib
import itertools
import json
import shutil
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from data import store
from data.images.cleaning import before_after
from data.images.decoding import Decoded, Preprocessing, decode, decode_all
from data.images.files import BadImage, Encoded
from data.images.formats import kind_of
from data.images.native import ShardWriter
from data.preparation import journal
from data.preparation.duplicates import SCRATCH
from data.preparation.journal import BAD, COPY, FACTS, KEPT, NATIVE
from dermsynth.errors import counted
from dermsynth.manifest import FileEntry

CHUNK = 1024  # files between two entries of the journal; of a native dataset, files in a shard
FORM = 2  # of unfinished work; grows when what lies there changes
SAMPLED, SHOWN = 200, 6  # images looked at, and shown, before and after cleaning


@dataclass(frozen=True)
class IngestResult:
    """What became of the files of a listing; rows are those of the listing."""

    kept: pd.DataFrame  # row, width, height, sha256, phash (and shard, offset, length), in order
    copies: pd.DataFrame = field(  # row, first: byte for byte the file of row `first`
        default_factory=lambda: pd.DataFrame({"row": [], "first": []}, dtype=np.int64)
    )
    bad: dict[int, str] = field(default_factory=dict)  # row: reason
    shards: dict[str, FileEntry] = field(default_factory=dict)  # those that were written just now


def ingest(
    folder: Path,
    names: list[str],
    files: list[Encoded | None],
    preprocessing: Preprocessing,
    native: bool = False,
    roots: tuple[Path, ...] = (),
) -> IngestResult:
    """Decode files into `folder/images.npy`, one image a kept file, going on where it was left.

    Raises OSError where the disk is full.

    Parameters
    ----------
    folder : where the images go, and the journal
    names : of the files in the shards
    files : what to decode; None is passed over
    preprocessing : how files become pixels
    native : keep the files themselves too, in shards
    roots : folders of the sources; a link that leads out of them is not followed
    """
    rows = [row for row, file in enumerate(files) if file is not None]
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    entries = journal.read_journal(folder, preprocessing.size, native)
    seen = {
        row.sha256: row.row
        for entry in entries
        for row in entry[entry["state"] == KEPT].itertuples()
    }
    done = len(seen)
    if entries:
        print(f"going on from where it was left: {counted(done, 'image is', 'images are')} done")
    shards: dict[str, FileEntry] = {}
    rest = [files[row] for row in rows[len(entries) * CHUNK :]]
    results = decode_all(rest, preprocessing, keep_content=native, roots=roots)
    with (
        closing(results),  # on an error too: its bar ends before the error is told
        store.image_writer(folder, preprocessing.size, done) as append,
    ):
        for number, chunk in enumerate(chunks[len(entries) :], len(entries)):
            pixels: list[np.ndarray] = []
            with ShardWriter(folder, number) if native else nullcontext() as shard:
                decoded = zip(chunk, itertools.islice(results, len(chunk)), strict=True)
                outcomes = [
                    _take(row, names[row], result, seen, pixels, shard) for row, result in decoded
                ]
            if shard is not None:
                shards[shard.name] = shard.entry
            append(pixels)
            entries.append(journal.write_entry(folder, number, outcomes))
    every = journal.joined(entries)
    kept = every[every["state"] == KEPT].reset_index(drop=True)
    bad = every[every["state"] == BAD]
    return IngestResult(
        kept[["row", *(NATIVE if native else ()), *FACTS]],
        every.loc[every["state"] == COPY, ["row", "first"]].astype(np.int64),
        dict(zip(bad["row"].tolist(), bad["reason"].tolist(), strict=True)),
        shards,
    )


def fingerprint(options: dict[str, object], names: list[str], files: list[Encoded | None]) -> str:
    """SHA-256 of all that an `ingest` depends on: another one means to begin anew."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    for name, file in zip(names, files, strict=True):
        if file is None:
            digest.update(f"{name}\0absent\0".encode(errors="surrogateescape"))
            continue
        try:
            status = file.path.stat()
            stamp = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            stamp = "unreadable"
        line = f"{name}\0{file.path}\0{file.offset} {file.length} {stamp}\0"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def forget(folder: Path, pixels_too: bool) -> None:
    """Remove what only going on needs; `pixels_too` where the files themselves are kept."""
    for name in (journal.FOLDER, SCRATCH):
        shutil.rmtree(folder / name, ignore_errors=True)
    if pixels_too:
        (folder / store.IMAGES).unlink()
        (folder / store.HASHES).unlink()


def show_cleaning(
    folder: Path, files: list[Encoded | None], ingested: IngestResult, preprocessing: Preprocessing
) -> None:
    """Write cleaning-NAME.png for each cleaner: the most changed of a sample, before and after."""
    rows = ingested.kept["row"].to_numpy(np.int64)
    rows = rows[:: max(1, len(rows) // SAMPLED)][:SAMPLED]

    def pixels(clean: tuple[str, ...]) -> np.ndarray:
        cleaned = replace(preprocessing, clean=clean)
        return np.stack([decode(files[row], cleaned).pixels for row in rows])

    before = pixels(()) if preprocessing.clean else None
    for name in preprocessing.clean:
        after = pixels((name,))
        change = np.abs(before.astype(int) - after).mean(axis=(1, 2, 3))
        most = np.argsort(-change)[:SHOWN]
        before_after(before[most], after[most], folder / f"cleaning-{name}.png")


def _take(
    row: int,
    name: str,
    result: Decoded | BadImage,
    seen: dict[str, int],
    pixels: list[np.ndarray],
    shard: ShardWriter | None,
) -> dict[str, object]:
    """The journal's entry for one file; a kept one goes to `pixels`, and into the shard."""
    if isinstance(result, BadImage):
        return {"row": row, "state": BAD, "reason": result.reason}
    if (first := seen.setdefault(result.sha256, row)) != row:
        return {"row": row, "state": COPY, "first": first}
    pixels.append(result.pixels)
    entry = {"row": row, "state": KEPT} | {key: getattr(result, key) for key in FACTS}
    if shard is not None:
        content = result.content
        entry |= {
            "shard": shard.number,
            "offset": shard.add(f"{name}.{kind_of(content)}", content),
            "length": len(content),
        }
    return entry
