"""What a generator learns beside its discriminator: the power spectra of the training images.

Noise too strong, too weak or too colourful at the finest scales changes a lesion's look from near
by and nothing that a discriminator's judges go by from afar: the frozen network sees half the side,
and batch norm takes the strength out of whatever the others see. A small network that is to tell
crops apart goes by nothing else. So the generator gets it as a distance of its own: between the log
power of windows of its images, by colour, radius and direction, and that of the training images'.

The distance is the energy distance (Székely and Rizzo 2013), which is zero only where the whole
distributions agree, how much images differ from each other included; without pairs of windows of
the same image its gradient has no bias, however few images a batch has.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

WINDOW, RINGS = 64, 12  # px, the side of a window; radii up to half a cycle a pixel
MOST_WINDOWS = 2048  # of training images to compare with
COLOURS = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (-0.25, -0.25, 0.5))  # luma, red-green, blue
LEVEL = 2 / 255  # between two levels of an image in -1..1
LEAST_SPREAD = 0.1  # of a log power: what is always the same is not weighed more than this
TINY = 1e-8


class Spectra(nn.Module):
    """Images to the log power of their windows; buffers alone, nothing to learn.

    float [n, 3, s, s] in -1..1, s >= 32 -> [n, windows, 3, 2 RINGS]: mean power of a Hann window of
    64 px (of the side, where that is less) by colour, radius and direction (along the axes, between
    them), so that the eight symmetries of an image change nothing. The windows tile the middle.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.side = side = min(size, WINDOW)
        self.count = size // side
        index = torch.arange(side, dtype=torch.float64)
        hann = torch.sin(math.pi * (index + 1) / (side + 1)).square()
        angles = 2 * math.pi / side * torch.outer(torch.arange(side // 2 + 1), index)
        self._keep("window", torch.outer(hann, hann))
        # the Fourier transform as matrix products: the same on every device
        self._keep("across", torch.cat([angles.cos(), angles.sin()]).T)
        angles = 2 * math.pi / side * torch.outer(torch.arange(side), index)
        self._keep("down", torch.cat([angles.cos(), angles.sin()]))
        self._keep("rings", _rings(side))
        colours = torch.tensor(COLOURS, dtype=torch.float64)
        self._keep("colours", colours[:, :, None, None])
        # what rounding to levels adds to an image's power
        power = colours.square().sum(1) * LEVEL**2 / 12 * self.window.square().sum()
        self._keep("rounding", power[:, None])

    def _keep(self, name: str, value: torch.Tensor) -> None:
        self.register_buffer(name, value.float(), persistent=False)

    def forward(self, images: torch.Tensor, rounded: bool) -> torch.Tensor:
        """`rounded`: the images have 256 levels; what that adds is put in where they have not."""
        room = images.shape[-1] - self.count * self.side
        at = slice(room // 2, room // 2 + self.count * self.side)
        seen = F.conv2d(images.float()[:, :, at, at], self.colours)
        n, k, s = len(seen), self.count, self.side
        windows = seen.reshape(n, 3, k, s, k, s).permute(0, 2, 4, 1, 3, 5)
        windows = (windows - windows.mean((-1, -2), keepdim=True)) * self.window
        # (C + iS) x (C + iS)^T without complex numbers
        half = s // 2 + 1
        cosine, sine = (self.down @ (windows @ self.across)).split(s, -2)
        (cc, cs), (sc, ss) = (part.split(half, -1) for part in (cosine, sine))
        power = ((cc - ss).square() + (cs + sc).square()).flatten(-2) @ self.rings
        # grey images have no colour at all, and no generator can make less than rounding does
        power = power.clamp(min=self.rounding) if rounded else power + self.rounding
        return power.log().flatten(1, 2)


def _rings(side: int) -> torch.Tensor:
    """[side (side / 2 + 1), 2 RINGS]: weights of the mean over frequencies of a ring's halves.

    The innermost ring is not divided, both columns are the same: it has too few frequencies.
    """
    y = torch.fft.fftfreq(side)[:, None].expand(-1, side // 2 + 1)
    x = torch.fft.rfftfreq(side)[None].expand_as(y)
    radius = torch.hypot(y, x)
    between = (torch.atan2(y.abs(), x) - math.pi / 4).abs() < math.pi / 8
    ring = (radius * 2 * RINGS).long()  # those beyond half a cycle, in the corners, are left out
    twice = torch.full_like(radius, 2.0)  # conjugates, which a transform of real numbers leaves out
    twice[:, 0] = twice[:, -1] = 1.0
    columns = []
    for number in range(RINGS):
        for direction in (False, True):
            chosen = (ring == number) & (radius > 0)
            if number:
                chosen = chosen & (between == direction)
            weight = (chosen * twice).flatten()
            columns.append(weight / weight.sum())
    return torch.stack(columns, 1)


class SpectralDistance(nn.Module):
    """Energy distance of images' spectra to those of the training images; buffers alone.

    Parameters
    ----------
    images : float [m, 3, size, size] in -1..1, the training images (or some of them), in 256 levels
    """

    @torch.no_grad()
    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.spectra = Spectra(images.shape[-1]).to(images.device)
        every = math.ceil(len(images) * self.spectra.count**2 / MOST_WINDOWS)
        known = [self.spectra(some, True) for some in images[::every].split(64)]
        known = torch.cat(known).flatten(0, 1)
        self.register_buffer("middle", known.mean(0), persistent=False)
        self.register_buffer(
            "spread", known.std(0, correction=0).clamp(min=LEAST_SPREAD), persistent=False
        )
        known = ((known - self.middle) / self.spread).transpose(0, 1)
        self.register_buffer("known", known.contiguous(), persistent=False)
        self.register_buffer("among", _distances(known, known).mean((1, 2)), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """A scalar, float32, summed over colours: of `images` float [n >= 2, 3, size, size].

        Differentiable; 0 in the mean where the distributions agree, in standard deviations.
        """
        spectra = (self.spectra(images, False) - self.middle) / self.spread
        n, windows = spectra.shape[:2]
        mine = spectra.flatten(0, 1).transpose(0, 1)  # [colours, n windows, 2 RINGS]
        to_known = _distances(mine, self.known).mean((1, 2))
        each = torch.arange(n, device=images.device).repeat_interleave(windows)
        apart = (each[:, None] != each).float()
        among = (_distances(mine, mine) * apart).sum((1, 2)) / apart.sum()
        return (2 * to_known - among - self.among).sum()


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """[c, n, d], [c, m, d] -> [c, n, m]: root of the mean squared difference."""
    squares = a.square().sum(2)[:, :, None] + b.square().sum(2)[:, None]
    squares = squares - 2 * a @ b.transpose(1, 2)
    return (squares.clamp(min=0) / a.shape[2] + TINY).sqrt()
