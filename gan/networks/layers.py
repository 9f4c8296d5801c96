"""Layers that several architectures share."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

GROUP = 4  # images whose spread a discriminator sees at once


def glu(x: torch.Tensor) -> torch.Tensor:
    """Gated linear unit over channels: [n, 2c, s, s] -> [n, c, s, s].

    `F.glu` has a gradient that is not channels_last, which doubles the time of a block on a CPU,
    and the sigmoid of every other stretch of memory takes up to five times as long.
    """
    content, gate = x.chunk(2, 1)
    return content * gate.contiguous(memory_format=torch.channels_last).sigmoid()


def double(x: torch.Tensor) -> torch.Tensor:
    """[n, c, s, s] -> [n, c, 2s, 2s], bilinear (the filter [1, 3, 3, 1]; the rim is repeated).

    Pixel shuffles and nearest upsampling left a grid in every image.
    """
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def with_spread(x: torch.Tensor) -> torch.Tensor:
    """Append the mean standard deviation over each group of images (Karras et al. 2018).

    [n, c, s, s] -> [n, c + 1, s, s]; groups are neighbours in the batch.
    """
    n, _, height, width = x.shape
    group = math.gcd(n, GROUP)
    spread = x.float().unflatten(0, (-1, group)).var(1, correction=0).add(1e-8).sqrt()
    spread = spread.mean((1, 2, 3)).repeat_interleave(group)
    return torch.cat([x, spread.view(n, 1, 1, 1).expand(n, 1, height, width).to(x.dtype)], 1)


def normed_conv(inner: int, outer: int, side: int, **rest: Any) -> nn.Module:
    """A convolution with spectral norm (Miyato et al. 2018)."""
    return spectral_norm(nn.Conv2d(inner, outer, side, **rest))


def normed_layers(inner: int, outer: int, side: int, **rest: Any) -> list[nn.Module]:
    """A convolution with spectral norm, batch norm and a leaky ReLU: FastGAN's discriminator."""
    conv = normed_conv(inner, outer, side, bias=False, **rest)
    return [conv, nn.BatchNorm2d(outer), nn.LeakyReLU(0.2, inplace=True)]


class DownBlock(nn.Module):
    """[n, inner, s, s] -> [n, outer, s / 2, s / 2]: the mean of two convolutions and of one."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *normed_layers(inner, outer, 4, stride=2, padding=1),
            *normed_layers(outer, outer, 3, padding=1),
        )
        self.direct = nn.Sequential(nn.AvgPool2d(2), *normed_layers(inner, outer, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.main(x) + self.direct(x)) / 2
