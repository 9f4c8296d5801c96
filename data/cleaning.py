"""Cleaning of dermoscopic images, by option: black frames, hairs, the colour of the light."""

from collections.abc import Callable

import numpy as np

CLEANERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {}  # by name, in the order of use


def clean_image(image: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Clean uint8 [h, w, 3] RGB by the named cleaners, in the order of CLEANERS."""
    for name, cleaner in CLEANERS.items():
        if name in names:
            image = cleaner(image)
    return image
