"""MixStyle (Zhou et al. 2021): features of an image in the style of another one of its batch.

An image's style is the mean and deviation of each channel of its features, by which clinics and
cameras differ more than lesions do. It is mixed after the frozen blocks, where features still have
it, and in training only.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from dermsynth.distributed import Processes
from dermsynth.tensors import send

ALPHA = 0.1  # of Beta(alpha, alpha): mostly the one style or the other
EPSILON = 1e-6  # beside a variance


class Styles(NamedTuple):
    """Whose style each image of a share gets."""

    partner: torch.Tensor  # int64 [n], of the whole part of the batch, over all processes
    own: torch.Tensor  # float32 [n], the share of its own style; 1: it stays as it is


def draw_styles(
    rng: np.random.Generator, n: int, share: float, mine: slice, device: torch.device
) -> Styles:
    """Styles of n images, so often another's as `share` says; of them this process's."""
    partner = rng.permutation(n)
    own = np.where(rng.random(n) < share, rng.beta(ALPHA, ALPHA, n), 1).astype(np.float32)
    return Styles(send(partner[mine], device), send(own[mine], device))


def mix_styles(features: torch.Tensor, styles: Styles, processes: Processes) -> torch.Tensor:
    """Features [n, channels, h, w] in their new styles, of which gradients know nothing.

    In operations whose shapes do not depend on the dice. Other processes have as many images.
    """
    variance, mean = torch.var_mean(features.detach().float(), (2, 3), correction=0)
    own = torch.stack([mean, (variance + EPSILON).sqrt()])
    everybodys = own
    if processes.count > 1:
        others = processes.count - processes.rank - 1
        n = own.shape[1]
        everybodys = processes.sum_(F.pad(own, (0, 0, processes.rank * n, others * n)))
    weight = styles.own[:, None].to(own.dtype)
    mixed = torch.lerp(everybodys[:, styles.partner], own, weight)
    scale = mixed[1] / own[1]
    offset = mixed[0] - own[0] * scale
    scale, offset = (each[:, :, None, None].to(features.dtype) for each in (scale, offset))
    return features * scale + offset
