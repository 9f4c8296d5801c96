"""Training views: `--augment`.

The default, dihedral-colour, works on whole batches: dermoscopy has no up and no down, so the eight
symmetries of the square are exact; colour changes as between cameras: brightness, white balance,
saturation, contrast. The others are albumentations pipelines, an image at a time
(classifier.published_augment).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from classifier.published_augment import AugmentName, SeededViews
from dermsynth.symmetries import turn_each

BRIGHTNESS, BALANCE, SATURATION, CONTRAST = 0.15, 0.03, 0.15, 0.15
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Views:
    """How to change each of n images."""

    symmetry: np.ndarray  # int64 [n], 0..7: quarter turns + 4 if mirrored
    colour: np.ndarray  # float32 [n, 3, 3]: RGB in 0..1 is multiplied by this from the left
    contrast: np.ndarray  # float32 [n]: distance from the image's mean colour, 1 leaves it

    def take(self, rows: np.ndarray) -> "Views":
        """The views of some of the images."""
        return Views(self.symmetry[rows], self.colour[rows], self.contrast[rows])

    def apply(self, images: np.ndarray) -> torch.Tensor:
        """float32 [n, s, s, 3] in 0..1 of uint8 images [n, s, s, 3]."""
        batch = torch.from_numpy(np.ascontiguousarray(images))
        pixels = turn_each(batch, self.symmetry).float().div_(255).flatten(1, 2)  # [n, s*s, 3]
        matrix = torch.from_numpy(self.colour * self.contrast[:, None, None]).transpose(1, 2)
        mean = pixels.mean(1, keepdim=True) @ torch.from_numpy(self.colour).transpose(1, 2)
        offset = mean * torch.from_numpy(1 - self.contrast)[:, None, None]
        pixels = torch.baddbmm(offset, pixels, matrix).clamp_(0, 1)
        return pixels.unflatten(1, batch.shape[1:3])


def draw_views(
    rng: np.random.Generator, n: int, name: AugmentName = "dihedral-colour"
) -> Views | SeededViews | None:
    """Random views for n images; None where they stay as they are."""
    if name == "none":
        return None
    if name != "dihedral-colour":
        return SeededViews(name, rng.integers(2**31, size=n))
    symmetry = rng.integers(8, size=n)
    gain = np.exp(rng.uniform(-BRIGHTNESS, BRIGHTNESS, (n, 1)))
    gain = (gain * np.exp(rng.normal(0, BALANCE, (n, 3)))).astype(np.float32)
    saturation = rng.uniform(1 - SATURATION, 1 + SATURATION, (n, 1, 1)).astype(np.float32)
    contrast = rng.uniform(1 - CONTRAST, 1 + CONTRAST, n).astype(np.float32)
    grey = np.broadcast_to(LUMA, (3, 3))  # each row turns RGB into its brightness
    colour = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * grey
    return Views(symmetry, gain[:, :, None] * colour, contrast)


def load_batch(images: np.ndarray, size: int, views: Views | SeededViews | None) -> torch.Tensor:
    """What the network sees: float32 [n, 3, size, size] in 0..1, channels last.

    `images` uint8 [n, s, s, 3], real or synthetic: all pixels take this one path. `views` None
    leaves them as they are (validation, test).
    """
    if images.shape[1] != size:
        images = np.stack([_resize(image, size) for image in images])
    if views is not None:
        return views.apply(images).permute(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(images)).float().div_(255).permute(0, 3, 1, 2)


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    way = cv2.INTER_AREA if size < image.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(image, (size, size), interpolation=way)
