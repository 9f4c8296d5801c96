"""Images to measure with, of any number and size, made in seconds: phantoms, turned and tinted."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from data.on_device import resized
from data.phantom.config import PhantomConfig
from data.phantom.sampling import sample_dataset
from data.store import COLUMNS, write_dataset

DRAWN = 100  # phantoms that are really drawn, or about as many
LARGEST_DRAWN = 128  # px
FOLDS = 5
BLOCK = 4096  # images that are made at a time


def images(count: int, size: int, scratch: Path) -> np.ndarray:
    """uint8 [count, size, size, 3], a memory map in `scratch`."""
    drawn = phantoms(size)
    path = scratch / f"made-up-{count}-{size}.npy"
    shape = (count, size, size, 3)
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    rng = np.random.default_rng(0)
    for start in range(0, count, BLOCK):
        numbers = np.arange(start, min(start + BLOCK, count))
        block = drawn[numbers % len(drawn)]
        turns = rng.integers(0, 4, len(numbers))
        block = np.stack([np.rot90(image, turn) for image, turn in zip(block, turns, strict=True)])
        tint = rng.integers(-20, 21, (len(numbers), 1, 1, 3))
        made[numbers] = np.clip(block + tint, 0, 255)
    return made


@functools.lru_cache(4)
def phantoms(size: int) -> np.ndarray:
    """uint8 [about DRAWN, size, size, 3]; large ones are drawn smaller and enlarged, in seconds."""
    drawn, _, _ = sample_dataset(PhantomConfig(DRAWN // 3, size=min(size, LARGEST_DRAWN)), 0)
    return resized(drawn, size)


def dataset(path: Path, count: int, size: int, malignant: float = 0.5) -> Path:
    """A dataset of images, a patient each, in FOLDS folds and a test part of as many."""
    table = pd.DataFrame({column: [None] * count for column in COLUMNS})
    numbers = np.arange(count)
    table["image_id"] = [f"i{number:06d}" for number in numbers]
    # 7 and 6 have no common factor: every fold has both targets
    table["target"] = (numbers * 7 % 10 < 10 * malignant).astype(int)
    table["patient_id"] = table["lesion_id"] = table["image_id"]
    table["group"], table["fold"] = numbers, numbers // 10 % (FOLDS + 1) - 1
    table["diagnosis"] = np.where(table["target"] == 1, "melanoma", "nevus")
    write_dataset(path, images(count, size, path.parent), table, {})
    return path


def files(pixels: np.ndarray, folder: Path) -> list[Path]:
    """The images as JPEGs, as a training script reads them."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path, quality=90)
    return paths
