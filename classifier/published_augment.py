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
        "rotate-flips": [*flips, A.Rotate((-180, 180), border_mode=cv2.BORDER_REPLICATE, p=1.0)],
        "student": [*flips, rotate, A.RandomBrightnessContrast(0.2, 0.2, p=0.5)],
        "siim": [_moved(A, (26, 180), SIIM), *flips, *_coloured(A, 0.1, 0.01)],
        "siim-b3": [*flips, *_coloured(A, 0.1, 0.01), _moved(A, (26, 180), B3)],
        "siim-b6": [_moved(A, (180,), B6), *flips, *_coloured(A, 0.2, 0.0)],
    }
    return A.Compose(steps[name])


@dataclass(frozen=True)
class Moves:
    """Most shear along x and y in degrees, change of scale, and shift as a share of the side."""

    shear: tuple[float, float]
    zoom: float
    shift: float


# The notebooks draw from normal distributions; these are uniform with the same standard deviation,
# sqrt(3) of which is the limit. That of the b3 notebook, at 384 px, draws each from the wider or
# the narrower of two normal distributions: shear of 5 or 2 degrees, zoom of 1/10 or 1/8, shift of
# 16 or 8 px; that of the b6 notebook, at 512 px, from the second alone.
B3 = Moves(shear=(6.6, 0.0), zoom=0.196, shift=0.057)
B6 = Moves(shear=(3.5, 0.0), zoom=0.217, shift=0.027)
SIIM = Moves(shear=(3.5, 3.5), zoom=0.22, shift=0.054)  # of neither: what `default` was tuned with


def _moved(A: Any, turns: tuple[int, ...], most: Moves) -> Any:
    """Turn, shear, zoom and shift; the turn is by up to one of `turns` degrees, each as often."""
    limits: dict[str, Any] = {
        "scale": (1 - most.zoom, 1 + most.zoom),
        "translate_percent": (-most.shift, most.shift),
        "shear": {axis: (-far, far) for axis, far in zip("xy", most.shear, strict=True)},
        "border_mode": cv2.BORDER_REPLICATE,
        "p": 1.0,
    }
    return A.OneOf([A.Affine(rotate=(-angle, angle), **limits) for angle in turns], p=1.0)


def _coloured(A: Any, brightness: float, hue: float) -> list[Any]:
    """Contrast, saturation, hue (of the circle) and brightness (of the whole range, added)."""
    jitter = {"contrast": (0.8, 1.2), "saturation": (0.7, 1.3), "hue": (-hue, hue)}
    return [
        A.ColorJitter(brightness=(1.0, 1.0), **jitter, p=1.0),
        A.RandomBrightnessContrast(brightness, 0.0, brightness_by_max=True, p=1.0),
    ]
