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

    MixUp mixes a whole batch by one share, with probability `options.mixup`. CutMix decides for
    each image of the others, with its own partner and box, so often that the share `options.cutmix`
    of all images is mixed by it (their sum is at most 1). Targets become soft: the share of the
    pixels, or of the weight.
    """
    if rng.random() < options.mixup:
        partner = torch.from_numpy(rng.permutation(len(images)))
        share = float(rng.beta(MIXUP_ALPHA, MIXUP_ALPHA))
        mixed = torch.lerp(images[partner], images, share)
        return mixed, torch.lerp(targets[partner], targets, share)
    cut = rng.random(len(images)) * (1 - options.mixup) < options.cutmix
    if not cut.any():
        return images, targets
    return _cut_and_paste(images, targets, np.flatnonzero(cut), rng)


def _cut_and_paste(
    images: torch.Tensor, targets: torch.Tensor, chosen: np.ndarray, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """CutMix of the images `chosen`, int64 [m]; what is pasted comes from images as they were."""
    side, mixed, soft = images.shape[-1], images.clone(), targets.clone()
    for number, partner in zip(chosen, rng.integers(len(images), size=len(chosen)), strict=True):
        top, left, height, width = _box(side, rng)
        place = (slice(None), slice(top, top + height), slice(left, left + width))
        mixed[number][place] = images[partner][place]
        soft[number] = torch.lerp(targets[partner], targets[number], 1 - height * width / side**2)
    return mixed, soft


def _box(side: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random square, cut off where it leaves the image."""
    half = side * np.sqrt(1 - rng.random()) / 2
    centre = rng.integers(side, size=2)
    low, high = np.clip(np.stack([centre - half, centre + half]), 0, side).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
