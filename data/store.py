"""A prepared dataset on disk: `images.npy`, `table.parquet`, `dataset.json`.

Whoever needs a split asks `Dataset.rows`; nobody splits again.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from runtime.errors import UserError
from runtime.files import new_folder, read_json, write_json

SCHEMA_VERSION = 1
MARKER = "dataset.json"
TEST = -1  # `fold` of the test part
COLUMNS = [
    *("image_id", "target", "diagnosis", "patient_id", "lesion_id", "group", "fold"),
    *("age", "sex", "site", "source", "width", "height", "sha256", "phash"),
]

Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Dataset:
    """Images and their table, row i of one belonging to row i of the other."""

    path: Path
    images: np.ndarray  # uint8 [n, size, size, 3], RGB, memory-mapped
    table: pd.DataFrame  # COLUMNS, one row an image
    info: dict[str, Any]  # dataset.json

    @property
    def folds_hash(self) -> str:
        """SHA-256 over the sorted (image_id, group, fold): the identity of its splits."""
        return self.info["folds_hash"]

    @property
    def size(self) -> int:
        """Side of the stored images in pixels."""
        return self.images.shape[1]

    def rows(self, part: Part, fold: int) -> np.ndarray:
        """Row numbers (int64, ascending) of a part: validate on `fold`, train on the others.

        The test part is the same for every fold. Raises UserError for a fold that is not there.
        """
        folds = self.table["fold"].to_numpy()
        if fold not in set(folds[folds != TEST]):
            known = sorted(set(folds[folds != TEST].tolist()))
            raise UserError(f"--fold {fold}: {self.path} has folds {known}")
        if part == "test":
            return np.flatnonzero(folds == TEST)
        if part == "val":
            return np.flatnonzero(folds == fold)
        return np.flatnonzero((folds != TEST) & (folds != fold))

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [len(rows)]: 1 malignant, 0 benign."""
        return self.table["target"].to_numpy(np.uint8)[rows]


def load_dataset(path: Path) -> Dataset:
    """Open a prepared dataset; images stay on disk until they are read.

    Raises UserError naming what is missing or damaged and the command that makes it.
    """
    if not (path / MARKER).exists():
        raise UserError(
            f"{path}: no prepared dataset there (no {MARKER}); make one with "
            f"`python -m data.prepare --source phantom --out {path}` or another --source"
        )
    info = read_json(path / MARKER)
    if info.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {info.get('schema_version')}, expected {SCHEMA_VERSION}; "
            "prepare it again"
        )
    try:
        table = pd.read_parquet(path / "table.parquet")
        images = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); prepare it again") from None
    if len(table) != len(images) or folds_hash(table) != info["folds_hash"]:
        raise UserError(
            f"{path}: {len(images)} images, {len(table)} rows, and folds that do not match "
            f"{MARKER}: it was changed after it was prepared; prepare it again"
        )
    return Dataset(path, images, table, info)


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

    `images` uint8 [n, size, size, 3] (a memory map is copied in pieces), `table` with COLUMNS (more
    are kept), `info` JSON values: options, counts, licence. Raises UserError where `out` is taken.
    """
    with new_folder(out, MARKER, overwrite) as folder:
        save_images(folder / "images.npy", images)
        rest = [column for column in table.columns if column not in COLUMNS]
        table[[*COLUMNS, *rest]].to_parquet(folder / "table.parquet", index=False)
        header = {"schema_version": SCHEMA_VERSION, "folds_hash": folds_hash(table)}
        write_json(folder / MARKER, header | info)
    return load_dataset(out)


def save_images(path: Path, images: np.ndarray) -> None:
    """Write uint8 [n, size, size, 3] as npy, in pieces."""
    target = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=images.shape)
    for start in range(0, len(images), 1024):
        target[start : start + 1024] = images[start : start + 1024]
    target.flush()
