"""Pairs of images that show the same lesion again, whatever their lesion ids say.

Three looks, each strict on what the one before lets through:

1. alike as a 16 px thumbnail (correlation), all pairs,
2. alike in fine structure after the best shift (cross-correlation, 40 px),
3. the same fine structure after registration with an affine map (enhanced correlation coefficient,
   Evangelidis & Psarakis 2008, doi:10.1109/TPAMI.2008.113, 96 px).

Fine structure is what is left of the brightness after its local mean and contrast are divided out:
hairs, pores, freckles, ridges of a network. Two lesions may look alike as blobs; their fine
structure does not match. The thresholds were set by eye on all candidate pairs of HAM10000 across
lesion ids: the weakest accepted pair has 0.72 at the third look, the best false one 0.65.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np
from scipy import fft

from runtime import progress

THUMB, COARSE, FINE = 16, 40, 96  # px
ALIKE, SHIFTED, REGISTERED = 0.85, 0.35, 0.70  # least correlation at the three looks
OVERLAP = 0.7  # least share of the image that registration may leave in common
BLOCK = 512  # images compared with all others at a time


def near_duplicates(images: np.ndarray) -> np.ndarray:
    """Row pairs (int64 [m, 2], i < j, sorted) of uint8 [n, size, size, 3] that match.

    Mirrored, much rotated or heavily cropped copies are not found.
    """
    if len(images) < 2:
        return np.zeros((0, 2), np.int64)
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(_look, images))
        thumbs = np.stack([thumb for thumb, _ in looks])
        spectra = np.stack([spectrum for _, spectrum in looks])
        pairs = []
        with progress.bar(len(images), "comparing", "image") as bar:
            for start in range(0, len(images), BLOCK):
                pairs.append(_shifted(_alike(thumbs, start), spectra))
                bar.update(min(BLOCK, len(images) - start))
        candidates = np.concatenate(pairs)
        with progress.bar(len(candidates), "registering", "pair") as bar:
            keep = []
            for score in pool.map(partial(_registered, images), candidates):
                keep.append(score >= REGISTERED)
                bar.update(1)
    return candidates[np.array(keep, bool)]


def identical_pairs(sha256: np.ndarray) -> np.ndarray:
    """Row pairs (int64 [m, 2]) of equal hashes; of k equal rows the first with each other one."""
    _, first, value = np.unique(sha256, return_index=True, return_inverse=True)
    rows = np.arange(len(sha256))
    pairs = np.column_stack([first[value], rows])
    return pairs[pairs[:, 0] != rows]


def _look(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the first two looks compare: unit vector [256], spectrum complex64 [40, 21]."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    thumb = _shrink(grey, THUMB).ravel()
    return _unit(thumb), fft.rfft2(_unit(_fine_structure(grey, COARSE)))


def _alike(thumbs: np.ndarray, start: int) -> np.ndarray:
    """Pairs of rows `start`..`start + BLOCK` with later ones that pass the first look."""
    i, j = np.nonzero(thumbs[start : start + BLOCK] @ thumbs[start:].T > ALIKE)
    return np.column_stack([i, j])[i < j] + start


def _shifted(pairs: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """Those of `pairs` that pass the second look: shifts up to an eighth of the side."""
    keep = np.zeros(len(pairs), bool)
    reach = COARSE // 8
    for start in range(0, len(pairs), 1024):
        one, other = pairs[start : start + 1024].T
        product = spectra[one] * spectra[other].conj()
        match = fft.irfft2(product, s=(COARSE, COARSE), workers=-1, overwrite_x=True)
        near = np.roll(match, (reach, reach), (1, 2))[:, : 2 * reach + 1, : 2 * reach + 1]
        keep[start : start + 1024] = near.max((1, 2)) > SHIFTED
    return pairs[keep]


def _registered(images: np.ndarray, pair: np.ndarray) -> float:
    """Correlation of two images' fine structure after the best affine map; -1 where none is."""
    one, other = (
        _fine_structure(cv2.cvtColor(images[row], cv2.COLOR_RGB2GRAY), FINE) for row in pair
    )
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)
    start = np.eye(2, 3, dtype=np.float32)
    try:
        _, affine = cv2.findTransformECC(one, other, start, cv2.MOTION_AFFINE, stop, None, 3)
    except cv2.error:  # does not converge: nothing in common
        return -1.0
    back = cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(other, affine, (FINE, FINE), flags=cv2.INTER_LINEAR | back)
    whole = np.ones((FINE, FINE), np.uint8)
    common = cv2.warpAffine(whole, affine, (FINE, FINE), flags=cv2.INTER_NEAREST | back) > 0
    if common.mean() < OVERLAP:
        return -1.0
    return float(_unit(one[common]) @ _unit(moved[common]))


def _fine_structure(grey: np.ndarray, size: int) -> np.ndarray:
    """float32 [size, size]: brightness with its local mean and contrast divided out."""
    small = _shrink(grey, size)
    detail = small - cv2.GaussianBlur(small, (0, 0), size / 32)
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), size / 12))
    return detail / (contrast + 2)  # 2 of 255: what sensors and JPEG add by themselves


def _shrink(grey: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
    """Centred, of length 1; all zeros where nothing varies."""
    centred = values - values.mean()
    length = np.linalg.norm(centred)
    return centred / length if length > 1e-3 else np.zeros_like(centred)
