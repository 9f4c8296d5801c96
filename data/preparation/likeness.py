"""How alike two pictures of skin are: as a whole, in fine structure, and after registration.

Three measures for the three stages of data.preparation.duplicates, each dearer and stricter than
the one before:

- `waves`: low-frequency DCT coefficients (those of the perceptual hash, as numbers instead of bits)
  of brightness, two colours and the gradient's strength and direction. Mirroring changes their
  signs and turning swaps them, so that all orientations are compared without new pictures.
- `quantised`: fine structure, what is left of the brightness after its local mean and contrast are
  divided out: hairs, pores, freckles, ridges of a network.
- `registered`: whether the fine structure is the same place by place after an affine map (enhanced
  correlation coefficient, Evangelidis & Psarakis 2008, doi:10.1109/TPAMI.2008.113). Two lesions may
  look alike as blobs, and one's outline may be stretched over the other's; pores cannot.
"""

import cv2
import numpy as np

WHOLE, COARSE, FINE = 64, 40, 96  # px of `waves`, `quantised`, `registered`
WAVES = 6  # frequencies a side, 0 to 5 half-waves over the image
WEIGHTS = (1.0, 0.5, 0.5, 1.5, 1.5, 1.5)  # of brightness, two colours, gradient (3)
NOTHING = (16.0, 0.5, 0.5, 1.0, 1.0, 1.0)  # lengths that noise alone may have, same order
PROMISING = 0.38  # least likeness halfway through the registration
OVERLAP = 0.7  # least share of the skin that registration may leave in common
BLACK = 30  # of 255; darker corners belong to a frame


def _wave_tables() -> tuple[np.ndarray, np.ndarray]:
    """DCT basis [waves, px]; weights of the kept frequencies [waves, waves]; 0 is not kept."""
    wave, place = np.arange(WAVES)[:, None], np.arange(WHOLE)[None] + 0.5
    basis = np.cos(np.pi * wave * place / WHOLE) * np.sqrt(2 / WHOLE)
    basis[0] /= np.sqrt(2)
    length = np.hypot(wave, wave.T)
    fall = length**0.75 * np.exp(-((length / (WAVES - 1)) ** 2)) * (length < WAVES - 0.99)
    return basis.astype(np.float32), fall.astype(np.float32)


def _orientation_tables(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the eight orientations do to `waves`: waves[order[k]] * sign[k]; both [8, d]."""
    index = np.arange(len(WEIGHTS) * kept.size).reshape(-1, *kept.shape)
    mirror, turn = np.ones((2, len(WEIGHTS), 1, 1))
    mirror[-1] = -1  # of the gradient's doubled angle: the sine
    turn[-2] = -1  # the cosine
    parity = (-1.0) ** np.arange(len(kept))
    orders, signs = [], []
    for k in range(8):
        order, sign = index, np.ones(index.shape)
        if k & 4:
            order, sign = order.swapaxes(1, 2), sign * turn
        if k & 1:
            sign = sign * mirror * parity[:, None]
        if k & 2:
            sign = sign * mirror * parity
        orders.append(order[:, kept].ravel())
        signs.append(sign[:, kept].ravel())
    place = np.full(index.size, -1)
    place[orders[0]] = np.arange(len(orders[0]))
    return place[np.array(orders)], np.array(signs, np.float32)


BASIS, FALL = _wave_tables()
ORDER, SIGN = _orientation_tables(FALL > 0)
# Waves by what mirroring down and across does to their signs.
CLASSES = [(SIGN[1] == a) & (SIGN[2] == b) for b in (1, -1) for a in (1, -1)]


def waves(image: np.ndarray) -> np.ndarray:
    """float32 [d]: low-frequency DCT coefficients of six channels, of weighted unit lengths."""
    small = cv2.resize(image, (WHOLE, WHOLE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    logs = cv2.log(small.astype(np.float32) + 8)  # 8 of 255: black has no colour
    along, down = (cv2.Sobel(grey, cv2.CV_32F, *axis, ksize=3) for axis in ((1, 0), (0, 1)))
    power = along * along + down * down
    strength = np.sqrt(power) + 1e-3
    local = np.sqrt(cv2.GaussianBlur(power, (0, 0), WHOLE / 8) + 10)  # 10: JPEG's own
    skin = _skin(grey)
    channels = np.stack(
        [
            grey,
            logs[..., 0] - logs[..., 1],
            logs[..., 2] - logs[..., 1],
            strength / local,
            (along * along - down * down) / (strength * local),  # the gradient's angle, doubled:
            2 * along * down / (strength * local),  # cosine and sine
        ]
    )
    channels -= (channels * skin).sum((1, 2), keepdims=True) / skin.sum()
    channels *= skin
    amounts = ((BASIS @ channels @ BASIS.T) * FALL)[:, FALL > 0]
    lengths = np.sqrt((amounts**2).sum(1) + np.square(NOTHING))
    weights = np.sqrt(np.array(WEIGHTS) / sum(WEIGHTS))
    return (amounts * (weights / lengths)[:, None]).ravel().astype(np.float32)


def reoriented(waves: np.ndarray, orientation: int) -> np.ndarray:
    """The `waves` [..., d] of the same images in orientation 0..7."""
    return waves[..., ORDER[orientation]] * SIGN[orientation]


def quantised(image: np.ndarray) -> np.ndarray:
    """int8 [40, 40]: fine structure; a unit is 1/32 of what it mostly is."""
    fine, _ = _fine_structure(image, COARSE)
    return np.clip(np.rint(fine * 32), -127, 127).astype(np.int8)


def _fine_structure(image: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Brightness, its local mean and contrast divided out, and `_skin`; float32 [size, size]."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    detail = small - cv2.GaussianBlur(small, (0, 0), size / 32)
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), size / 12))
    skin = _skin(small)
    return detail / (contrast + 2) * skin, skin  # 2 of 255: what sensors and JPEG add


def _skin(grey: np.ndarray) -> np.ndarray:
    """float32 [h, w]: 0 on a dermatoscope's black frame and near its rim, else 1.

    The rim is the same in all images of one device, and its edge stronger than any lesion's.
    """
    dark = (grey < BLACK).astype(np.uint8)
    corners = (0, 0, -1, -1), (0, -1, 0, -1)
    if not dark[corners].any():
        return np.ones_like(grey)
    _, piece = cv2.connectedComponents(dark)
    rest = 1 - np.isin(piece, piece[corners][dark[corners] > 0]).astype(np.uint8)
    away = cv2.distanceTransform(rest, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    skin = (away > len(grey) / 12).astype(np.float32)
    return skin if skin.mean() > 0.2 else np.ones_like(grey)


def oriented(image: np.ndarray, orientation: int) -> np.ndarray:
    """A view of an image [side, side, ...] in orientation 0..7: transposed (4), mirrored (1, 2)."""
    turned = image.swapaxes(0, 1) if orientation & 4 else image
    return turned[:: -1 if orientation & 1 else 1, :: -1 if orientation & 2 else 1]


def turning(zoom: float, degrees: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The map [2, 3] that enlarges and turns about the centre of `size` px, and the way back."""
    centre = (size - 1) / 2
    forth = cv2.getRotationMatrix2D((centre, centre), degrees, zoom)
    return forth, cv2.invertAffineTransform(forth)


def turned(image: np.ndarray, zoom: float, degrees: float) -> np.ndarray:
    """The image enlarged and turned about its centre, of the same size."""
    if (zoom, degrees) == (1, 0):
        return image
    forth, _ = turning(zoom, degrees, len(image))
    return cv2.warpAffine(image, forth, image.shape[:2], borderMode=cv2.BORDER_REFLECT)


def registered(image: np.ndarray, other: np.ndarray, affine: np.ndarray) -> float:
    """How alike two images' fine structure is after registration from `affine`; -1: not at all.

    The mean over places of the correlation around each, so that an outline, strong but only in one
    place, counts no more than skin.
    """
    moving, fixed = (
        _fine_structure(np.ascontiguousarray(pixels), FINE) for pixels in (image, other)
    )
    score = -1.0
    for size, blur, rounds, least in ((FINE // 2, 7, 25, PROMISING), (FINE, 3, 15, 0)):
        (b, b_skin), (a, a_skin) = (
            [cv2.resize(layer, (size, size), interpolation=cv2.INTER_AREA) for layer in layers]
            for layers in (fixed, moving)
        )
        affine[:, 2] *= size / FINE
        stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, rounds, 1e-4)
        try:
            _, affine = cv2.findTransformECC(b, a, affine, cv2.MOTION_AFFINE, stop, None, blur)
        except cv2.error:  # does not converge: nothing in common
            return -1.0
        back = {
            "M": affine,
            "dsize": (size, size),
            "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        }
        common = (cv2.warpAffine(a_skin, **back) * b_skin > 0.5).astype(np.float32)
        if common.sum() < OVERLAP * min(a_skin.sum(), b_skin.sum()):
            return -1.0
        score = float(_local_correlation(b, cv2.warpAffine(a, **back), common)[common > 0].mean())
        if score < least:
            return score
        affine[:, 2] *= FINE / size
    return score


def _local_correlation(one: np.ndarray, other: np.ndarray, common: np.ndarray) -> np.ndarray:
    """float32 [h, w]: correlation of two images in a Gaussian window at each place."""

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values * common, (0, 0), len(common) / 14) / share

    share = cv2.GaussianBlur(common, (0, 0), len(common) / 14) + 1e-6
    a, b = one - mean(one), other - mean(other)
    return mean(a * b) / np.sqrt((mean(a * a) + 0.02) * (mean(b * b) + 0.02))
