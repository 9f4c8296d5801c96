"""Skin tone of a dermoscopic image: the individual typology angle (ITA) of the skin at its border.

    ITA = arctan((L* - 50) / b*) in degrees, of CIELAB under D65

Chardon, Cretois & Hourseau 1991 (doi:10.1111/j.1467-2494.1991.tb00561.x) cut it into six bands.
They measured with a colorimeter; a dermoscope's light, polariser, gel and white balance move the
angle, so this tells how images of one set compare, not what a person's skin is.
"""

import cv2
import numpy as np

BANDS = {  # name: lower bound, degrees (Chardon et al. 1991)
    "very light": 55.0,
    "light": 41.0,
    "intermediate": 28.0,
    "tan": 10.0,
    "brown": -30.0,
    "dark": -np.inf,
}
SIDE = 128  # px an image is thinned out to; skin has no detail that counts here
BLACK = 15.0  # L* below which a border is frame or vignette: skin is never that dark under a lamp
RIM, RING = 0.02, 0.12  # of the side: blurred edge of the picture left out, width of the ring in it
DARKER = 12.0  # L* below the lighter quarter of the ring: hair, lesion, shadow
LEAST = 0.01  # of the image that must be left as skin


def ita(image: np.ndarray) -> float:
    """Individual typology angle of the border skin of uint8 [h, w, 3] RGB, degrees.

    Looks at a ring along the edge of what is not black frame or vignette, leaves out what is much
    darker than the ring's lighter quarter (hairs, a lesion that reaches the border, shadow) and
    takes the median of L* and b*. Beyond 90 or -90 where the skin looks bluish (b* below 0): that
    is the light, no skin is. NaN where no skin is left.
    """
    step = max(1, min(image.shape[:2]) // SIDE)
    small = np.ascontiguousarray(image[::step, ::step])
    light, _, yellow = cv2.split(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab))
    ring = _ring(light)
    if ring.any():
        ring &= light > np.percentile(light[ring], 75) - DARKER
    if ring.sum() < LEAST * ring.size:
        return float("nan")
    # arctan2, not arctan, which would take bluish light skin for dark
    return float(np.degrees(np.arctan2(np.median(light[ring]) - 50, np.median(yellow[ring]))))


def frame_mask(light: np.ndarray, thinnest: int) -> np.ndarray:
    """bool [h, w] of L* [h, w]: what is black (below BLACK) and reaches the border.

    Thinner pieces than a `thinnest`-th of the side are hair, not frame.
    """
    piece = max(3, min(light.shape) // thinnest)
    thick = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (piece, piece))
    black = cv2.morphologyEx((light < BLACK).astype(np.uint8), cv2.MORPH_OPEN, thick)
    _, pieces = cv2.connectedComponents(black)
    border = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
    return (pieces > 0) & np.isin(pieces, border)


def bands(angles: np.ndarray) -> np.ndarray:
    """Names of BANDS (object [n]) of angles in degrees; None where NaN or beyond 90 or -90."""
    names = np.array(list(BANDS), dtype=object)
    upper = -np.array(list(BANDS.values()))[:-1]
    chosen = names[np.searchsorted(upper, -np.nan_to_num(angles), side="right")]
    chosen[~(np.abs(angles) <= 90)] = None
    return chosen


def _ring(light: np.ndarray) -> np.ndarray:
    """bool [h, w]: the ring inside the picture's edge, whatever black there is around it."""
    side = min(light.shape)
    outside = frame_mask(light, 16)
    depth = cv2.distanceTransform(
        np.pad((~outside).astype(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )[1:-1, 1:-1]
    return (depth > RIM * side) & (depth <= (RIM + RING) * side)
