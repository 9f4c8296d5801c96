"""What published pipelines do to an image, in numbers; equal in distribution to albumentations'."""

from dataclasses import dataclass
from typing import Literal

from classifier.options import AugmentName


@dataclass(frozen=True)
class Moves:
    """Uniform between - and + the limits: turn, shear along x and y, change of scale, shift."""

    turns: tuple[float, ...] = (180.0,)  # degrees; of several, each is as often the limit
    shear: tuple[float, float] = (0.0, 0.0)  # degrees
    zoom: float = 0.0  # of width and height, each by itself
    shift: float = 0.0  # share of the side, along x and y


@dataclass(frozen=True)
class Colours:
    """Uniform between - and + the limits, around factors of 1 and sums of 0."""

    gain: float = 0.0  # factor of all values
    contrast: float = 0.0  # factor of the distance from the mean grey
    saturation: float = 0.0  # factor of the distance from the pixel's grey
    brightness: float = 0.0  # added, share of the whole range
    hue: float = 0.0  # share of the circle
    chance: float = 1.0  # that anything but the hue is changed


@dataclass(frozen=True)
class Pipeline:
    """In the order in which they are applied."""

    mirror: float = 0.0  # chance, left to right
    flip: float = 0.0  # chance, top to bottom
    colours: Colours | None = None
    moves: Moves | None = None
    rim: Literal["border", "reflection"] = "border"  # what a move brings in


# The notebooks draw from normal distributions; these are uniform with the same standard deviation,
# sqrt(3) of which is the limit. That of the b3 notebook, at 384 px, draws each from the wider or
# the narrower of two normal distributions: shear of 5 or 2 degrees, zoom of 1/10 or 1/8, shift of
# 16 or 8 px; that of the b6 notebook, at 512 px, from the second alone.
B3 = Moves(turns=(26, 180), shear=(6.6, 0.0), zoom=0.196, shift=0.057)
B6 = Moves(turns=(180,), shear=(3.5, 0.0), zoom=0.217, shift=0.027)
# of neither: what `default` was tuned with
SIIM = Moves(turns=(26, 180), shear=(3.5, 3.5), zoom=0.22, shift=0.054)

_B3_COLOURS = Colours(contrast=0.2, saturation=0.3, brightness=0.1, hue=0.01)
_B6_COLOURS = Colours(contrast=0.2, saturation=0.3, brightness=0.2)
_STUDENT = Colours(gain=0.2, brightness=0.2, chance=0.5)

PIPELINES: dict[AugmentName, Pipeline] = {
    "mirror": Pipeline(0.5),
    "flips": Pipeline(0.5, 0.5),
    "rotate": Pipeline(moves=Moves(), rim="reflection"),
    "rotate-flips": Pipeline(0.5, 0.5, moves=Moves()),
    "student": Pipeline(0.5, 0.5, _STUDENT, Moves(), "reflection"),
    "siim": Pipeline(0.5, 0.5, _B3_COLOURS, SIIM),
    "siim-b3": Pipeline(0.5, 0.5, _B3_COLOURS, B3),
    "siim-b6": Pipeline(0.5, 0.5, _B6_COLOURS, B6),
}
