"""Images to measure with, of any number and size, made in seconds: phantoms, blended and turned."""

import functools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from data.on_device import resized
from data.phantom.config import PhantomConfig
from data.phantom.sampling import sample_dataset
from data.store import COLUMNS, write_dataset

DRAWN = 100  # phantoms that are really drawn, or about as many
LARGEST_DRAWN = 128  # px
SHADE = 40.0  # grey levels, deviation of the colours at 6x6 places
FOLDS = 5


def images(count: int, size: int, scratch: Path) -> np.ndarray:
    """uint8 [count, size, size, 3], a memory map in `scratch`: blends of two phantoms, cropped,
    turned and shaded, each by itself, so that few are near-duplicates of others.
    """
    drawn = phantoms(size)
    path = scratch / f"made-up-{count}-{size}.npy"
    shape = (count, size, size, 3)
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    rng = np.random.default_rng(0)
    for number in range(count):
        one, other = drawn[rng.integers(len(drawn), size=2)]
        share = rng.uniform(0.3, 0.7)
        blend = cv2.addWeighted(one, share, other, 1 - share, 0)
        side = int(rng.uniform(0.6, 1) * size)
        top, left = rng.integers(0, size - side + 1, 2)
        part = np.rot90(blend[top : top + side, left : left + side], rng.integers(4))
        shade = rng.normal(0, SHADE, (6, 6, 3)).astype(np.float32)
        image = cv2.resize(np.ascontiguousarray(part), (size, size)).astype(np.float32)
        image += cv2.resize(shade, (size, size), interpolation=cv2.INTER_CUBIC)
        made[number] = image.clip(0, 255)
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
