"""FastGAN (Liu et al. 2021): few images, one GPU, for square images of 64 to 256 px.

The generator has one convolution a resolution, noise, gated linear units, and skip-layer
excitation: a map of 4, 8 or 16 px weighs the channels of the one sixteen times as large. The
discriminator, all of whose layers have spectral norm, judges the image and the image at half the
side, and must keep enough to draw real images again from its feature maps: the whole image and a
quarter of it.

What differs: the paper's generator draws the small image by an output of its own, here it is the
large one, averaged; its perceptual reconstruction loss needs VGG weights that would have to be
downloaded, here it is L1 on pixels at three scales; the authors' code has a second convolution at
8, 32 and 128 px, the paper has not.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from gan.hyperparameters import Betas, Count, Hyperparameters, Width
from gan.networks.layers import DownBlock, glu, normed_conv, normed_layers

LOWEST, COARSE = 4, 8  # sides of the smallest map of the generator and of the discriminator
SKIP = 16  # skip-layer excitation reaches from a side to this multiple of it
GENERATOR_WIDTHS = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5}  # by side, times ngf
WIDTHS = {8: 8, 16: 4, 32: 2, 64: 1, 128: 0.5, 256: 0.25}  # discriminator, times ndf


@dataclass(frozen=True, kw_only=True)
class Config(Hyperparameters):
    """The paper's values."""

    batch: Count = 8
    betas: Betas = (0.5, 0.999)
    ngf: Width = 64  # generator: ngf channels at 128x128, 16 ngf at 4x4
    ndf: Width = 64  # discriminator: ndf channels at 64x64, 8 ndf at 8x8
    z_dim: Width = 256  # latent that decides the content; noise planes come on top


class UpBlock(nn.Module):
    """[n, inner, s, s] -> [n, outer, 2s, 2s]: upsample, conv, noise, BN, GLU."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, 2 * outer, 3, padding=1, bias=False)
        self.strength = nn.Parameter(torch.zeros(()))
        self.norm = nn.BatchNorm2d(2 * outer)

    def forward(self, x: torch.Tensor, plane: torch.Tensor) -> torch.Tensor:
        h = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return glu(self.norm(h + (self.strength * plane).to(h.dtype)))


class Excitation(nn.Module):
    """Skip-layer excitation, equation 1: a small map's content weighs a large map's channels."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(inner, outer, 4, bias=False),
            nn.LeakyReLU(0.1),
            nn.Conv2d(outer, outer, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
        return large * self.weigh(small)


class Generator(nn.Module):
    """z [n, latent_dim] from N(0, 1) -> [n, 3, size, size] float32 in -1..1.

    The first `z_dim` numbers of z decide the content, the rest are noise planes, one a block.
    `config` has `size`, `ngf` and `z_dim`. No labels: the paper's network is unconditional.
    """

    def __init__(self, config: "Config") -> None:
        super().__init__()
        sides = [2**i for i in range(2, int(math.log2(config.size)) + 1)]
        widths = [round(config.ngf * GENERATOR_WIDTHS[side]) for side in sides]
        self.split = [config.z_dim] + [side**2 for side in sides[1:]]
        self.latent_dim = sum(self.split)
        self.first = nn.Linear(config.z_dim, 2 * widths[0] * LOWEST**2, bias=False)
        self.norm = nn.BatchNorm2d(2 * widths[0])
        self.blocks = nn.ModuleList(map(UpBlock, widths[:-1], widths[1:]))
        reach = int(math.log2(SKIP))
        self.excitations = nn.ModuleList(map(Excitation, widths[:-reach], widths[reach:]))
        self.to_rgb = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        z, *noise = z.split(self.split, 1)
        h = self.first(z).unflatten(1, (-1, LOWEST, LOWEST))
        h = glu(self.norm(h.contiguous(memory_format=torch.channels_last)))
        maps, skipped = [h], len(self.blocks) - len(self.excitations)
        for number, (block, plane) in enumerate(zip(self.blocks, noise, strict=True)):
            h = block(h, plane.unflatten(1, (1, math.isqrt(plane.shape[1]), -1)))
            if number >= skipped:
                h = self.excitations[number - skipped](maps[number - skipped], h)
            maps.append(h)
        return self.to_rgb(h).float().tanh()


class Decoder(nn.Module):
    """[n, inner, 8, 8] -> [n, 3, side, side] in -1..1: one convolution a doubling."""

    def __init__(self, inner: int, side: int) -> None:
        super().__init__()
        doublings = int(math.log2(side // COARSE))
        widths = [inner] + [max(128 >> i, 32) for i in range(doublings)]
        self.convs = nn.ModuleList(
            normed_conv(inner, 2 * outer, 3, padding=1, bias=False)
            for inner, outer in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(2 * width) for width in widths[1:])
        self.to_rgb = normed_conv(widths[-1], 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = glu(norm(conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))))
        return self.to_rgb(x).float().tanh()


class Discriminator(nn.Module):
    """[n, 3, size, size] in -1..1 -> two heads [n, 1, 5, 5]: the image, and it at half the side."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        sides = [2**i for i in range(int(math.log2(config.size)), 2, -1)]  # size, ..., 16, 8
        large = [round(config.ndf * WIDTHS[side]) for side in sides]
        small = [width // 2 for width in large[2:]]
        self.large_stem = nn.Sequential(
            normed_conv(3, large[0], 3, padding=1, bias=False), nn.LeakyReLU(0.2)
        )
        self.to_16 = nn.Sequential(*map(DownBlock, large[:-2], large[1:-1]))
        self.to_8 = DownBlock(large[-2], large[-1])
        self.judge_large = nn.Sequential(
            *normed_layers(large[-1], 2 * large[-1], 1),
            normed_conv(2 * large[-1], 1, 4, bias=False),
        )
        self.small = nn.Sequential(
            normed_conv(3, small[0], 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
            *map(DownBlock, small[:-1], small[1:]),
            normed_conv(small[-1], 1, 4, bias=False),
        )
        self.draw_whole = Decoder(large[-1], config.size // 2)
        self.draw_quarter = Decoder(large[-2], config.size // 2)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> list[torch.Tensor]:
        return self._judge(x, self.to_8(self.to_16(self.large_stem(x))))

    def forward_with_reconstruction(
        self, real: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The heads, and how badly `real` is drawn from the maps (equation 4), a float32 scalar.

        From the 8 px map the whole image at half the side, from a random quarter of the 16 px map
        that quarter of the image. The random numbers are torch's.
        """
        map_16 = self.to_16(self.large_stem(real))
        map_8 = self.to_8(map_16)
        which = torch.randint(4, (len(real),), device=real.device)
        whole, quarter = F.avg_pool2d(real, 2), _quarter(real, which)
        drawn = self.draw_whole(map_8), self.draw_quarter(_quarter(map_16, which))
        loss = _distance(drawn[0], whole) + _distance(drawn[1], quarter)
        return self._judge(real, map_8), loss

    def _judge(self, x: torch.Tensor, map_8: torch.Tensor) -> list[torch.Tensor]:
        return [self.judge_large(map_8), self.small(F.avg_pool2d(x, 2))]


def _quarter(x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """[n, c, 2s, 2s], int64 [n] in 0..3 -> [n, c, s, s]: of each image the quarter asked for."""
    half = x.shape[-1] // 2
    quarters = x.unflatten(2, (2, half)).unflatten(4, (2, half))  # [n, c, 2, s, 2, s]
    quarters = quarters.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    return quarters[torch.arange(len(x), device=x.device), which]


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """L1 at the given side and at a half and a quarter of it: edges and broad colour both count."""
    terms = [F.l1_loss(F.avg_pool2d(a, k), F.avg_pool2d(b, k)) for k in (1, 2, 4)]
    return torch.stack(terms).mean()
