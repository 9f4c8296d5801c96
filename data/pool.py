"""Synthetic pools: the only thing that passes from a generator to a classifier.

A pool is `images.npy` and a `pool.json` that says where the images come from. The classifier
refuses a pool whose generator could have seen validation or test images. The record guards against
mistakes, not against intent.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.provenance import CIRCUMSTANCES, GeneratorRecord, PoolRecord, Provenance
from data.store import (
    SPLIT_PARTS,
    Dataset,
    image_entries,
    load_images,
    save_images,
    stored_hashes,
)
from dermsynth import manifest
from dermsynth.errors import counted, some
from dermsynth.folders import whole_folder
from dermsynth.manifest import Identity, Input, digest, open_sealed
from dermsynth.records import write_record
from dermsynth.row_hashes import CheckedRows

KIND, HEADER = "pool", "pool.json"


@dataclass(frozen=True)
class Pool:
    """Synthetic malignant images with their provenance."""

    path: Path
    images: CheckedRows  # uint8 [n, size, size, 3], RGB; on disk until read
    info: PoolRecord
    identity: Identity  # by which it is compared, wherever it lies

    @property
    def as_input(self) -> Input:
        """Its identity, as an input of something else."""
        return manifest.as_input(self.identity, self.path)


def write_pool(
    out: Path,
    images: np.ndarray,
    provenance: Provenance,
    overwrite: bool = False,
    png: bool = False,
) -> Pool:
    """Write a pool folder, whole or not at all, and open it.

    Parameters
    ----------
    out : the folder
    images : uint8 [n, size, size, 3], RGB
    provenance : what the images were made by and from
    overwrite : replace a pool at `out`
    png : write the images one by one under `png/` too
    """
    with whole_folder(out, KIND, overwrite) as folder:
        save_images(folder, images)
        if png:
            save_pngs(folder, images)
        seal_pool(
            folder, PoolRecord(count=len(images), size=images.shape[1], provenance=provenance)
        )
    return load_pool(out)


def save_pngs(folder: Path, images: np.ndarray, first: int = 0) -> None:
    """Write images one by one under `png/`, numbered from `first`."""
    (folder / "png").mkdir(exist_ok=True)
    for number, image in enumerate(images, first):
        Image.fromarray(image).save(folder / "png" / f"{number:06d}.png")


def seal_pool(folder: Path, record: PoolRecord, inputs: dict[str, Input] | None = None) -> Identity:
    """Write `pool.json` beside the images, and finish.

    `inputs`: what they were made from, a generator.
    """
    write_record(folder / HEADER, record)
    parts = {
        "images": digest(stored_hashes(folder)),
        "provenance": digest(record.provenance.model_dump(exclude={"generator": CIRCUMSTANCES})),
    }
    return manifest.seal(folder, KIND, parts, inputs, hashes=image_entries(folder))


def load_pool(path: Path) -> Pool:
    """Open a pool. Raises UserError naming what is missing or damaged."""
    sealed = open_sealed(
        path,
        KIND,
        f"{path}: no synthetic pool there; make one with `python -m gan.generate`, or bring your "
        f"images with `python -m data.prepare --source pool --root {path}`",
        "make the pool again",
    )
    info = sealed.record(HEADER, PoolRecord)
    return Pool(path, load_images(sealed, info.count), info, sealed.identity)


def leak(provenance: Provenance, source: Path, dataset: Dataset, fold: int) -> str | None:
    """Why images of this provenance may not be used to train on `fold`; None where they may.

    The reason names image ids that the generator saw and that would be validated or tested on.
    `source` is the pool, or the generator's run.
    """
    kind = provenance.kind
    if kind == "phantom" or (kind == "declared" and provenance.statement):
        return None
    record = provenance.generator
    if kind != "generator" or record is None:
        return (
            f"{source} does not say where its images come from. If none was made from images of "
            f"this dataset's validation or test part, declare it: `python -m data.prepare --source "
            f'pool --root FOLDER --provenance "made by ... from ..." --out {source}`'
        )
    return _generator_leak(record, source, dataset, fold)


def _generator_leak(
    record: GeneratorRecord, source: Path, dataset: Dataset, fold: int
) -> str | None:
    seen, retrain = set(record.training_ids), f"`python -m gan.train --data {dataset.path}"
    held_out = np.concatenate([dataset.rows("val", fold), dataset.rows("test", fold)])
    leaked = [name for name in dataset.table["image_id"].to_numpy()[held_out] if name in seen]
    if leaked:
        return (
            f"the generator of {source} was trained on {counted(len(leaked), 'image')} that "
            f"fold {fold} of {dataset.path} validates or tests on: {some(leaked)}. "
            f"Train one on this fold: {retrain} --fold {fold}{dataset.view.flags}`"
        )
    pixels = tuple(name for name in dataset.identity.parts if name not in SPLIT_PARTS)
    if others := dataset.identity.differences(record.dataset_identity, ignoring=pixels):
        return (
            f"the generator of {source} was trained on another dataset or other folds (other "
            f"{', '.join(others)} than {dataset.path}), on {some(sorted(seen), 3)}. Train one "
            f"here: {retrain} --fold {fold}{dataset.view.flags}`"
        )
    return None


def is_malignant(provenance: Provenance, dataset: Dataset) -> bool:
    """Whether synthetic images are of target 1: labelled so, or of a class that is."""
    classes = provenance.generator.classes if provenance.generator else []
    ones = [one.name for one in classes if one.target == 1]
    positive = dataset.info.target.positive or ("mel",)  # a melanoma is malignant in any words
    return provenance.label in ("malignant", *ones, *positive)
