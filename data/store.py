"""A prepared dataset on disk: its images, `table.parquet`, `dataset.json`, and their manifest.

The images are `images.npy`, or the untouched files in `shards/` (data.images.native). Whoever needs
a split asks `Dataset.rows`; nobody splits again. What is read is checked against the manifest, an
image when it is first read.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import ConfigDict

from data.grouping import Grouping, count_ids
from data.images.native import NativeImages
from data.images.stored import HASHES as HASHES
from data.images.stored import IMAGES as IMAGES
from data.images.stored import image_entries as image_entries
from data.images.stored import image_writer as image_writer
from data.images.stored import load_images as load_images
from data.images.stored import map_images as map_images
from data.images.stored import save_images as save_images
from data.images.stored import stored_hashes as stored_hashes
from dermsynth import manifest
from dermsynth.errors import UserError
from dermsynth.files import write_bytes
from dermsynth.folders import whole_folder
from dermsynth.manifest import FileEntry, Identity, Input, Sealed, digest, open_sealed
from dermsynth.records import Json, Record, Sha256, dump_record
from dermsynth.row_hashes import CheckedRows

KIND = "dataset"
HEADER, TABLE = "dataset.json", "table.parquet"
TEST = -1  # `fold` of the test part
EXTRA = -2  # of external images: in the training part of every fold, never validated or tested on
NO_PART = -3  # of images without a label, and of external ones tied to an image of the first source
PARTS = {TEST: "test", EXTRA: "extra", NO_PART: "no part"}  # the others are `fold k`
COLUMNS = [
    *("image_id", "target", "diagnosis", "patient_id", "lesion_id", "group", "fold"),
    *("age", "sex", "site", "source", "width", "height", "sha256", "phash"),
]
SPLIT_PARTS = ("ids", "targets", "groups", "folds")  # of a dataset's identity: all but its pixels
NATIVE_SIZE = 128  # px, at which a native dataset is read where nobody asks for another size
MEND = "prepare it again"

Part = Literal["train", "val", "test"]
ImageStore = CheckedRows | NativeImages  # both read like uint8 [n, size, size, 3], RGB


class Look(Record):
    """How files became pixels."""

    size: int | Literal["native"]  # side in px
    fit: Literal["crop", "letterbox"]
    clean: tuple[str, ...]  # names of data.images.cleaning.CLEANERS


class TargetMeaning(Record):
    """What the targets 1 and 0 mean: the words of every page, plot and message that shows them."""

    one: str = "malignant"
    zero: str = "not malignant"  # "not melanoma" where one is "melanoma": others are cancers too
    positive: tuple[str, ...] = ()  # diagnoses that are 1; (): the source's own column says it
    told_by: str = ""  # where the targets come from: "the diagnosis", "the column target"

    @property
    def words(self) -> tuple[str, str]:
        """What 0 and 1 mean, in this order."""
        return self.zero, self.one


MELANOMA = TargetMeaning(
    one="melanoma", zero="not melanoma", positive=("mel",), told_by="the diagnosis"
)


class DatasetRecord(Record):
    """`dataset.json`. What a source says of itself (licence, citation ...) stands beside these."""

    model_config = ConfigDict(extra="allow")

    folds_hash: Sha256  # over the sorted (image_id, group, fold)
    source: str = "unknown"
    options: dict[str, Json] = {}  # of data.prepare
    look: Look | None = None  # None: the pixels were made elsewhere
    counts: dict[str, Json] = {}
    dropped: dict[str, list[str]] = {}  # by reason
    conflicts: list[dict[str, Json]] = []
    duplicates: dict[str, int] = {}
    enlarged: int = 0
    target: TargetMeaning = TargetMeaning()
    grouping: Grouping = Grouping()  # of the images that are in a part

    @property
    def facts(self) -> dict[str, Any]:
        """What else the sources say."""
        return dict(self.__pydantic_extra__ or {})


@dataclass(frozen=True)
class View:
    """How the parts of a dataset differ from those that were prepared."""

    test_fold: int | None = None  # tested on in place of the test part
    malignant_share: float = 1.0  # of the malignant training groups

    @property
    def name(self) -> str:
        """For names of files, with a dash before each part; empty for the parts as prepared."""
        tested = "" if self.test_fold is None else f"-test{self.test_fold}"
        return tested + ("" if self.malignant_share == 1 else f"-share{self.malignant_share:g}")

    @property
    def flags(self) -> str:
        """The options that ask for the same test part, with a blank before them."""
        return "" if self.test_fold is None else f" --test-fold {self.test_fold}"


@dataclass(frozen=True)
class Dataset:
    """Images and their table, row i of one belonging to row i of the other."""

    path: Path
    images: ImageStore  # on disk until read
    table: pd.DataFrame  # COLUMNS, one row an image; `target` is missing where there is no label
    info: DatasetRecord
    identity: Identity  # by which it is compared, wherever it lies
    view: View = field(default_factory=View)  # how data.view changed its folds

    @property
    def folds_hash(self) -> str:
        """SHA-256 over the sorted (image_id, group, fold): the identity of its splits."""
        return self.info.folds_hash

    @property
    def as_input(self) -> Input:
        """Its identity, as an input of something else."""
        return manifest.as_input(self.identity, self.path)

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
    command that makes it; so does reading an image that is not what was written.
    """
    sealed = open_dataset_folder(path)
    table, info = _read_table(sealed)
    if sealed.has(IMAGES):
        images: ImageStore = load_images(sealed, len(table))
    elif info.look is not None and "shard" in table:
        look = info.look
        images = NativeImages(path, table, look.fit, look.clean, size or NATIVE_SIZE)
    else:
        raise UserError(
            f"{path}: holds tables only, no images; prepare it again without --tables-only"
        )
    return Dataset(path, images, table, info, sealed.identity)


def load_table(path: Path) -> tuple[pd.DataFrame, DatasetRecord, Identity]:
    """`table.parquet`, `dataset.json` and identity of a dataset.

    Raises UserError as `load_dataset` does.
    """
    sealed = open_dataset_folder(path)
    return *_read_table(sealed), sealed.identity


def open_dataset_folder(path: Path) -> Sealed:
    """The folder of a dataset. Raises UserError where there is none, with the command for one."""
    return open_sealed(
        path,
        KIND,
        f"{path}: no prepared dataset there; make one with `python -m data.prepare --source "
        f"phantom --out {path}` or another --source",
        MEND,
    )


def _read_table(sealed: Sealed) -> tuple[pd.DataFrame, DatasetRecord]:
    """Table and record; what a record of before 0.5 does not say is told by the table."""
    table, record = sealed.table(TABLE, COLUMNS), sealed.record(HEADER, DatasetRecord)
    told = {"target": _told_meaning(table), "grouping": _part_ids(table)}
    unsaid = told.keys() - record.model_fields_set
    return table, record.model_copy(update={name: told[name] for name in unsaid})


def _part_ids(table: pd.DataFrame) -> Grouping:
    return count_ids(table[table["fold"] != NO_PART])


def _told_meaning(table: pd.DataFrame) -> TargetMeaning:
    """Melanoma, where all images of target 1 are melanomas and no other is."""
    diagnosis, one = table["diagnosis"], (table["target"] == 1).fillna(False)
    told = one.any() and bool((diagnosis.isin(["mel", "melanoma"]) == one).all())
    return MELANOMA if told else TargetMeaning()


def folds_hash(table: pd.DataFrame) -> str:
    """SHA-256 (hex) over the sorted (image_id, group, fold) of a table."""
    keys = zip(
        table["image_id"], table["group"].astype(str), table["fold"].astype(int), strict=True
    )
    return digest(sorted(keys))


def identity_parts(
    table: pd.DataFrame, contents: Sequence[str], look: Look | None
) -> dict[str, str]:
    """Hashes of all that a dataset is, by name.

    Parameters
    ----------
    table : COLUMNS
    contents : SHA-256 (hex) of what is stored of each image: its pixels, or its file
    look : how files become pixels
    """
    order = np.argsort(table["image_id"].to_numpy(str), kind="stable")
    ids = table["image_id"].astype(str).to_numpy()[order].tolist()
    target = table["target"].astype("Float64").fillna(-1).astype(int)
    columns = {
        "targets": target,
        "groups": table["group"].astype(str),
        "folds": table["fold"].astype(int),
        "images": pd.Series(list(contents), dtype=object),
    }
    parts = {"ids": digest(ids)}
    for name, values in columns.items():
        parts[name] = digest([ids, values.to_numpy()[order].tolist()] if len(values) else [])
    return parts | {"look": digest(look.model_dump() if look else None)}


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
    info : for dataset.json: fields of DatasetRecord, and more
    overwrite : replace a dataset at `out`
    """
    with whole_folder(out, KIND, overwrite) as folder:
        save_images(folder, images)
        seal_dataset(folder, table, info)
    return load_dataset(out)


def seal_dataset(
    folder: Path,
    table: pd.DataFrame,
    info: dict[str, Any],
    hashes: dict[str, FileEntry] | None = None,
) -> Identity:
    """Write `table.parquet` and `dataset.json` beside the images of the same rows, and finish.

    `hashes`: of files that were hashed while they were written (shards), by name.
    """
    rest = [column for column in table.columns if column not in COLUMNS]
    write_parquet(folder / TABLE, table[[*COLUMNS, *rest]])
    said = {"folds_hash": folds_hash(table), "grouping": _part_ids(table)}
    record = DatasetRecord(**said | info)
    write_bytes(folder / HEADER, dump_record(record).encode())
    stored = (folder / IMAGES).exists()
    contents = stored_hashes(folder) if stored else table["sha256"].fillna("").astype(str).tolist()
    parts = identity_parts(table, contents, record.look)
    return manifest.seal(folder, KIND, parts, hashes=(hashes or {}) | image_entries(folder))


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Replace a parquet file atomically; the index is not kept."""
    write_bytes(path, parquet_bytes(table))


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """A table as a parquet file; the index is not kept."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()
