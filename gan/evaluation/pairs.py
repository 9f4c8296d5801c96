"""Pairs of images: who is whose nearest neighbour, and five figures of how alike the two are.

PSNR, SSIM, MS-GMSD, MDSI and HaarPSI compare a picture with the one it should be. A synthetic
lesion should be no particular one, so that on pairs by index they say nothing. Here each is
compared with the real image nearest to it, turned and flipped to fit, and the same figures are
given for held-out real images: a generator that copies is more alike than real images are.
"""

from dataclasses import dataclass

import numpy as np
import torch

from dermsynth.symmetries import turn
from dermsynth.vision import library

BATCH = 32
FIGURES = {  # name: function of piq
    "psnr": "psnr",
    "ssim": "ssim",
    "ms_gmsd": "multi_scale_gmsd",
    "mdsi": "mdsi",
    "haarpsi": "haarpsi",
}


@dataclass(frozen=True)
class Nearest:
    """For each of q images its nearest real one."""

    index: np.ndarray  # int64 [q], of the real image
    version: np.ndarray  # int64 [q], the symmetry (0..7) of the image that is nearest to it


def nearest(distances: np.ndarray, best: np.ndarray) -> Nearest:
    """The nearest of r real images, from `metrics.nearest_distances`' two arrays [q, r]."""
    index = distances.argmin(1)
    return Nearest(index, best[np.arange(len(index)), index])


def aligned(images: np.ndarray, neighbours: Nearest) -> np.ndarray:
    """uint8 [q, s, s, 3]: each image turned and flipped as it is nearest to its neighbour."""
    turned = [turn(image, int(n)) for image, n in zip(images, neighbours.version, strict=True)]
    return np.stack(turned)


@torch.no_grad()  # XLA tensors cannot be made in inference mode
def figures(images: np.ndarray, references: np.ndarray) -> dict[str, np.ndarray]:
    """FIGURES of pairs of uint8 [n, s, s, 3]: each float64 [n].

    PSNR in dB, at most 80, SSIM (Wang et al. 2004) and HaarPSI (Reisenhofer et al. 2018), at most
    1: higher is more alike. MS-GMSD (Zhang et al. 2017) and MDSI (Nafchi et al. 2016): 0 for equal
    images, lower is more alike.
    """
    piq = library("piq")  # imported when needed: it takes seconds
    parts: dict[str, list[np.ndarray]] = {name: [] for name in FIGURES}
    for start in range(0, len(images), BATCH):
        batch, reference = (
            torch.from_numpy(np.array(kind[start : start + BATCH])).permute(0, 3, 1, 2) / 255
            for kind in (images, references)
        )
        for name, function in FIGURES.items():
            values = getattr(piq, function)(batch, reference, reduction="none")
            parts[name].append(values.double().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}
