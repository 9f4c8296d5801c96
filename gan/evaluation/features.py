"""The evaluation networks: what a picture looks like to somebody who never saw the GAN.

Two of them, because neither can judge alone. `imagenet` is EfficientNet-Lite0 (Tan and Le 2019,
without squeeze-excite) with the ImageNet weights that its package ships: sharp on texture and
noise, dull on diagnoses, and a relative of whatever discriminator learned from ImageNet too.
`diagnosis` is a small residual network that learned the diagnoses of the dataset's training folds
from nothing (diagnosis_network): sharp on what tells a melanoma from a naevus, dull on the rest.
Scores of either compare runs of this project, not with FID or KID of papers, which use Inception.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dermsynth import efficientnet_lite, progress
from dermsynth.device import Compute

NETWORK = "efficientnet-lite0-imagenet"
BATCH = 32


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that turns images, float [n, 3, s, s] in 0..1, into features, float [n, d]."""

    name: str  # scores of one name only can be compared
    module: nn.Module


class ImageNetFeatures(nn.Module):
    """EfficientNet-Lite0's last feature map, averaged: [n, 3, s, s] in 0..1 -> [n, 1280]."""

    def __init__(self) -> None:
        super().__init__()
        self.network = efficientnet_lite.pretrained("efficientnet-lite0", size=224)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images to features."""
        x = (x - efficientnet_lite.MEAN) / efficientnet_lite.STD
        return self.network.extract_features(x).float().mean((2, 3))


def imagenet_network() -> FeatureNetwork:
    """EfficientNet-Lite0 in eval mode; features [n, 1280]."""
    return FeatureNetwork(NETWORK, ImageNetFeatures().eval().requires_grad_(False))


@torch.no_grad()
def extract(
    images: np.ndarray, compute: Compute, what: str, network: FeatureNetwork | None = None
) -> np.ndarray:
    """Features of uint8 [n, size, size, 3] RGB, at their own size: float32 [n, d], not negative.

    `what` names the images on the progress bar. Without a `network` it is `imagenet_network()`.
    """
    module = (network or imagenet_network()).module
    module = module.to(compute.device, memory_format=torch.channels_last)
    parts = []
    with progress.bar(len(images), f"features of {what}", "img") as bar:
        for start in range(0, len(images), BATCH):
            rows = np.arange(start, min(start + BATCH, len(images)))
            batch = as_input(images[compute.filled(rows, BATCH)], compute)
            with compute.autocast():
                features = module(batch)
            parts.append(features.float().cpu().numpy()[: len(rows)])
            bar.update(len(rows))
    return np.concatenate(parts)


def as_input(images: np.ndarray, compute: Compute) -> torch.Tensor:
    """uint8 [n, size, size, 3] -> float [n, 3, size, size] in 0..1 on the device."""
    batch = torch.from_numpy(np.array(images))  # a copy: stores are read-only
    return batch.to(compute.device).permute(0, 3, 1, 2).float().div(255)
