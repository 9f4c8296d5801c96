"""Training views: `--augment`.

What happens to an image is drawn as a few numbers, and done to a whole batch where the network
computes; on a CPU by OpenCV (classifier.augment_cpu). The default, dihedral-colour: dermoscopy has
no up and no down, so the eight symmetries of the square are exact; colour changes as between
cameras: brightness, white balance, saturation, contrast. The others are published pipelines
(classifier.published_augment), and one with colours of other clinics (classifier.strong_colour).
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from classifier import augment_cpu, strong_colour
from classifier.options import AugmentName
from classifier.published_augment import PIPELINES, Colours, Moves, Pipeline
from data.on_device import resized
from dermsynth.symmetries import turn_each
from dermsynth.tensors import send

BRIGHTNESS, BALANCE, SATURATION, CONTRAST = 0.15, 0.03, 0.15, 0.15
GREY = strong_colour.GREY

VERSION = 2  # of how views come about; features that are kept of another one are not used


@dataclass(frozen=True)
class Views:
    """How to change each of n images: symmetry, then the place in the frame, colour, hue."""

    symmetry: np.ndarray  # int64 [n], 0..7: quarter turns + 4 if mirrored
    colour: np.ndarray | None = None  # float32 [n, 3, 3]: RGB in 0..1, multiplied from the left
    contrast: np.ndarray | None = None  # float32 [n], with colour: distance from `middle`
    middle: np.ndarray | None = None  # float32 [n, 3, 3]: turns the mean colour into that; None:
    # the same as `colour`
    brightness: np.ndarray | None = None  # float32 [n], with colour: added, of 0..1
    hue: np.ndarray | None = None  # float32 [n], shares of the circle
    moves: np.ndarray | None = None  # float32 [n, 2, 3]: from a place in the new image to that in
    # the old one, -1..1 between the centres of the outermost pixels
    rim: Literal["border", "reflection"] = "border"  # what moves bring in from outside
    balanced: np.ndarray | None = None  # bool [n]: white-balanced before its colours are changed
    gamma: np.ndarray | None = None  # float32 [n]: at the end, the power of values in 0..1

    def take(self, rows: np.ndarray) -> "Views":
        """The views of some of the images."""
        return dataclasses.replace(
            self, **{name: array[rows] for name, array in self._arrays().items()}
        )

    @staticmethod
    def joined(parts: "list[Views]") -> "Views":
        """One after the other; all come from one pipeline."""
        arrays = [part._arrays() for part in parts]
        columns = {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}
        return dataclasses.replace(parts[0], **columns)

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [n, s, s, 3] in 0..1 of uint8 images [n, s, s, 3], on their device."""
        if images.device.type == "cpu":
            return torch.from_numpy(augment_cpu.apply(self, images.numpy()))
        return self.apply_in_batch(images)

    def apply_in_batch(self, images: torch.Tensor) -> torch.Tensor:
        """`apply` in operations whose shapes do not depend on the views."""
        pixels = turn_each(images, self.symmetry).float().div_(255)
        pixels = pixels if self.moves is None else self._moved(pixels)
        if self.balanced is not None:
            gains = torch.where(send(self.balanced, images.device)[:, None], grey_gains(pixels), 1)
            pixels = (pixels * gains[:, None, None]).clamp_(0, 1)
        if self.colour is not None:
            pixels = self._coloured(pixels)
        if self.hue is not None:
            pixels = _turn_hue(pixels, send(self.hue, images.device)[:, None, None])
        if self.gamma is not None:
            pixels = pixels.pow(send(self.gamma, images.device)[:, None, None, None])
        return pixels

    def colours(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Matrix [n, 3, 3] of a pixel, that of the image's mean, and what is added [n, 1 or 3]."""
        assert self.colour is not None
        assert self.contrast is not None
        contrast = self.contrast[:, None, None]
        middle = self.colour if self.middle is None else self.middle
        added = np.zeros(len(contrast), np.float32) if self.brightness is None else self.brightness
        return self.colour * contrast, middle * (1 - contrast), added[:, None]

    def _coloured(self, pixels: torch.Tensor) -> torch.Tensor:
        flat = pixels.flatten(1, 2)
        matrix, middle, added = (send(array, pixels.device) for array in self.colours())
        offset = flat.mean(1, keepdim=True) @ middle.transpose(1, 2) + added[:, None]
        flat = torch.baddbmm(offset, flat, matrix.transpose(1, 2)).clamp_(0, 1)
        return flat.unflatten(1, pixels.shape[1:3])

    def _moved(self, pixels: torch.Tensor) -> torch.Tensor:
        assert self.moves is not None
        x = pixels.permute(0, 3, 1, 2)
        grid = F.affine_grid(send(self.moves, x.device), list(x.shape), align_corners=True)
        moved = F.grid_sample(x, grid, "bilinear", self.rim, align_corners=True)
        return moved.permute(0, 2, 3, 1)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


def draw_views(
    rng: np.random.Generator, n: int, name: AugmentName = "dihedral-colour"
) -> Views | None:
    """Random views for n images; None where they stay as they are."""
    if name == "none":
        return None
    if name == "strong-colour":
        placed = _draw_published(rng, n, dataclasses.replace(PIPELINES["siim"], colours=None))
        return dataclasses.replace(placed, **strong_colour.draw_colours(rng, n))
    if name != "dihedral-colour":
        return _draw_published(rng, n, PIPELINES[name])
    symmetry = rng.integers(8, size=n)
    gain = np.exp(rng.uniform(-BRIGHTNESS, BRIGHTNESS, (n, 1)))
    gain = (gain * np.exp(rng.normal(0, BALANCE, (n, 3)))).astype(np.float32)
    saturation = rng.uniform(1 - SATURATION, 1 + SATURATION, (n, 1, 1)).astype(np.float32)
    contrast = rng.uniform(1 - CONTRAST, 1 + CONTRAST, n).astype(np.float32)
    return Views(symmetry, gain[:, :, None] * strong_colour.saturated(saturation), contrast)


def load_batch(images: np.ndarray | torch.Tensor, size: int, views: Views | None) -> torch.Tensor:
    """What the network sees: float32 [n, 3, size, size] in 0..1, channels last.

    `images` uint8 [n, s, s, 3], real or synthetic: all pixels take this one path. Tensors have the
    size already, and stay on their device. `views` None leaves them as they are (validation, test).
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(resized(images, size))
    pixels = images.float().div_(255) if views is None else views.apply(images)
    return pixels.permute(0, 3, 1, 2)


def _draw_published(rng: np.random.Generator, n: int, pipeline: Pipeline) -> Views:
    mirrored, upside_down = rng.random((2, n)) < [[pipeline.mirror], [pipeline.flip]]
    # left to right is symmetry 4, top to bottom 6, both 2
    symmetry = np.where(upside_down, np.where(mirrored, 2, 6), np.where(mirrored, 4, 0))
    colours = {} if pipeline.colours is None else _draw_colours(rng, n, pipeline.colours)
    moves = None if pipeline.moves is None else _draw_moves(rng, n, pipeline.moves)
    return Views(symmetry, moves=moves, rim=pipeline.rim, **colours)


def _draw_colours(rng: np.random.Generator, n: int, most: Colours) -> dict[str, np.ndarray | None]:
    """Arguments of `Views`. The change of all pixels by one factor, `gain`, goes into `colour`."""
    changed = rng.random(n) < most.chance
    gain, contrast, saturation = (
        np.where(changed, rng.uniform(1 - far, 1 + far, n), 1).astype(np.float32)
        for far in (most.gain, most.contrast, most.saturation)
    )
    brightness = np.where(changed, rng.uniform(-most.brightness, most.brightness, n), 0)
    hue = rng.uniform(-most.hue, most.hue, n).astype(np.float32) if most.hue else None
    return {
        "colour": gain[:, None, None] * strong_colour.saturated(saturation[:, None, None]),
        "contrast": contrast,
        "middle": gain[:, None, None] * GREY,
        "brightness": brightness.astype(np.float32),
        "hue": hue,
    }


def _draw_moves(rng: np.random.Generator, n: int, most: Moves) -> np.ndarray:
    """float32 [n, 2, 3] as of `Views`: the inverse of scale, turn, shear, shift, in this order."""
    angle = np.radians(rng.choice(most.turns, n) * rng.uniform(-1, 1, n))
    scale = 1 + most.zoom * rng.uniform(-1, 1, (n, 2))
    shear = np.tan(np.radians(np.array(most.shear) * rng.uniform(-1, 1, (n, 2))))
    shift = 2 * most.shift * rng.uniform(-1, 1, (n, 2))
    one, sine, cosine = np.ones(n), np.sin(angle), np.cos(angle)
    turned = np.stack([cosine, sine, -sine, cosine], 1).reshape(n, 2, 2) * scale[:, None, :]
    sheared = np.stack([one, shear[:, 0], shear[:, 1], one], 1).reshape(n, 2, 2) @ turned
    back = np.linalg.inv(sheared)
    return np.concatenate([back, -back @ shift[:, :, None]], 2).astype(np.float32)


def grey_gains(pixels: torch.Tensor) -> torch.Tensor:
    """Float [n, 3] that make the light of images [n, s, s, 3] in 0..1 grey, the mean staying.

    Shades of grey (Finlayson & Trezzi 2004): the light is the mean of the sixth powers' root.
    """
    light = pixels.square().mul(pixels).square().mean((1, 2)).pow(1 / 6).clamp(min=1e-3)
    return light.mean(1, keepdim=True) / light


def _turn_hue(pixels: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Of RGB [..., 3] in 0..1 the hue (HSV) by shares of the circle; value and saturation stay."""
    high, low = pixels.amax(-1), pixels.amin(-1)
    red, green, blue = pixels.unbind(-1)
    chroma = high - low
    safe = chroma.clamp(min=1e-8)
    sixth = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixth = (sixth + 6 * by)[..., None]
    # Smith 1978 in one line: 5, 3, 1 are the phases of red, green, blue
    phase = (sixth + 5 - 2 * torch.arange(3, device=pixels.device)).remainder(6)
    share = torch.minimum(phase, 4 - phase).clamp(0, 1)
    return high[..., None] - chroma[..., None] * share
