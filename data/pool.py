"""Synthetic pools: the only thing that passes from a generator to a classifier.

A pool is `images.npy` and a `pool.json` that says where the images come from. The classifier
refuses a pool whose generator could have seen validation or test images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.store import SCHEMA_VERSION, Dataset, load_images, read_header, save_images
from dermsynth.errors import UserError, some
from dermsynth.files import new_folder, write_json

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

    `provenance["kind"]` says how far it can be trusted:

    - `generator`: made by `gan.generate`; holds the whole `generator.json` under `generator`
      (`folds_hash`, `fold`, `training_ids`) and the weights file's `sha256`,
    - `declared`: somebody vouches for it; their words are under `statement`,
    - `phantom`: drawn by the phantom's sampler, from no image at all,
    - `unknown`: refused by the classifier.

    Parameters
    ----------
    out : the folder
    images : uint8 [n, size, size, 3], RGB
    provenance : what the images were made by and from, as above
    overwrite : replace a pool at `out`
    png : write the images one by one under `png/` too
    """
    with new_folder(out, MARKER, overwrite) as folder:
        save_images(folder / "images.npy", images)
        save_header(folder, len(images), images.shape[1], provenance)
        if png:
            (folder / "png").mkdir()
            for number, image in enumerate(images):
                Image.fromarray(image).save(folder / "png" / f"{number:06d}.png")
    return load_pool(out)


def save_header(
    folder: Path,
    count: int,
    size: int,
    provenance: dict[str, Any],
    dropped: dict[str, list[str]] | None = None,
) -> None:
    """Write `pool.json` beside `images.npy`.

    Parameters
    ----------
    folder : where `images.npy` is
    count, size : how many images it holds, and their side in px
    provenance : as of `write_pool`
    dropped : files that were left out, by reason
    """
    header = {"schema_version": SCHEMA_VERSION, "count": count, "size": size}
    rest = {"dropped": dropped} if dropped else {}
    write_json(folder / MARKER, header | {"provenance": provenance} | rest)


def load_pool(path: Path) -> Pool:
    """Open a pool. Raises UserError naming what is missing or damaged."""
    info = read_header(
        path / MARKER,
        f"{path}: no synthetic pool there (no {MARKER}); make one with `python -m gan.generate`"
        f", or bring your images with `python -m data.prepare --source pool --root {path}`",
        "make the pool again",
    )
    if not isinstance(info.get("count"), int):
        raise UserError(f"{path / MARKER}: expected a count; make the pool again")
    return Pool(path, load_images(path, info["count"], "make the pool again"), info)


def leak(pool: Pool, dataset: Dataset, fold: int) -> str | None:
    """Why this pool may not be used to train on `fold` of `dataset`; None where it may.

    The reason names image ids that the generator saw and that would be validated or tested on.
    Raises UserError where a generator's pool does not say what it was trained on.
    """
    provenance = pool.info.get("provenance")
    kind = provenance.get("kind") if isinstance(provenance, dict) else None
    if kind == "phantom" or (kind == "declared" and provenance.get("statement")):
        return None
    if kind != "generator":
        return (
            f"{pool.path} does not say where its images come from. If none was made from images of "
            f"this dataset's validation or test part, declare it: `python -m data.prepare --source "
            f'pool --root FOLDER --provenance "made by ... from ..." --out {pool.path}`'
        )
    seen, made_on = _training_record(pool)
    held_out = np.concatenate([dataset.rows("val", fold), dataset.rows("test", fold)])
    leaked = [name for name in dataset.table["image_id"].to_numpy()[held_out] if name in seen]
    if leaked:
        return (
            f"the generator of {pool.path} was trained on {len(leaked)} images that fold {fold} of "
            f"{dataset.path} validates or tests on: {some(leaked)}. Train one on this fold: "
            f"`python -m gan.train --data {dataset.path} --fold {fold}`"
        )
    if made_on != dataset.folds_hash:
        return (
            f"the generator of {pool.path} was trained on other folds (folds_hash {made_on[:12]}, "
            f"this dataset has {dataset.folds_hash[:12]}), on {some(sorted(seen), 3)}. "
            f"Train one here: `python -m gan.train --data {dataset.path} --fold {fold}`"
        )
    return None


def _training_record(pool: Pool) -> tuple[set[str], str]:
    """Image ids that the pool's generator was trained on, and the folds_hash of their dataset."""
    generator = pool.info["provenance"].get("generator")
    record = generator if isinstance(generator, dict) else {}
    ids, made_on = record.get("training_ids"), record.get("folds_hash")
    named = isinstance(ids, list) and ids and all(isinstance(name, str) for name in ids)
    if not named or not isinstance(made_on, str):
        raise UserError(
            f"{pool.path / MARKER}: provenance.generator lacks training_ids (a list of image ids) "
            "or folds_hash; make the pool again with `python -m gan.generate`"
        )
    return set(ids), made_on
