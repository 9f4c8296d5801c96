"""Images that a data set packs into one file: HDF5 (ISIC 2024), npz arrays (MedMNIST).

An image of an HDF5 file is a piece of that file, read where it lies. Pixels of an npz are
compressed as a whole: each image becomes a PNG in memory, 10,000 at 128 px 300 MB.
"""

import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from data.images.files import Encoded, find_files, leads_out
from data.images.opening import MIN_SIDE
from data.sources.listing import Listing, SourceOptions
from data.sources.rows import Rows, listing
from dermsynth import progress
from dermsynth.errors import UserError

DERMAMNIST = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")  # by label
PARTS = ("train", "val", "test")
FACTS = {
    "licence": "CC BY-NC 4.0",
    "citation": "Yang et al.: MedMNIST v2. Scientific Data 10 (2023), "
    "doi:10.1038/s41597-022-01721-8; images of HAM10000, doi:10.1038/sdata.2018.161",
}


def hdf5_images(root: Path) -> dict[str, Encoded]:
    """Where the images of the HDF5 files below `root` lie, by the name of their dataset.

    Raises UserError for a damaged file, and where h5py is not installed.
    """
    paths = [p for p in find_files(root) if p.suffix.lower() in (".hdf5", ".h5")]
    if not paths:
        return {}
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{paths[0]}: reading HDF5 needs the package h5py: pip install 'dermsynth[hdf5]', or "
            "unpack the JPEGs beside it"
        ) from None
    images: dict[str, Encoded] = {}
    for path in paths:
        if leads_out(path, root):
            raise UserError(f"{path}: a link that leads out of the folder; put the file there")
        try:
            with (
                h5py.File(path) as file,
                progress.bar(len(file), f"reading {path.name}", "image") as bar,
            ):
                for name in file:
                    images[name] = _piece(path, name, h5py.h5o.open(file.id, name.encode()))
                    bar.update(1)
        except OSError as error:
            raise UserError(
                f"{path}: not an HDF5 file, or damaged ({error}); download it again"
            ) from None
    return images


def _piece(path: Path, name: str, item: Any) -> Encoded:
    """Where an object of an HDF5 file lies. Raises UserError unless it is one piece of bytes."""
    offset = item.get_offset() if hasattr(item, "get_offset") else None
    if offset is None:
        raise UserError(
            f"{path}: {name} is no image in one piece; expected the file as Kaggle has it, or the "
            "JPEGs in a folder"
        )
    return Encoded(path, offset, item.get_storage_size())


def list_dermamnist(root: Path, options: SourceOptions) -> Listing:
    """One row an image of `dermamnist_128.npz` and its like. Raises UserError."""
    paths = [p for p in find_files(root) if p.name.lower().startswith("dermamnist")]
    paths = [path for path in paths if path.suffix.lower() == ".npz"]
    if len(paths) != 1:
        raise UserError(
            f"--root {root}: {len(paths)} files dermamnist*.npz below it; expected one (of 64, 128 "
            "or 224 px: they show the same images)"
        )
    path = paths[0]
    rows: dict[str, list[object]] = {"image_id": [], "where": [], "diagnosis": [], "path": []}
    for part in PARTS:
        images, labels = _arrays(path, part)
        for number, image in enumerate(images):
            _, png = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
            rows["image_id"].append(f"{part}_{number:05d}")
            rows["where"].append(f"{path.name} {part}_images[{number}]")
            rows["diagnosis"].append(DERMAMNIST[labels[number]])
            rows["path"].append(Encoded(path, len(rows["path"]), content=png.tobytes()))
    raw = pd.DataFrame(rows, dtype=object)
    facts = FACTS | {"metadata": path.name}
    return listing("dermamnist", root, options, Rows(raw), facts)


def _arrays(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, side, side, 3] and labels int64 [n] of a part. Raises UserError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file[f"{part}_images"], file[f"{part}_labels"].reshape(-1)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not as MedMNIST has it ({error}); expected {part}_images and {part}_labels; "
            "download it again"
        ) from None
    side = images.shape[1] if images.ndim == 4 else 0
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(
            f"{path}: {part}_images is {images.dtype} {list(images.shape)}; expected uint8 "
            "[n, side, side, 3]"
        )
    if side < MIN_SIDE:
        raise UserError(
            f"{path}: images of {side} px; at least {MIN_SIDE} px are needed: take "
            "dermamnist_128.npz (medmnist.DermaMNIST(size=128, download=True))"
        )
    if len(labels) != len(images) or not set(np.unique(labels)) <= set(range(len(DERMAMNIST))):
        raise UserError(f"{path}: {part}_labels: expected {len(images)} numbers from 0 to 6")
    return images, labels.astype(np.int64)
