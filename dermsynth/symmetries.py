"""The eight symmetries of the square, which are those of dermoscopy: it has no up and no down.

Number 0 is the identity; number % 4 counts quarter turns (anticlockwise), 4 and above are mirrored
left to right after the turn.
"""

import itertools
from typing import TypeVar

import numpy as np
import torch

from dermsynth.tensors import send

COUNT = 8
Images = TypeVar("Images", np.ndarray, torch.Tensor)


def turn(images: Images, number: int) -> Images:
    """Images [..., s, s, c] in one symmetry; a view of them."""
    if isinstance(images, torch.Tensor):
        turned = torch.rot90(images, number % 4, (-3, -2))
        return turned.flip(-2) if number >= 4 else turned
    turned_array = np.rot90(images, number % 4, axes=(-3, -2))
    return turned_array[..., ::-1, :] if number >= 4 else turned_array


def turn_each(images: Images, numbers: np.ndarray) -> Images:
    """A copy of images [n, s, s, c], each in its own symmetry, int64 [n] in 0..7."""
    if isinstance(images, torch.Tensor) and images.device.type != "cpu":
        return _turn_all(images, numbers)
    turned = torch.empty_like(images) if isinstance(images, torch.Tensor) else np.empty_like(images)
    for number in np.unique(numbers):
        chosen = np.flatnonzero(numbers == number)
        turned[chosen] = turn(images[chosen], int(number))
    return turned


def _turn_all(images: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    """`turn_each` in operations whose shapes do not depend on the numbers, nor wait for them."""
    how = send(AS_FLIPS[numbers].T, images.device)[:, :, None, None, None]
    images = torch.where(how[0], images.transpose(1, 2), images)
    images = torch.where(how[1], images.flip(1), images)
    return torch.where(how[2], images.flip(2), images)


def _as_flips() -> np.ndarray:
    """bool [8, 3]: whether a symmetry swaps the axes, then flips rows, then columns."""
    square = np.arange(4).reshape(2, 2, 1)
    ways = {}
    for swap, rows, columns in itertools.product((False, True), repeat=3):
        moved = square.transpose(1, 0, 2) if swap else square
        moved = moved[:: -1 if rows else 1, :: -1 if columns else 1]
        ways[moved.tobytes()] = (swap, rows, columns)
    return np.array([ways[np.ascontiguousarray(turn(square, k)).tobytes()] for k in range(COUNT)])


AS_FLIPS = _as_flips()
