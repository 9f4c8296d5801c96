"""`classifier.augment.Views` on a CPU: by OpenCV, in a fifth of torch's time."""

from typing import TYPE_CHECKING

import cv2
import numpy as np

from dermsynth.symmetries import AS_FLIPS

if TYPE_CHECKING:
    from classifier.augment import Views

RIMS = {"border": cv2.BORDER_REPLICATE, "reflection": cv2.BORDER_REFLECT_101}


def apply(views: "Views", images: np.ndarray) -> np.ndarray:
    """float32 [n, s, s, 3] in 0..1 of uint8 images [n, s, s, 3]."""
    side = images.shape[1]
    changed = np.empty(images.shape, np.float32)
    colours = None if views.colour is None else views.colours()
    places = None if views.moves is None else _in_pixels(views.moves, side)
    for at, image in enumerate(images):
        image = _turned(image, *AS_FLIPS[views.symmetry[at]])
        if places is not None:
            how, rim = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, RIMS[views.rim]
            image = cv2.warpAffine(image, places[at], (side, side), flags=how, borderMode=rim)
        changed[at] = image
        if views.balanced is not None and views.balanced[at]:
            changed[at] = np.minimum(changed[at] * _grey_gains(changed[at]), 255)
        if colours is not None:
            matrix, middle, added = (each[at] for each in colours)
            offset = 255 * added + middle @ np.array(cv2.mean(changed[at])[:3], np.float32)
            changed[at] = cv2.transform(changed[at], np.column_stack([matrix, offset]))
    changed /= 255
    np.clip(changed, 0, 1, out=changed)
    if views.hue is not None:
        for at, by in enumerate(views.hue):
            hsv = cv2.cvtColor(changed[at], cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0] + 360 * by) % 360
            changed[at] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if views.gamma is not None:
        for at in np.flatnonzero(views.gamma != 1):
            changed[at] = cv2.pow(changed[at], float(views.gamma[at]))
    return changed


def _grey_gains(image: np.ndarray) -> np.ndarray:
    """float32 [3]: `classifier.augment.grey_gains` of one image float32 [s, s, 3] in 0..255."""
    squared = np.square(image / 255)
    light = np.maximum((squared * squared * squared).mean((0, 1)) ** (1 / 6), 1e-3)
    return (light.mean() / light).astype(np.float32)


def _turned(image: np.ndarray, swap: bool, rows: bool, columns: bool) -> np.ndarray:
    image = cv2.transpose(image) if swap else image
    if rows or columns:
        image = cv2.flip(image, -1 if rows and columns else 0 if rows else 1)
    return image


def _in_pixels(moves: np.ndarray, side: int) -> np.ndarray:
    """float64 [n, 2, 3], from pixel to pixel, of the same between -1 and 1."""
    turn, shift = moves[:, :, :2].astype(float), moves[:, :, 2].astype(float)
    offset = (shift + 1 - turn.sum(2)) * (side - 1) / 2
    return np.concatenate([turn, offset[:, :, None]], 2)
