"""CutMix (Yun et al. 2019) and MixUp (Zhang et al. 2018): batches mixed with themselves."""

import numpy as np
import torch

from classifier.options import AugmentationOptions

MIXUP_ALPHA = 0.4  # Beta(alpha, alpha) of MixUp; CutMix draws the share uniformly, Beta(1, 1)


def mix_batch(
    images: torch.Tensor,
    targets: torch.Tensor,
    rng: np.random.Generator,
    options: AugmentationOptions,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float [n, 3, s, s] and targets float [n, k], mixed or as they were.

    A batch is mixed by CutMix with probability `options.cutmix`, by MixUp with probability
    `options.mixup` (their sum at most 1). Targets become soft: the share of the pixels, or of the
    weight.
    """
    kind, partner = rng.random(), torch.from_numpy(rng.permutation(len(images)))
    if kind < options.cutmix:
        top, left, height, width = _box(images.shape[-1], rng)
        images = images.clone()
        patch = images[partner, :, top : top + height, left : left + width]
        images[:, :, top : top + height, left : left + width] = patch
        share = 1 - height * width / images.shape[-1] ** 2
    elif kind < options.cutmix + options.mixup:
        share = float(rng.beta(MIXUP_ALPHA, MIXUP_ALPHA))
        images = torch.lerp(images[partner], images, share)
    else:
        return images, targets
    return images, torch.lerp(targets[partner], targets, share)


def _box(side: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random square, cut off where it leaves the image."""
    half = side * np.sqrt(1 - rng.random()) / 2
    centre = rng.integers(side, size=2)
    low, high = np.clip(np.stack([centre - half, centre + half]), 0, side).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
