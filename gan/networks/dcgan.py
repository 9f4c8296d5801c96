"""DCGAN (Radford et al. 2016): strided convolutions and batch norm, for 32 to 256 px.

The paper's 64 px network has 64 channels at half the side, doubled at each halving down to 4x4 px;
larger images get more layers, up to `width` x 16 channels. The paper draws z uniformly, here it is
normal as for every architecture.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from gan.hyperparameters import Betas, Count, Hyperparameters, Loss, Rate, Width

LOWEST = 4  # side of the smallest feature map, pixels
WIDEST = 16  # times `width`


@dataclass(frozen=True, kw_only=True)
class Config(Hyperparameters):
    """The paper's optimizer; the width of both networks."""

    batch: Count = 16  # paper: 128, of millions of images
    lr_generator: Rate = 2e-4
    lr_discriminator: Rate = 2e-4
    betas: Betas = (0.5, 0.999)
    loss: Loss = "non-saturating"
    width: Width = 64  # channels at half the side
    z_dim: Width = 100


def channels(config: Config) -> list[int]:
    """Channels at 4x4 px, 8x8, ..., up to half the side."""
    halvings = (config.size // LOWEST).bit_length() - 1
    return [config.width * min(2**i, WIDEST) for i in range(halvings)][::-1]


class Generator(nn.Module):
    """z [n, latent_dim] from N(0, 1) -> [n, 3, size, size] float32 in -1..1."""

    def __init__(self, config: Config, inputs: int | None = None) -> None:
        super().__init__()
        self.latent_dim = config.z_dim
        widths = channels(config)
        layers = [nn.ConvTranspose2d(inputs or config.z_dim, widths[0], LOWEST, bias=False)]
        for inner, outer in pairwise(widths):
            layers += [nn.BatchNorm2d(inner), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1))
        self.apply(initialise)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return self.layers(z[:, :, None, None]).float().tanh()


class Discriminator(nn.Module):
    """[n, 3, size, size] in -1..1 -> one head: [[n, 1]] logits."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = channels(config)[::-1]
        layers = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for inner, outer in pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer)]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(widths[-1], 1, LOWEST)
        self.apply(initialise)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> list[torch.Tensor]:
        return [self.last(self.layers(x)).flatten(1)]


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02), as in the paper."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
