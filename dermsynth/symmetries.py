"""The eight symmetries of the square, which are those of dermoscopy: it has no up and no down.

Number 0 is the identity; number % 4 counts quarter turns (anticlockwise), 4 and above are mirrored
left to right after the turn.
"""

from typing import TypeVar

import numpy as np
import torch

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
    turned = torch.empty_like(images) if isinstance(images, torch.Tensor) else np.empty_like(images)
    for number in np.unique(numbers):
        chosen = np.flatnonzero(numbers == number)
        turned[chosen] = turn(images[chosen], int(number))
    return turned
