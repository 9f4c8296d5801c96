"""Augmentation as in published pipelines, by albumentations: one image at a time, seeded."""

import functools
import os
import random
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from classifier.options import AugmentName


@dataclass(frozen=True)
class SeededViews:
    """How to change each of n images: the pipeline, and where its dice begin."""

    name: AugmentName
    seeds: np.ndarray  # int64 [n]

    def take(self, rows: np.ndarray) -> "SeededViews":
        """The views of some of the images."""
        return SeededViews(self.name, self.seeds[rows])

    def apply(self, images: np.ndarray) -> torch.Tensor:
        """float32 [n, s, s, 3] in 0..1 of uint8 images [n, s, s, 3]."""
        pipeline, changed = _pipeline(self.name), np.empty_like(images)
        for at, seed in enumerate(self.seeds):
            # not set_random_seed: that gives every step the same dice, so that an image is either
            # flipped both ways or not at all
            pipeline.set_random_state(np.random.default_rng(seed), random.Random(int(seed)))
            changed[at] = pipeline(image=np.ascontiguousarray(images[at]))["image"]
        return torch.from_numpy(changed).float().div_(255)


@functools.cache
def _pipeline(name: AugmentName) -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network at import
    import albumentations as A  # here: it takes seconds, and the default needs it not

    flips = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
    rotate = A.Rotate((-180, 180), border_mode=cv2.BORDER_REFLECT_101, p=1.0)
    steps = {
        "mirror": flips[:1],
        "flips": flips,
        "rotate": [rotate],
        "student": [*flips, rotate, A.RandomBrightnessContrast(0.2, 0.2, p=0.5)],
        "siim": [*_moved(A), *flips, *_coloured(A)],
    }
    return A.Compose(steps[name])


def _moved(A: Any) -> list[Any]:
    """Turn, shear, zoom and shift of the SIIM-ISIC 2020 notebooks.

    They draw from normal distributions; these are uniform with the same standard deviations: 15
    degrees (or any angle), 2 degrees, an eighth, and 8 pixels of 256.
    """
    common: dict[str, Any] = {
        "scale": (0.78, 1.22),
        "translate_percent": (-0.054, 0.054),
        "shear": (-3.5, 3.5),
        "border_mode": cv2.BORDER_REPLICATE,
        "p": 1.0,
    }
    turned = [A.Affine(rotate=(-angle, angle), **common) for angle in (26, 180)]
    return [A.OneOf(turned, p=1.0)]


def _coloured(A: Any) -> list[Any]:
    jitter = {"contrast": (0.8, 1.2), "saturation": (0.7, 1.3), "hue": (-0.01, 0.01)}
    return [
        A.ColorJitter(brightness=(1.0, 1.0), **jitter, p=1.0),
        A.RandomBrightnessContrast(0.1, 0.0, brightness_by_max=True, p=1.0),
    ]
