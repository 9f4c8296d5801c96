"""CutMix (Yun et al. 2019) and MixUp (Zhang et al. 2018): batches mixed with themselves."""

import numpy as np
import torch

from classifier.options import AugmentationOptions
from dermsynth.tensors import send

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
    n, side = len(images), images.shape[-1]
    boxes, inside = np.zeros((n, 4), np.int64), np.zeros(n)
    if rng.random() < options.mixup:
        partner = rng.permutation(n)
        boxes[:] = (0, 0, side, side)
        inside[:] = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA)
    else:
        chosen = np.flatnonzero(rng.random(n) * (1 - options.mixup) < options.cutmix)
        partner = np.arange(n)
        partner[chosen] = rng.integers(n, size=len(chosen))
        boxes[chosen] = np.array([_box(side, rng) for _ in chosen]).reshape(-1, 4)
    own = 1 - (1 - inside) * boxes[:, 2] * boxes[:, 3] / side**2
    return _blend(images, targets, partner, boxes, inside, own)


def _blend(
    images: torch.Tensor,
    targets: torch.Tensor,
    partner: np.ndarray,
    boxes: np.ndarray,
    inside: np.ndarray,
    own: np.ndarray,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each image with its partner, in operations whose shapes do not depend on the dice.

    `boxes` int64 [n, 4]: top, left, height, width; `inside` [n]: the image's own weight in its box,
    outside it is 1; `own` [n]: in the target.
    """
    device = images.device
    others, corners = send(partner, device), send(boxes, device)
    side = torch.arange(images.shape[-1], device=device)
    begins, ends = corners[:, :2], corners[:, :2] + corners[:, 2:]
    rows, columns = (
        (side >= begins[:, axis, None]) & (side < ends[:, axis, None]) for axis in (0, 1)
    )
    box = (rows[:, :, None] & columns[:, None, :])[:, None]
    weight = send(inside.astype(np.float32), device)[:, None, None, None]
    mixed = torch.where(box, torch.lerp(images[others], images, weight), images)
    share = send(own.astype(np.float32), device)[:, None]
    return mixed, torch.lerp(targets[others], targets, share)


def _box(side: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random square, cut off where it leaves the image."""
    half = side * np.sqrt(1 - rng.random()) / 2
    centre = rng.integers(side, size=2)
    low, high = np.clip(np.stack([centre - half, centre + half]), 0, side).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
