"""WGAN-GP (Gulrajani et al. 2017): residual networks, a critic without batch norm.

The generator is the one that SN-GAN took over from this paper. Its critic has the same blocks
without spectral norm; the gradient penalty holds it down.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from gan.hyperparameters import Betas, Count, Hyperparameters, Loss, Penalty, Rate, Weight, Width
from gan.networks import sngan


@dataclass(frozen=True, kw_only=True)
class Config(Hyperparameters):
    """The paper's loss and optimizer; the width of both networks."""

    lr_generator: Rate = 1e-4
    lr_discriminator: Rate = 1e-4
    betas: Betas = (0.0, 0.9)
    loss: Loss = "wasserstein"
    penalty: Penalty = "gp"
    penalty_weight: Weight = 10.0
    critic_steps: Count = 5
    width: Width = 256  # channels at 4x4 px; paper: 512 at 64 px
    latent_dim: Width = 128


Generator = sngan.Generator


class DownBlock(nn.Module):
    """[n, inner, s, s] -> [n, outer, s / 2, s / 2]: two convolutions and a shortcut."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, outer, 3, padding=1)
        self.shortcut = nn.Conv2d(inner, outer, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv2(F.relu(self.conv1(F.relu(x))))
        return F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2))


class Discriminator(nn.Module):
    """The critic: [n, 3, size, size] in -1..1 -> one head: [[n, 1]]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = sngan.channels(config)[::-1]
        blocks = (DownBlock(*pair) for pair in pairwise(widths))
        self.blocks = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), *blocks)
        self.last = nn.Linear(widths[-1] * sngan.LOWEST**2, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> list[torch.Tensor]:
        return [self.last(F.relu(self.blocks(x)).flatten(1))]
