"""LesionGAN: a lean GAN for a few hundred lesions and a CPU.

Nearly all arithmetic happens at 32x32 px and below. The generator begins with a sketch, 16x16 px:
linear in the latent, and before training so that it draws the principal components of the training
images. Colours and sizes are then varied from the first step on, and stay so. Blocks of upsample,
convolution, batch norm, noise, gated linear unit (as in FastGAN, Liu et al. 2021) make a lesion of
it; thin convolutions with fresh noise, gated by the coarsest features, reach the full side, and the
RGB picture is summed over all scales (skip outputs, StyleGAN2, Karras et al. 2020). How strong the
finest detail is, and of what colour, it learns from the power spectra of the training images beside
the discriminator (gan.spectra).

The discriminator judges three times: the whole image, with the minibatch's standard deviation;
overlapping patches, for texture; and, at half the side, what a frozen ImageNet network makes of it
(Projected GAN, Sauer et al. 2021; gan.networks.frozen). The first two share a trunk that folds
pixels into channels (pixel unshuffle) and has spectral norm (Miyato et al. 2018) and batch norm, as
FastGAN's.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from dermsynth.options import Between
from gan.hyperparameters import Augment, Hyperparameters, Kimg, Rate, Weight, Width
from gan.networks import frozen
from gan.networks.layers import DownBlock, double, glu, normed_conv, normed_layers, with_spread

LOWEST, SKETCH, BASE = 4, 16, 32  # sides of the smallest feature map, sketch, last wide map, px
LEVEL = 0.97  # largest level of a sketch, of -1..1: tanh takes all numbers to reach 1
SEEN = 64  # least side of what the frozen network sees, of images that are as large

Components = Annotated[int, Between(0, 4096)]


@dataclass(frozen=True, kw_only=True)
class Config(Hyperparameters):
    """Hinge loss; widths of both networks."""

    labels: ClassVar[Literal["never", "optional", "always"]] = "optional"

    ngf: Width = 24  # generator: 8 ngf channels at 4x4, 2 ngf at 32x32
    ndf: Width = 16  # discriminator: 2 ndf channels at 32x32, 8 ndf at 4x4
    mix: Width = 32  # channels of the frozen network's finest mixture, doubled at each coarser one
    components: Components = 12  # principal components in the first sketch; 0: random weights
    z_dim: Width = 128  # latent that decides the content; noise planes for the texture come on top
    lr_discriminator: Rate = 4e-4
    augment: Augment = "translation"
    ada_kimg: Kimg = 50.0  # its trainings are short
    spectrum_weight: Weight = 1.0


class Noise(nn.Module):
    """Adds one plane of noise to every channel, each with a learned strength."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.full((1, width, 1, 1), 0.1))

    def forward(self, x: torch.Tensor, plane: torch.Tensor) -> torch.Tensor:
        # plane times strength as a matrix product: with channels last a broadcast is several
        # times slower
        pixels, plane = x.permute(0, 2, 3, 1), plane.to(x.dtype).reshape(-1, 1)
        flat, strength = pixels.reshape(len(plane), -1), self.strength.to(x.dtype).view(1, -1)
        return flat.addmm_(plane, strength).view(pixels.shape).permute(0, 3, 1, 2)


class UpBlock(nn.Module):
    """[n, inner, s, s] -> [n, outer, 2s, 2s]: upsample, conv, BN, noise, GLU."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, 2 * outer, 3, padding=1, bias=False)
        self.norm, self.noise = nn.BatchNorm2d(2 * outer), Noise(2 * outer)

    def forward(self, x: torch.Tensor, plane: torch.Tensor) -> torch.Tensor:
        return glu(self.noise(self.norm(self.conv(double(x))), plane))


class DetailBlock(nn.Module):
    """[n, inner, s, s] -> [n, outer, 2s, 2s]: conv, bilinear upsample, noise, thin conv, gate.

    The gate scales each channel of an image by 0 to 2, as its coarsest features [n, coarse, 8, 8]
    say (skip-layer excitation, Liu et al. 2021): how strong detail is differs from image to image.
    """

    def __init__(self, inner: int, outer: int, coarse: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inner, outer, 3, padding=1)
        self.noise = Noise(outer)
        self.refine = nn.Conv2d(outer, outer, 3, padding=1)
        self.gate = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(coarse, outer, LOWEST),
            nn.LeakyReLU(0.2),
            nn.Conv2d(outer, outer, 1),
        )

    def forward(self, x: torch.Tensor, plane: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        x = self.noise(double(self.narrow(x)), plane)
        x = F.leaky_relu(self.refine(F.leaky_relu(x, 0.2)), 0.2, inplace=True)
        return x * (2 * self.gate(coarse).sigmoid())


class Generator(nn.Module):
    """z [n, latent_dim] from N(0, 1) -> [n, 3, size, size] float32 in -1..1.

    The first `z_dim` numbers of z decide the content, the rest are noise planes, one a scale. A
    class is a learned vector beside the content, and has sketches of its own.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        ngf = config.ngf
        sides = [2**i for i in range(3, int(math.log2(config.size)) + 1)]
        self.split = [config.z_dim] + [side**2 for side in sides]
        self.latent_dim, self.content_dim = sum(self.split), config.z_dim
        self.classes = nn.Embedding(config.classes, config.z_dim) if config.classes else None
        self.components = config.components
        self.sketch = nn.Linear(config.z_dim, max(config.classes, 1) * 3 * SKETCH**2)
        self.from_sketch = nn.Conv2d(3, 4 * ngf, 3, padding=1)
        content = (2 if config.classes else 1) * config.z_dim
        self.first = nn.Linear(content, 2 * 8 * ngf * LOWEST**2, bias=False)
        self.norm = nn.BatchNorm2d(2 * 8 * ngf)
        self.up = nn.ModuleList(
            [UpBlock(8 * ngf, 8 * ngf), UpBlock(8 * ngf, 4 * ngf), UpBlock(4 * ngf, 2 * ngf)]
        )
        # whole vector registers: 12 channels take longer than 16
        thin = [2 * ngf, *(16 * math.ceil(ngf / 8 / 2**i) for i in range(1, len(sides) - 2))]
        self.detail = nn.ModuleList(DetailBlock(*ends, 8 * ngf) for ends in pairwise(thin))
        self.to_rgb = nn.ModuleList([nn.Conv2d(width, 3, 1) for width in thin])

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        z, *noise = z.split(self.split, 1)
        sketch = self.sketch(z).unflatten(1, (-1, 3, SKETCH, SKETCH))
        if self.classes is not None:
            one = labels[:, None] == torch.arange(sketch.shape[1], device=z.device)
            sketch = sketch * one[:, :, None, None, None]
        sketch = sketch.sum(1).contiguous(memory_format=torch.channels_last)
        if self.classes is not None:
            z = torch.cat([z, self.classes(labels)], 1)
        planes = [plane.unflatten(1, (1, math.isqrt(plane.shape[1]), -1)) for plane in noise]
        h = self.first(z).unflatten(1, (-1, LOWEST, LOWEST))
        h = glu(self.norm(h.contiguous(memory_format=torch.channels_last)))
        coarse = h = self.up[0](h, planes[0])
        for block, plane in zip(self.up[1:], planes[1:], strict=False):
            h = block(h, plane)
            if h.shape[-1] == SKETCH:
                h = h + self.from_sketch(sketch)
        rgb = self.to_rgb[0](h).float() + double(sketch).float()
        for block, to_rgb, plane in zip(
            self.detail, self.to_rgb[1:], planes[len(self.up) :], strict=True
        ):
            h = block(h, plane, coarse)
            rgb = double(rgb) + to_rgb(h).float()
        return rgb.tanh()

    @torch.no_grad()
    def begin_from(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> None:
        """Let the sketch draw the principal components of the training images, over a normal z.

        `images` float [n, 3, size, size] in -1..1, two or more of each class, which are drawn each
        by its own images; all eight symmetries of each count.
        """
        if not self.components:
            return
        weights = self.sketch.weight.zero_().unflatten(0, (-1, 3 * SKETCH**2))
        biases = self.sketch.bias.unflatten(0, (-1, 3 * SKETCH**2))
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            mean, most = _principal(images if labels is None else images[labels == number])
            bias.copy_(mean)
            weight[:, : self.components] = most[:, : self.components]


def _principal(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [d] and components [d, d], the largest first and as long as they vary, of sketches."""
    small = F.adaptive_avg_pool2d(images, SKETCH).clamp(-LEVEL, LEVEL).atanh()
    eight = [view.rot90(k, (2, 3)) for view in (small, small.flip(3)) for k in range(4)]
    vectors = torch.cat(eight).flatten(1).double()
    mean = vectors.mean(0)
    variance, direction = torch.linalg.eigh((vectors - mean).T.cov(correction=0))
    return mean, (direction * variance.clamp(min=0).sqrt()).flip(1)


class Discriminator(nn.Module):
    """[n, 3, size, size] in -1..1 -> six heads.

    [n, 1] the whole image, [n, 1, 16, 16] patches, and four of patches of the frozen features. All
    are conditional by projection (Miyato and Koyama 2018): a class's vector times the features.
    """

    sees: ClassVar[str] = frozen.NAME  # evaluate by a network unlike it

    def __init__(self, config: Config) -> None:
        super().__init__()
        ndf = config.ndf
        self.fold = max(config.size // (2 * BASE), 1)
        stem = nn.Sequential(
            normed_conv(3 * self.fold**2, ndf, 3, padding=1), nn.LeakyReLU(0.2, inplace=True)
        )
        widest = DownBlock(ndf, 2 * ndf) if config.size > BASE else normed_conv(ndf, 2 * ndf, 1)
        self.local = nn.Sequential(stem, widest, DownBlock(2 * ndf, 4 * ndf))
        self.patch = normed_conv(4 * ndf, 1, 1)
        self.whole = nn.Sequential(DownBlock(4 * ndf, 8 * ndf), DownBlock(8 * ndf, 8 * ndf))
        self.judge = nn.Sequential(*normed_layers(8 * ndf + 1, 8 * ndf, 3, padding=1))
        self.last = spectral_norm(nn.Linear(8 * ndf * LOWEST**2, 1))
        self.reduction = max(min(config.size // SEEN, 2), 1)
        self.frozen = frozen.FeatureHeads(config.size // self.reduction, config.mix, config.classes)
        self.classes = None
        if config.classes:
            self.classes = nn.ModuleList(
                spectral_norm(nn.Embedding(config.classes, width)) for width in (8 * ndf, 4 * ndf)
            )

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> list[torch.Tensor]:
        h = F.pixel_unshuffle(x, self.fold).contiguous(memory_format=torch.channels_last)
        h = self.local(h)
        whole = self.judge(with_spread(self.whole(h)))
        heads = [self.last(whole.flatten(1)), self.patch(h)]
        if self.classes is not None:
            wholes, patches = (embedding(labels) for embedding in self.classes)
            heads[0] = heads[0] + (wholes * whole.mean((2, 3))).sum(1, keepdim=True)
            heads[1] = heads[1] + (patches[:, :, None, None] * h).sum(1, keepdim=True)
        return [*heads, *self.frozen(F.avg_pool2d(x, self.reduction), labels)]
