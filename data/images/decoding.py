"""From encoded images to square 8-bit RGB pixels: one path for every source, real or synthetic.

Upright (EXIF orientation), cleaned if asked for (data.images.cleaning), centre crop to a square or
letterbox, one Lanczos filter to the stored size. JPEGs are decoded at 1/2, 1/4 or 1/8 of their
size (means of pixels) where that is still at least the stored size. Colour profiles are not
applied. This is also the gate for files from outside: whatever a file holds, the outcome is pixels
or a BadImage.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import scipy.fft
from PIL import ExifTags, Image

from data.images.cleaning import CLEANERS, HAIR_SIDE, clean_image
from data.images.files import BadImage, Encoded, is_inside, out_of, read_file
from data.images.opening import COPIES, MAX_PIXELS, fault, open_image
from dermsynth import progress
from dermsynth.errors import UserError
from dermsynth.machine import cores

LOOK_AHEAD = 4  # images a core that may be decoded before they are asked for
KEPT_BYTES = 256 * 2**20  # of encoded images that wait to be asked for


@dataclass(frozen=True)
class Preprocessing:
    """How files become pixels. Raises UserError for a cleaner that does not exist."""

    size: int = 128  # side of the square, px
    fit: Literal["crop", "letterbox"] = "crop"  # cut the long side, or fill up with black
    clean: tuple[str, ...] = ()  # names of data.images.cleaning.CLEANERS, put into their order

    def __post_init__(self) -> None:
        if unknown := [name for name in self.clean if name not in CLEANERS]:
            raise UserError(f"--clean {', '.join(unknown)}: expected {', '.join(CLEANERS)}")
        ordered = tuple(name for name in CLEANERS if name in self.clean)
        object.__setattr__(self, "clean", ordered)


@dataclass(frozen=True)
class Decoded:
    """An image as it is stored, and what its file was."""

    pixels: np.ndarray  # uint8 [size, size, 3], RGB
    width: int  # of the whole upright image, px
    height: int
    sha256: str  # of the encoded bytes, 64 hex digits
    phash: str  # perceptual hash of `pixels`, 16 hex digits
    content: bytes | None = None  # the encoded bytes, if asked for


# -------------------------------------------------------------------------------------- decoding


def decode(source: Encoded | Path, preprocessing: Preprocessing) -> Decoded:
    """Decode an image file of 8-bit RGB (data.images.formats.READ). Raises BadImage."""
    if isinstance(source, Path):
        source = Encoded(source)
    return decode_bytes(read_file(source), source.path, preprocessing)


def decode_bytes(content: bytes, name: Path, preprocessing: Preprocessing) -> Decoded:
    """Decode the bytes of an image file of 8-bit RGB. Raises BadImage, which calls it `name`."""
    try:
        image = open_image(content)
        orientation = _orientation(image)
        width, height = image.size[::-1] if orientation >= 5 else image.size
        pixels = _pixels(image, orientation, preprocessing)
    except Exception as error:  # a damaged file may raise nearly anything in its decoder
        raise BadImage(name, fault(error)) from None
    digest = hashlib.sha256(content).hexdigest()
    return Decoded(pixels, width, height, digest, perceptual_hash(pixels))


def pixels_at(content: bytes, preprocessing: Preprocessing) -> np.ndarray:
    """uint8 [size, size, 3], RGB, of an encoded image that `decode_bytes` has accepted before."""
    image = open_image(content)
    return _pixels(image, _orientation(image), preprocessing)


def decode_all(
    sources: list[Encoded] | list[Path],
    preprocessing: Preprocessing,
    keep_content: bool = False,
    roots: tuple[Path, ...] = (),
) -> Iterator[Decoded | BadImage]:
    """Decode with all cores, in order; an image that cannot be used yields its BadImage.

    With `roots` (of several sources), files that lie outside all of them once links are resolved
    are not read. The memory used does not depend on the number of images.
    """
    tops = [os.path.realpath(top) for top in roots]

    def attempt(source: Encoded | Path) -> Decoded | BadImage:
        source = Encoded(source) if isinstance(source, Path) else source
        try:
            if tops and not any(is_inside(source.path, top) for top in tops):
                raise BadImage(source.path, out_of(source.path, _root_of(source.path, roots)))
            content = read_file(source)
            decoded = decode_bytes(content, source.path, preprocessing)
            return replace(decoded, content=content) if keep_content else decoded
        except BadImage as problem:
            return problem

    workers = cores()
    with (
        progress.bar(len(sources), "decoding", "image") as bar,
        ThreadPoolExecutor(workers) as executor,  # decoding, filtering and hashing release the GIL
    ):
        waiting: deque[Future[Decoded | BadImage]] = deque()
        try:
            for source in sources:
                waiting.append(executor.submit(attempt, source))
                while len(waiting) >= LOOK_AHEAD * workers or _kept(waiting) > KEPT_BYTES:
                    yield waiting.popleft().result()
                    bar.update(1)
            while waiting:
                yield waiting.popleft().result()
                bar.update(1)
        finally:
            for future in waiting:
                future.cancel()


def perceptual_hash(pixels: np.ndarray) -> str:
    """64-bit DCT hash of uint8 [size, size, 3] RGB, as 16 hex digits.

    The same bits as imagehash's phash, which spends more of its time under Python's lock.
    """
    grey = Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    low = (LOW @ np.asarray(grey, np.float64) @ LOW.T).round(6)  # so that ties stay ties
    return np.packbits(low > np.sort(low, axis=None)[31:33].mean()).tobytes().hex()


LOW = scipy.fft.dct(np.eye(32), axis=0)[:8]  # [8, 32]: cosines of the eight lowest frequencies


def _root_of(path: Path, roots: tuple[Path, ...]) -> Path:
    """The root below which a file was listed."""
    return next((root for root in roots if path.is_relative_to(root)), roots[0])


def _kept(waiting: deque[Future[Decoded | BadImage]]) -> int:
    """Bytes of encoded images that are ready and not yet asked for."""
    ready = (future.result() for future in waiting if future.done())
    return sum(len(getattr(result, "content", None) or b"") for result in ready)


def _orientation(image: Image.Image) -> int:
    """How a camera held the picture: 1..8 as in EXIF; 1 where it does not say."""
    if image.format == "TIFF":  # Pillow turns it while it is loaded; its size is the upright one
        return 1
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


# ---------------------------------------------------------------------------------------- pixels

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _PixelBudget:
    """Threads decode together while their images fit in; one that fills it alone waits for that."""

    def __init__(self, pixels: int) -> None:
        self.whole = self.free = pixels
        self.turn = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        pixels = min(pixels, self.whole)
        with self.turn:
            self.turn.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.turn:
                self.free += pixels
                self.turn.notify_all()


_budget = _PixelBudget(MAX_PIXELS)  # at most 6 bytes each while a file is decoded


def _pixels(image: Image.Image, orientation: int, how: Preprocessing) -> np.ndarray:
    """Decode and fit an opened image. Raises anything for a damaged file."""
    full = image.size
    side = how.size * (2 if "frame" in how.clean else 1)  # cropping must leave enough
    if "hair" in how.clean:
        side = max(side, HAIR_SIDE)
    # What counts is the side that ends up as long as the square: the short one where the long one
    # is cut, the long one where the short one is filled up.
    share = side / (min(full) if how.fit == "crop" else max(full))
    need = (max(1, round(full[0] * share)), max(1, round(full[1] * share)))
    # Only JPEGs: of a HEIC it would be the thumbnail beside the picture.
    drafted = image.draft("RGB", need) if image.format == "JPEG" else None
    extent = drafted[1][2:] if drafted else full  # the last column may be less than a whole one
    whole = full if "progressive" in image.info else image.size
    with _budget.taken(whole[0] * whole[1] * COPIES.get(image.format or "", 1)):
        image.load()
        if how.clean:
            pixels = np.asarray(image)
            if need < image.size:  # cleaning costs time by the pixel
                pixels = cv2.resize(pixels, need, interpolation=cv2.INTER_AREA)
            image = Image.fromarray(clean_image(pixels, how.clean))
            extent = image.size
        image = _fit(image, extent, how)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    return np.asarray(image)


def _fit(image: Image.Image, extent: tuple[float, float], how: Preprocessing) -> Image.Image:
    """The square: the middle of `extent` (from the upper left, px), or all of it on black."""
    width, height = extent
    lanczos = Image.Resampling.LANCZOS
    if how.fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((how.size, how.size), lanczos, box=box)
    scale = how.size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    square = Image.new("RGB", (how.size, how.size))
    corner = ((how.size - inner[0]) // 2, (how.size - inner[1]) // 2)
    square.paste(image.resize(inner, lanczos, box=(0, 0, width, height)), corner)
    return square
