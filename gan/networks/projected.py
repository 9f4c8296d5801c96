"""Projected GAN (Sauer et al. 2021): the discriminator sees ImageNet features, not pixels.

FastGAN's generator against the heads of gan.networks.frozen alone. The defaults suit a CPU; beside
each stands the paper's value. The paper takes its features at 224 px, here it is the images' own
side, but at least 128 px.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from dermsynth.errors import UserError
from dermsynth.options import Between
from gan.hyperparameters import Betas, Count, Hyperparameters, Width
from gan.networks import fastgan, frozen

LEAST_SIDE = 128  # below, the coarsest map of the features has fewer than 4x4 px

Side = Annotated[int, Between(32, 1024)]  # px


@dataclass(frozen=True, kw_only=True)
class Config(Hyperparameters):
    """Lean values for a CPU; behind each the paper's, for a GPU."""

    batch: Count = 32  # paper: 64
    betas: Betas = (0.0, 0.99)
    ngf: Width = 16  # generator's width; paper: 64
    z_dim: Width = 256  # latent that decides the content; noise planes come on top
    mix: Width = 64  # channels of the finest mixture, doubled at each coarser one
    feature_size: Side | None = None  # side the features are taken at; images' own; paper: 224


Generator = fastgan.Generator


class Discriminator(nn.Module):
    """[n, 3, size, size] in -1..1 -> patch logits, one head a scale from fine to coarse.

    Raises UserError for a feature_size that does not suit.
    """

    sees: ClassVar[str] = frozen.NAME  # evaluate by a network unlike it

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.side = config.feature_size or max(config.size, LEAST_SIDE)
        if self.side < LEAST_SIDE or self.side % 32:
            raise UserError(
                f"feature_size {self.side}: expected a multiple of 32 px from {LEAST_SIDE} px on"
            )
        self.judge = frozen.FeatureHeads(self.side, config.mix)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> list[torch.Tensor]:
        if x.shape[-1] != self.side:
            smaller = self.side < x.shape[-1]
            x = F.interpolate(x, (self.side,) * 2, mode="bilinear", antialias=smaller)
        return self.judge(x)
