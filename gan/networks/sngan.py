"""SN-GAN with residual blocks (Miyato et al. 2018, table 5), for square images of 32 to 256 px.

The paper's 128 px network has 1024 channels at 4x4 px, halved at each doubling of the side. `width`
is that number; 256 trains on a CPU. The discriminator mirrors the generator.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gan.hyperparameters import Betas, Count, Hyperparameters, Width

LOWEST = 4  # side of the smallest feature map, pixels


@dataclass(frozen=True, kw_only=True)
class Config(Hyperparameters):
    """The paper's optimizer and critic steps; the width of both networks."""

    width: Width = 256  # channels at 4x4 px
    latent_dim: Width = 128
    betas: Betas = (0.0, 0.9)
    critic_steps: Count = 5


def channels(config: Config) -> list[int]:
    """Channels after 4x4 px and after each doubling: width, width / 2, ..., at least 16."""
    doublings = (config.size // LOWEST).bit_length() - 1
    return [config.width] + [max(config.width >> i, 16) for i in range(doublings)]


class UpBlock(nn.Module):
    """[n, inner, s, s] -> [n, outer, 2s, 2s]: BN, ReLU, upsample, conv, twice, plus a shortcut."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(outer)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.shortcut = nn.Conv2d(inner, outer, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(_double(F.relu(self.norm1(x))))
        h = self.conv2(F.relu(self.norm2(h)))
        return h + _double(self.shortcut(x))  # a 1x1 convolution commutes with nearest upsampling


class Generator(nn.Module):
    """z [n, latent_dim] from N(0, 1) -> [n, 3, size, size] float32 in -1..1."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        widths = channels(config)
        self.first = nn.Linear(config.latent_dim, widths[0] * LOWEST**2)
        self.blocks = nn.Sequential(*map(UpBlock, widths[:-1], widths[1:]))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_rgb = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.apply(_initialise)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        h = self.first(z).unflatten(1, (-1, LOWEST, LOWEST))
        h = h.contiguous(memory_format=torch.channels_last)
        return self.to_rgb(F.relu(self.norm(self.blocks(h)))).float().tanh()


class DownBlock(nn.Module):
    """[n, inner, s, s] -> [n, outer, s / 2, s / 2] (or the same side), spectral norm, residual."""

    def __init__(self, inner: int, outer: int, first: bool = False, down: bool = True) -> None:
        super().__init__()
        self.first, self.down = first, down
        self.conv1 = spectral_norm(nn.Conv2d(inner, outer, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(outer, outer, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(inner, outer, 1)) if down else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(x if self.first else F.relu(x))
        h = self.conv2(F.relu(h))
        if not self.down:
            return h + x
        return F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2))


class Discriminator(nn.Module):
    """[n, 3, size, size] in -1..1 -> one head: [[n, 1]] logits."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = channels(config)[:0:-1]
        blocks = [DownBlock(3, widths[0], first=True)]
        blocks += map(DownBlock, widths[:-1], widths[1:])
        blocks.append(DownBlock(widths[-1], widths[-1], down=False))
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(widths[-1], 1)
        self.apply(_initialise)
        self.last = spectral_norm(self.last)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> list[torch.Tensor]:
        return [self.last(F.relu(self.blocks(x)).sum((2, 3)))]


def _double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _initialise(module: nn.Module) -> None:
    """Glorot uniform, as in the paper's code; spectral-norm layers keep torch's (it rescales)."""
    if isinstance(module, nn.Conv2d | nn.Linear) and not hasattr(module, "parametrizations"):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
