"""A prepared dataset on disk: its images, `table.parquet`, `dataset.json`.

The images are `images.npy`, or the untouched files in `shards/` (data.images.native). Whoever needs
a split asks `Dataset.rows`; nobody splits again.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pandas as pd

from data.images.native import NativeImages
from dermsynth.errors import UserError
from dermsynth.files import new_folder, read_json, write_bytes, write_json

SCHEMA_VERSION = 1
MARKER = "dataset.json"
TEST = -1  # `fold` of the test part
EXTRA = -2  # of external images: in the training part of every fold, never validated or tested on
NO_PART = -3  # of images without a label, and of external ones tied to an image of the first source
PARTS = {TEST: "test", EXTRA: "extra", NO_PART: "no part"}  # the others are `fold k`
COLUMNS = [
    *("image_id", "target", "diagnosis", "patient_id", "lesion_id", "group", "fold"),
    *("age", "sex", "site", "source", "width", "height", "sha256", "phash"),
]

NATIVE_SIZE = 128  # px, at which a native dataset is read where nobody asks for another size

Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Dataset:
    """Images and their table, row i of one belonging to row i of the other."""

    path: Path
    images: np.ndarray | NativeImages  # uint8 [n, size, size, 3], RGB; on disk until read
    table: pd.DataFrame  # COLUMNS, one row an image; `target` is missing where there is no label
    info: dict[str, Any]  # dataset.json

    @property
    def folds_hash(self) -> str:
        """SHA-256 over the sorted (image_id, group, fold): the identity of its splits."""
        return self.info["folds_hash"]

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.images.shape[1]

    def rows(self, part: Part, fold: int) -> np.ndarray:
        """Row numbers (int64, ascending) of a part: validate on `fold`, train on the others.

        The test part is the same for every fold. Raises UserError for a fold that is not there.
        """
        folds = self.table["fold"].to_numpy()
        known = sorted({int(number) for number in folds if number >= 0})
        if fold not in known:
            raise UserError(f"--fold {fold}: {self.path} has folds {known}")
        if part == "test":
            return np.flatnonzero(folds == TEST)
        if part == "val":
            return np.flatnonzero(folds == fold)
        return np.flatnonzero((folds >= 0) & (folds != fold) | (folds == EXTRA))

    def labelled(self) -> np.ndarray:
        """Row numbers (int64, ascending) of all images that have a target, whatever their part."""
        return np.flatnonzero(self.table["target"].notna())

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [len(rows)]: 1 malignant, 0 benign. Every row must have a label."""
        return self.table["target"].iloc[rows].to_numpy(np.uint8)


def load_dataset(path: Path, size: int | None = None) -> Dataset:
    """Open a prepared dataset; images stay on disk until they are read.

    `size`: side of the images of a `native` dataset, px (128 if not given); a dataset that stores
    its images at one size has that one. Raises UserError naming what is missing or damaged and the
    command that makes it.
    """
    table, info = load_table(path)
    if (path / "shards").exists():
        images = NativeImages(path, table, info["look"], size or NATIVE_SIZE)
    elif info.get("options", {}).get("tables_only"):
        raise UserError(
            f"{path}: holds tables only, no images; prepare it again without --tables-only"
        )
    else:
        images = load_images(path, len(table), "prepare it again")
    return Dataset(path, images, table, info)


def load_table(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """`table.parquet` and `dataset.json` of a dataset. Raises UserError as `load_dataset` does."""
    info = read_header(
        path / MARKER,
        f"{path}: no prepared dataset there (no {MARKER}); make one with "
        f"`python -m data.prepare --source phantom --out {path}` or another --source",
        "prepare it again",
    )
    try:
        table = pd.read_parquet(path / "table.parquet")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); prepare it again") from None
    if missing := [column for column in COLUMNS if column not in table]:
        raise UserError(f"{path}: table.parquet has no {', '.join(missing)}; prepare it again")
    if folds_hash(table) != info.get("folds_hash"):
        raise UserError(
            f"{path}: the folds in table.parquet are not those of {MARKER}: it was changed after "
            "it was prepared; prepare it again"
        )
    return table, info


def read_header(marker: Path, absent: str, mend: str) -> dict[str, Any]:
    """What the JSON file says by which a folder is known for ours.

    Raises UserError: `absent` where there is none, and ending in `mend` where this program cannot
    read it.
    """
    if not marker.exists():
        raise UserError(absent)
    info = read_json(marker)
    version = info.get("schema_version") if isinstance(info, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{marker}: schema version {version}, expected {SCHEMA_VERSION}; {mend}")
    return info


def load_images(folder: Path, count: int, mend: str) -> np.ndarray:
    """Map `folder/images.npy`: uint8 [count, size, size, 3].

    Raises UserError, ending in `mend`, where it is anything else.
    """
    try:
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{folder}: images.npy is damaged ({error}); {mend}") from None
    square = images.ndim == 4 and images.shape[1] == images.shape[2] and images.shape[3] == 3
    if images.dtype != np.uint8 or not square or len(images) != count:
        raise UserError(
            f"{folder}: images.npy holds {images.dtype} {list(images.shape)}, expected uint8 "
            f"[{count}, size, size, 3]; {mend}"
        )
    return images


def folds_hash(table: pd.DataFrame) -> str:
    """SHA-256 (hex) over the sorted (image_id, group, fold) of a table."""
    keys = sorted(
        zip(table["image_id"], table["group"].astype(str), table["fold"].astype(int), strict=True)
    )
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()


def write_dataset(
    out: Path,
    images: np.ndarray,
    table: pd.DataFrame,
    info: dict[str, Any],
    overwrite: bool = False,
) -> Dataset:
    """Write a dataset folder, whole or not at all, and open it.

    Raises UserError where `out` is taken.

    Parameters
    ----------
    out : the folder
    images : uint8 [n, size, size, 3], RGB
    table : COLUMNS, more are kept; row i belongs to image i
    info : JSON values for dataset.json: options, counts, licence
    overwrite : replace a dataset at `out`
    """
    with new_folder(out, MARKER, overwrite) as folder:
        save_images(folder / "images.npy", images)
        save_table(folder, table, info)
    return load_dataset(out)


def save_table(folder: Path, table: pd.DataFrame, info: dict[str, Any]) -> None:
    """Write `table.parquet` and `dataset.json` beside an `images.npy` of the same rows."""
    rest = [column for column in table.columns if column not in COLUMNS]
    write_parquet(folder / "table.parquet", table[[*COLUMNS, *rest]])
    header = {"schema_version": SCHEMA_VERSION, "folds_hash": folds_hash(table)}
    write_json(folder / MARKER, header | info)


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Replace a parquet file atomically; the index is not kept."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def save_images(path: Path, images: np.ndarray) -> None:
    """Write uint8 [n, size, size, 3] as npy."""
    with image_writer(path, images.shape[1]) as append:
        for start in range(0, len(images), 1024):
            append(images[start : start + 1024])


@contextlib.contextmanager
def image_writer(
    path: Path, size: int, done: int = 0
) -> Iterator[Callable[[Sequence[np.ndarray]], None]]:
    """Write an npy file of uint8 [n, size, size, 3] piece by piece, n not known beforehand.

    Yields `append(images)`; what was appended is on disk when it returns. The first `done` images
    of a file that was left unfinished are kept. Plain writes, not a memory map: on a full disk a
    write raises OSError, a memory map kills the process.
    """

    def header(file: BinaryIO, count: int) -> None:
        shape = (count, size, size, 3)
        fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, fields)  # leaves room for n to grow

    count = done
    with open(path, "r+b" if done else "wb") as file:

        def append(images: Sequence[np.ndarray]) -> None:
            nonlocal count
            for image in images:
                if image.dtype != np.uint8 or image.shape != (size, size, 3):
                    raise ValueError(f"expected uint8 [{size}, {size}, 3], got {image.shape}")
                file.write(np.ascontiguousarray(image))
            count += len(images)
            file.flush()
            os.fsync(file.fileno())

        header(file, done)
        file.seek(file.tell() + done * size * size * 3)
        file.truncate()
        yield append
        file.seek(0)
        header(file, count)
        file.flush()
        os.fsync(file.fileno())
