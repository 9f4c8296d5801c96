"""StyleGAN2 with adaptive augmentation (Karras et al. 2020a, 2020b), for 32 to 256 px.

2020b, "Analyzing and Improving the Image Quality of StyleGAN", has the networks: a mapping of z to
a style, convolutions modulated by it and demodulated, an RGB picture summed over all scales, a
residual discriminator, equalised learning rates, lazy R1. 2020a, "Training Generative Adversarial
Networks with Limited Data", has the augmentation (gan.ada) and the sizes that suit one GPU.

A convolution with the weights of its own for every image is slow on any machine. Its equal, to
scale the channels that go in by the style and those that come out by the demodulation (2020b,
section 2.2), lets all images share one convolution.

What differs from the papers: no path length regularisation and no style mixing, as their users have
it for few images; tanh at the end, where theirs is unbounded; a class is judged by the product of
its vector and the features, without a mapping network in between.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from dermsynth.options import Between, ZeroToOne
from gan.hyperparameters import Augment, Count, Hyperparameters, Loss, Penalty, Rate, Weight, Width
from gan.networks.layers import double, with_spread

LOWEST = 4  # side of the smallest feature map, pixels
SLOPE, GAIN = 0.2, math.sqrt(2)  # leaky ReLU; keeps the variance that it takes
MAPPING_RATE = 0.01  # learning rate of the mapping, relative
MEAN_RATE = 0.005  # of a batch, in the running mean of the styles
LAZY = 16  # steps between two penalties


@dataclass(frozen=True, kw_only=True)
class Config(Hyperparameters):
    """The values of 2020a for one GPU; widths of both networks."""

    labels: ClassVar[Literal["never", "optional", "always"]] = "optional"

    channel_base: Annotated[int, Between(64, 1_000_000)] = 16384  # channels times side, but ...
    channel_max: Width = 512  # ... at most so many channels
    z_dim: Width = 512  # latent and style; noise planes for the texture come on top
    mapping_layers: Annotated[int, Between(1, 100)] = 2
    lr_generator: Rate = 0.0025
    lr_discriminator: Rate = 0.0025
    loss: Loss = "non-saturating"
    penalty: Penalty = "r1"
    penalty_weight: Weight = 0.0  # gamma; 0: 0.0002 size^2 / batch
    penalty_every: Count = LAZY
    augment: Augment = "ada"
    ema_share: ZeroToOne = 0.05

    @property
    def penalty_strength(self) -> float:
        """`penalty_weight`, or gamma as the papers' code has it."""
        return self.penalty_weight or 0.0002 * self.size**2 / self.batch


def channels(config: Config) -> list[int]:
    """Channels at 4x4 px and after each doubling of the side."""
    sides = [2**i for i in range(2, config.size.bit_length())]
    return [min(config.channel_base // side, config.channel_max) for side in sides]


class Linear(nn.Module):
    """[n, inner] -> [n, outer], equalised: scaled when used (Karras et al. 2018, 4.1).

    Parameters
    ----------
    inner, outer : features that go in and come out
    rate : learning rate, relative to the other layers'
    gain : of the weights
    bias : where the bias begins
    """

    def __init__(
        self, inner: int, outer: int, rate: float = 1.0, gain: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outer, inner) / rate)
        self.bias = nn.Parameter(torch.full((outer,), bias / rate))
        self.scale, self.bias_scale = gain * rate / math.sqrt(inner), gain * rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.bias_scale)


class Conv(nn.Module):
    """[n, inner, s, s] -> [n, outer, s, s], equalised.

    Parameters
    ----------
    inner, outer : channels that go in and come out
    side : of the kernel, pixels
    stride : 1, or 2 for what `blur` has widened
    gain : of weights and bias
    bias : whether there is one
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        side: int,
        stride: int = 1,
        gain: float = 1.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outer, inner, side, side))
        self.bias = nn.Parameter(torch.zeros(outer)) if bias else None
        self.scale, self.gain, self.stride = gain / math.sqrt(inner * side**2), gain, stride
        self.padding = side // 2 if stride == 1 else 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias * self.gain
        return F.conv2d(x, self.weight * self.scale, bias, self.stride, self.padding)


def leaky(x: torch.Tensor) -> torch.Tensor:
    """In place; the gain of sqrt(2) is in the weights before, for one pass less."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def blur(x: torch.Tensor, padding: int, gain: float = 1.0) -> torch.Tensor:
    """Filter every channel by [1, 3, 3, 1] in both directions; sums to `gain`."""
    taps = (2 - (torch.arange(4, device=x.device) - 1.5).abs()) / 4  # made there: no waiting
    kernel = (gain * taps[:, None] * taps).to(x.dtype).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, padding=padding, groups=x.shape[1])


def halve(x: torch.Tensor) -> torch.Tensor:
    """`blur`, of which every second pixel is kept; a stride would be six times slower on a CPU."""
    return F.avg_pool2d(blur(x, 1), 1, 2)


class Mapping(nn.Module):
    """z [n, z_dim], labels int64 [n] or None -> styles float32 [n, z_dim]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.z_dim
        self.classes = nn.Embedding(config.classes, width) if config.classes else None
        inner = [2 * width if config.classes else width] + [width] * (config.mapping_layers - 1)
        self.layers = nn.ModuleList(Linear(i, width, MAPPING_RATE, GAIN) for i in inner)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        x = _normalise(z)
        if self.classes is not None:
            x = torch.cat([x, _normalise(self.classes(labels))], 1)
        for layer in self.layers:
            x = leaky(layer(x))
        return x


class StyledConv(nn.Module):
    """[n, inner, s, s] -> [n, outer, s, s] or [n, outer, 2s, 2s]: modulated, noisy, leaky."""

    def __init__(self, inner: int, outer: int, style: int, up: bool) -> None:
        super().__init__()
        self.style = Linear(style, inner, bias=1.0)
        shape = (inner, outer, 3, 3) if up else (outer, inner, 3, 3)  # as torch's functions want it
        self.weight = nn.Parameter(torch.randn(shape))
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outer))
        self.scale, self.up = 1 / math.sqrt(inner * 9), up

    def forward(self, x: torch.Tensor, w: torch.Tensor, plane: torch.Tensor) -> torch.Tensor:
        style, weight = self.style(w).float(), self.weight * self.scale
        power = weight.square().sum((2, 3))  # [inner, outer] or its transpose
        power = style.square() @ (power if self.up else power.T)
        demodulation = GAIN * torch.rsqrt(power + 1e-8)
        x = x * _per_channel(style, x)
        if self.up:
            x = blur(F.conv_transpose2d(x, weight, stride=2), 1, gain=4)
        else:
            x = F.conv2d(x, weight, padding=1)
        noise = (GAIN * self.strength * plane).to(x.dtype)
        x = torch.addcmul(noise, x, _per_channel(demodulation, x))
        return leaky(x + (GAIN * self.bias).to(x.dtype).view(1, -1, 1, 1))


class ToRGB(nn.Module):
    """[n, inner, s, s] -> float32 [n, 3, s, s]: modulated, not demodulated; one weight an image."""

    def __init__(self, inner: int, style: int) -> None:
        super().__init__()
        self.style = Linear(style, inner, gain=1 / math.sqrt(inner), bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, inner))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        weight = self.style(w)[:, :, None] * self.weight.T  # [n, inner, 3]
        rgb = x.permute(0, 2, 3, 1).flatten(1, 2) @ weight.to(x.dtype)
        return (rgb.float() + self.bias).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class Generator(nn.Module):
    """z [n, latent_dim] from N(0, 1) -> [n, 3, size, size] float32 in -1..1.

    The first `z_dim` numbers of z decide the content, the rest are noise planes, one a convolution.
    `truncation` (psi) below 1 pulls the styles towards their mean over the training so far.
    """

    mean: torch.Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, widths = config.z_dim, channels(config)
        sides = [LOWEST << i for i in range(len(widths))]
        self.split = [width, LOWEST**2] + [side**2 for side in sides[1:] for _ in range(2)]
        self.latent_dim, self.content_dim = sum(self.split), width
        self.mapping = Mapping(config)
        self.register_buffer("mean", torch.zeros(width))
        self.start = nn.Parameter(torch.randn(1, widths[0], LOWEST, LOWEST))
        self.first = StyledConv(widths[0], widths[0], width, up=False)
        self.up = nn.ModuleList(StyledConv(i, o, width, up=True) for i, o in pairwise(widths))
        self.same = nn.ModuleList(StyledConv(o, o, width, up=False) for o in widths[1:])
        self.to_rgb = nn.ModuleList(ToRGB(inner, width) for inner in widths)

    def forward(
        self, z: torch.Tensor, labels: torch.Tensor | None = None, truncation: float = 1.0
    ) -> torch.Tensor:
        z, *noise = z.split(self.split, 1)
        planes = [plane.unflatten(1, (1, math.isqrt(plane.shape[1]), -1)) for plane in noise]
        with torch.autocast(z.device.type, enabled=False):
            w = self._styles(z, labels, truncation)
        h = self.start.expand(len(z), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        h = self.first(h.to(_compute_dtype(h)), w, planes[0])
        rgb = self.to_rgb[0](h, w)
        layers = zip(self.up, self.same, self.to_rgb[1:], planes[1::2], planes[2::2], strict=True)
        for up, same, to_rgb, plane, other in layers:
            h = same(up(h, w, plane), w, other)
            rgb = double(rgb) + to_rgb(h, w)
        return rgb.tanh()

    def _styles(
        self, z: torch.Tensor, labels: torch.Tensor | None, truncation: float
    ) -> torch.Tensor:
        w = self.mapping(z, labels)
        if self.training:
            self.mean.lerp_(w.detach().mean(0), MEAN_RATE)
        return w if truncation == 1 else torch.lerp(self.mean, w, truncation)


class DownBlock(nn.Module):
    """[n, inner, s, s] -> [n, outer, s / 2, s / 2]: two convolutions and, beside them, one."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.same = Conv(inner, inner, 3, gain=GAIN)
        self.down = Conv(inner, outer, 3, stride=2)  # its gain and that of the sum cancel
        self.direct = Conv(inner, outer, 1, gain=1 / GAIN, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        main = leaky(self.down(blur(leaky(self.same(x)), 2)))
        return main + self.direct(halve(x))


class Discriminator(nn.Module):
    """[n, 3, size, size] in -1..1 -> one head: [[n, 1]] logits.

    Conditional by projection (Miyato and Koyama 2018): a class's vector times the features.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = channels(config)[::-1]
        last = widths[-1]
        self.from_rgb = Conv(3, widths[0], 1, gain=GAIN)
        self.blocks = nn.Sequential(*map(DownBlock, widths[:-1], widths[1:]))
        self.conv = Conv(last + 1, last, 3, gain=GAIN)
        self.dense = Linear(last * LOWEST**2, last, gain=GAIN)
        self.last = Linear(last, last if config.classes else 1)
        self.classes = nn.Embedding(config.classes, last) if config.classes else None

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> list[torch.Tensor]:
        h = leaky(self.from_rgb(x.contiguous(memory_format=torch.channels_last)))
        h = leaky(self.conv(with_spread(self.blocks(h))))
        h = self.last(leaky(self.dense(h.flatten(1)))).float()
        if self.classes is None:
            return [h]
        vectors = _normalise(self.classes(labels)) / math.sqrt(h.shape[1])
        return [(h * vectors).sum(1, keepdim=True)]


def _normalise(x: torch.Tensor) -> torch.Tensor:
    """To a mean square of 1 over the channels."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def _per_channel(factors: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return factors.to(x.dtype)[:, :, None, None]


def _compute_dtype(x: torch.Tensor) -> torch.dtype:
    """That of convolutions here: autocast leaves the first modulation to us."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
