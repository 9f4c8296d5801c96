"""Synthetic pools: the only thing that passes from a generator to a classifier.

A pool is `images.npy` and a `pool.json` that says where the images come from. The classifier
refuses a pool whose generator could have seen validation or test images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.store import Dataset, save_images
from runtime.errors import UserError, some
from runtime.files import new_folder, read_json, write_json

SCHEMA_VERSION = 1
MARKER = "pool.json"


@dataclass(frozen=True)
class Pool:
    """Synthetic malignant images with their provenance."""

    path: Path
    images: np.ndarray  # uint8 [n, size, size, 3], RGB, memory-mapped
    info: dict[str, Any]  # pool.json


def write_pool(
    out: Path,
    images: np.ndarray,
    provenance: dict[str, Any],
    overwrite: bool = False,
    png: bool = False,
) -> Pool:
    """Write a pool folder, whole or not at all, and open it.

    `images` uint8 [n, size, size, 3]. `provenance["kind"]` says how far it can be trusted:

    - `generator`: made by `gan.generate`; holds the whole `generator.json` under `generator`
      (`folds_hash`, `fold`, `training_ids`) and the weights file's `sha256`,
    - `declared`: somebody vouches for it; their words are under `statement`,
    - `phantom`: drawn by the phantom's sampler, from no image at all,
    - `unknown`: refused by the classifier.

    `png` writes the images one by one under `png/` too.
    """
    with new_folder(out, MARKER, overwrite) as folder:
        save_images(folder / "images.npy", images)
        header = {"schema_version": SCHEMA_VERSION, "count": len(images), "size": images.shape[1]}
        write_json(folder / MARKER, header | {"provenance": provenance})
        if png:
            (folder / "png").mkdir()
            for number, image in enumerate(images):
                Image.fromarray(image).save(folder / "png" / f"{number:06d}.png")
    return load_pool(out)


def load_pool(path: Path) -> Pool:
    """Open a pool. Raises UserError naming what is missing or damaged."""
    if not (path / MARKER).exists():
        raise UserError(
            f"{path}: no synthetic pool there (no {MARKER}); make one with `python -m gan.generate`"
            f", or bring your images with `python -m data.prepare --source pool --root {path}`"
        )
    info = read_json(path / MARKER)
    try:
        images = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); make the pool again") from None
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != info.get("count"):
        raise UserError(f"{path}: images.npy does not match {MARKER}; make the pool again")
    return Pool(path, images, info)


def leak(pool: Pool, dataset: Dataset, fold: int) -> str | None:
    """Why this pool may not be used to train on `fold` of `dataset`; None where it may.

    The reason names image ids that the generator saw and that would be validated or tested on.
    """
    provenance = pool.info.get("provenance", {})
    kind = provenance.get("kind", "unknown")
    if kind == "unknown":
        return (
            f"{pool.path} does not say where its images come from. If none was made from images of "
            f"this dataset's validation or test part, declare it: `python -m data.prepare --source "
            f'pool --root FOLDER --provenance "made by ... from ..." --out {pool.path}`'
        )
    if kind != "generator":
        return None
    generator = provenance["generator"]
    seen = set(generator["training_ids"])
    held_out = np.concatenate([dataset.rows("val", fold), dataset.rows("test", fold)])
    held_out_ids = dataset.table["image_id"].to_numpy()[held_out]
    met = [image_id for image_id in held_out_ids if image_id in seen]
    if met:
        return (
            f"the generator of {pool.path} was trained on {len(met)} images that fold {fold} of "
            f"{dataset.path} validates or tests on: {some(met)}. Train one on this fold: "
            f"`python -m gan.train --data {dataset.path} --fold {fold}`"
        )
    if generator["folds_hash"] != dataset.folds_hash:
        return (
            f"the generator of {pool.path} was trained on other folds (folds_hash "
            f"{generator['folds_hash'][:12]}, this dataset has {dataset.folds_hash[:12]}), on "
            f"{some(sorted(seen), 3)}. Train one here: "
            f"`python -m gan.train --data {dataset.path} --fold {fold}`"
        )
    return None
