"""Cleaning of dermoscopic images, by option: black frames, hairs, the colour of the light.

Each cleaner takes and returns uint8 [h, w, 3] RGB, depends on nothing but the image, and returns
an image without the fault as it is. Lengths are shares of the image's short side, so that the same
picture is cleaned alike at every size.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# frame
FRAME_SIDE = 384  # px; the frame is looked for at no more than this
DARK = 0.2  # of the image's bright level: what is darker may be frame
CORNERS = 2  # of the four that must be dark; one dark corner may be a lesion
SMALLEST = 0.3  # of the side; what would leave less is not a frame

# hair
HAIR_SIDE = 384  # px; hairs are looked for at no more than this
DIRECTIONS = 16
PASSES = 2  # the second sees hairs that lay beside others
FEW = 0.04  # of the image under hairs: less, and they do not hide each other
SEGMENT = 1 / 12  # of the side: length over which a hair is straight
BESIDE = 1 / 72  # of the side: where the skin beside a hair is looked at
LONG = 1 / 8  # of the side: what is shorter than this is no hair
SURE, FAINT = (13, 2.5), (7, 1.25)  # darker than beside by grey levels, and by times the texture

# colour
POWER = 6  # of the Minkowski norm


def crop_frame(image: np.ndarray) -> np.ndarray:
    """Crop to the largest box around the lit field's centre that holds no black frame.

    For the round field of a dermoscope this is the rectangle inscribed in it; bars are cut off.
    Frame is what is dark and connected to dark corners of the image, at least CORNERS of them.
    """
    scale = min(1.0, FRAME_SIDE / max(image.shape[:2]))
    small = image
    if scale < 1:
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    box = _lit_box(cv2.max(cv2.max(small[..., 0], small[..., 1]), small[..., 2]))
    if box is None:
        return image
    left, top, right, bottom = box
    inner = [np.ceil(top / scale), np.floor(bottom / scale)]
    inner += [np.ceil(left / scale), np.floor(right / scale)]
    top, bottom, left, right = (int(value) for value in inner)
    return np.ascontiguousarray(image[top:bottom, left:right])


def _lit_box(bright: np.ndarray) -> tuple[int, int, int, int] | None:
    """The box (left, top, right, bottom) within the frame of uint8 [h, w]; None without frame."""
    height, width = bright.shape
    level = np.searchsorted(np.bincount(bright.ravel()).cumsum(), 0.9 * bright.size)
    dark = (bright < max(16, DARK * level)).astype(np.uint8)
    speck = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, speck, borderType=cv2.BORDER_REPLICATE)
    _, label = cv2.connectedComponents(dark, connectivity=4)
    corners = [label[y, x] for y in (1, -2) for x in (1, -2)]
    corners = [number for number in corners if number]
    if len(corners) < CORNERS:
        return None
    frame = np.isin(label, corners)
    lit = cv2.morphologyEx((~frame).astype(np.uint8), cv2.MORPH_OPEN, speck)
    _, _, stats, _ = cv2.connectedComponentsWithStats(lit)
    if len(stats) < 2:
        return None
    left, top, wide, high, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
    # How large a box around the field's centre, as a share of the field, reaches each frame pixel.
    y = np.abs(np.arange(height) + 0.5 - top - high / 2) / (high / 2)
    x = np.abs(np.arange(width) + 0.5 - left - wide / 2) / (wide / 2)
    share = min(1.0, np.maximum(y[:, None], x[None])[frame].min())
    wide_in, high_in = share * wide, share * high
    if wide_in < SMALLEST * width or high_in < SMALLEST * height:
        return None
    across, down = left + (wide - wide_in) / 2, top + (high - high_in) / 2
    # One pixel further in: the frame's edge is soft.
    box = across + 1, down + 1, across + wide_in - 1, down + high_in - 1
    return tuple(round(value) for value in box)


def remove_hair(image: np.ndarray) -> np.ndarray:
    """Paint over dark hairs with what lies beside them.

    In the manner of DullRazor (Lee et al. 1997, doi:10.1016/S0010-4825(97)00020-6): find dark
    lines in several directions, fill them in from both sides (Telea 2004, cv2.inpaint). A hair
    must be darker than both sides over a straight piece, by more than the texture around it, and
    go on: networks, globules and borders of lesions are not and do not.
    """
    radius = max(2, round(min(image.shape[:2]) / 128))
    for _ in range(PASSES):
        mask = hair_mask(image)
        if not mask.any():
            break
        image = cv2.inpaint(image, mask, radius, cv2.INPAINT_TELEA)
        if mask.mean() < FEW * 255:
            break
    return image


def hair_mask(image: np.ndarray) -> np.ndarray:
    """uint8 [h, w], 255 on dark hairs, of uint8 [h, w, 3] RGB."""
    height, width = image.shape[:2]
    scale = min(1.0, HAIR_SIDE / min(height, width))
    # Red: pigment and blood hardly darken it, hairs do.
    red = np.ascontiguousarray(image[..., 0])
    if scale < 1:
        red = cv2.resize(red, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    mask = _hairs(red)
    if scale < 1:
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        mask = np.where(mask > 64, np.uint8(255), np.uint8(0))
    return mask


def _hairs(red: np.ndarray) -> np.ndarray:
    side = min(red.shape)
    depth, texture = _line_depth(red), _texture(red)
    sure = depth >= np.maximum(SURE[0], SURE[1] * texture)
    faint = depth >= np.maximum(FAINT[0], FAINT[1] * texture)
    # A line's depth reaches beyond its sides and its end: the pixel itself must be dark.
    hollow = cv2.subtract(cv2.morphologyEx(red, cv2.MORPH_CLOSE, _disc(side / 32)), red)
    faint &= hollow >= np.maximum(4, 0.3 * depth)
    _, label, stats, _ = cv2.connectedComponentsWithStats(faint.astype(np.uint8), connectivity=8)
    reach = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    certain = np.bincount(label[sure & faint], minlength=len(stats))
    keep = (reach >= side * LONG) & (certain >= side * LONG / 2)
    keep[0] = False
    return cv2.dilate(keep[label].astype(np.uint8) * 255, _disc(side / 110))


def _line_depth(red: np.ndarray) -> np.ndarray:
    """uint16 [h, w]: how much darker a straight piece through the pixel is than both its sides.

    The most over all directions, in grey levels; 0 where a side is as dark.
    """
    side = min(red.shape)
    fours, beside = max(1, round(side * SEGMENT / 4)), max(2, round(side * BESIDE))
    edge = 2 + 2 * fours + beside + 1  # what the three sums below cut off
    soft = cv2.blur(red, (3, 3)).astype(np.uint16)
    soft = cv2.copyMakeBorder(soft, edge, edge, edge, edge, cv2.BORDER_REFLECT)
    deepest = np.zeros(red.shape, np.uint16)
    for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS:
        along, across = (np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))
        four = sum(_moved(soft, along, 2, np.arange(4) - 1.5))
        line = sum(_moved(four, along, 2 * fours, 4 * (np.arange(fours) - (fours - 1) / 2)))
        left, middle, right = _moved(line, across, beside + 1, (-beside, 0, beside))
        np.maximum(deepest, cv2.subtract(np.minimum(left, right), middle), out=deepest)
    return deepest // (4 * fours)


def _moved(
    plane: np.ndarray, way: tuple[float, float], edge: int, steps: Sequence[float]
) -> list[np.ndarray]:
    """Views of `plane` moved along `way` by each step in px, all smaller by `edge` on each side."""
    height, width = plane.shape[0] - 2 * edge, plane.shape[1] - 2 * edge
    starts = [(edge + round(way[1] * step), edge + round(way[0] * step)) for step in steps]
    return [plane[top : top + height, left : left + width] for top, left in starts]


def _texture(red: np.ndarray) -> np.ndarray:
    """float32 [h, w]: local deviation of the fine structure, from what is bright: no hairs."""
    side = min(red.shape)
    detail = cv2.subtract(red, cv2.medianBlur(red, _odd(side / 20)))
    detail = np.minimum(detail, 12).astype(np.float32)
    variance = 2 * cv2.blur(detail * detail, (_odd(side / 8),) * 2)
    return np.sqrt(np.maximum(variance, 0))  # running sums may end just below


def _disc(diameter: float) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_odd(diameter),) * 2)


def _odd(length: float) -> int:
    return 2 * round(length / 2) + 1


def even_colour(image: np.ndarray) -> np.ndarray:
    """Take the light's colour out, by shades of gray; the mean brightness stays.

    The colour of the light is the Minkowski norm of each channel, p = 6 (Finlayson & Trezzi 2004,
    doi:10.2352/CIC.2004.12.1.art00008); each channel is divided by its own.
    """
    counts = [np.bincount(image[..., band].ravel(), minlength=256) for band in range(3)]
    counts = np.stack(counts) / image[..., 0].size
    levels = np.arange(256.0)
    light = (counts @ levels**POWER) ** (1 / POWER)
    if light.min() < 1:  # a channel that is black says nothing
        return image
    means = counts @ levels
    gains = means.sum() / (means / light).sum() / light
    table = np.clip(np.rint(levels[:, None] * gains), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[:, None])


CLEANERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # in the order of their use
    "frame": crop_frame,
    "hair": remove_hair,
    "colour": even_colour,
}


def clean_image(image: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Clean uint8 [h, w, 3] RGB by the named cleaners, in the order of CLEANERS."""
    for name, cleaner in CLEANERS.items():
        if name in names:
            image = cleaner(image)
    return image


def before_after(
    images_before: np.ndarray, images_after: np.ndarray, path: str | os.PathLike[str]
) -> None:
    """Write a PNG of pairs, two pairs a row: images uint8 [n, size, size, 3], RGB, before, after.

    Small images are enlarged to 256 px.
    """
    side, gap, head = max(256, images_before.shape[1]), 8, 28
    rows = -(-len(images_before) // 2)
    wide = 4 * side + 5 * gap + 3 * gap
    page = Image.new("RGB", (wide, head + rows * (side + gap)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    pairs = zip(images_before, images_after, strict=True)
    for number, pair in enumerate(pairs):
        for place, (name, pixels) in enumerate(zip(("before", "after"), pair, strict=True)):
            column = number % 2 * 2 + place
            left = gap + column * (side + gap) + (3 * gap if column > 1 else 0)
            shown = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
            page.paste(shown, (left, head + number // 2 * (side + gap)))
            if number < 2:
                draw.text((left, 4), name, "black", font)
    page.save(Path(path))
