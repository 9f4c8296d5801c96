"""From encoded images to square 8-bit RGB pixels: one path for every source, real or synthetic.

Upright (EXIF orientation), cleaned if asked for (data.cleaning), centre crop to a square or
letterbox, one Lanczos filter to the stored size. JPEGs are decoded at 1/2, 1/4 or 1/8 of their
size (means of pixels) where that is still at least the stored size. Colour profiles are not
applied. This is also the gate for files from outside: whatever a file holds, the outcome is pixels
or a BadImage.
"""

import hashlib
import os
import stat
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
from data.images.opening import MAX_PIXELS, fault, open_image
from dermsynth import progress
from dermsynth.errors import UserError
from dermsynth.machine import cores

SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_BYTES = 64 * 2**20  # of one encoded image
LOOK_AHEAD = 4  # images a core that may be decoded before they are asked for
KEPT_BYTES = 256 * 2**20  # of encoded images that wait to be asked for


@dataclass(frozen=True)
class Encoded:
    """Where an encoded image lies: a whole file, or a piece of one (a TFRecord, a tar shard)."""

    path: Path
    offset: int = 0  # bytes
    length: int | None = None  # bytes; None: to the end of the file


@dataclass(frozen=True)
class Look:
    """How files become pixels. Raises UserError for a cleaner that does not exist."""

    size: int = 128  # side of the square, px
    fit: Literal["crop", "letterbox"] = "crop"  # cut the long side, or fill up with black
    clean: tuple[str, ...] = ()  # names of data.cleaning.CLEANERS, put into their fixed order

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


class BadImage(UserError):
    """An image that cannot be used. `reason` is the same for all images with the same fault."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


# --------------------------------------------------------------------------------------- finding


def find_files(root: Path) -> list[Path]:
    """Everything below `root`, sorted; hidden files and folders are left out.

    Links to folders are followed as long as they stay inside; one that leads out is listed as it
    is. Folders named like an image are listed too: reported, not overlooked. Raises UserError for
    a folder that may not be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})")

    found: list[Path] = []
    visited: set[str] = set()  # a link may lead back up
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(folder)) in visited:
            subfolders.clear()
            continue
        visited.add(real)
        shown = [name for name in subfolders if not name.startswith(".")]
        outside = [name for name in shown if leads_out(Path(folder, name), root)]
        subfolders[:] = [name for name in shown if name not in outside]
        images = [name for name in subfolders if name.lower().endswith(SUFFIXES)]
        names = [name for name in files if not name.startswith(".")] + outside + images
        found += [Path(folder, name) for name in names]
    return sorted(found)


def find_images(root: Path) -> list[Path]:
    """The files of `find_files` with an image's name, and links to folders that lead out."""
    return [
        path
        for path in find_files(root)
        if path.name.lower().endswith(SUFFIXES) or (path.is_dir() and leads_out(path, root))
    ]


def leads_out(path: Path, root: Path) -> bool:
    """Whether `path`, all links resolved, lies outside `root`."""
    return not _inside(path, os.path.realpath(root))


def _inside(path: Path, top: str) -> bool:
    return os.path.commonpath([top, os.path.realpath(path)]) == top


# -------------------------------------------------------------------------------------- decoding


def decode(source: Encoded | Path, look: Look) -> Decoded:
    """Decode a JPEG or PNG of 8-bit RGB. Raises BadImage."""
    if isinstance(source, Path):
        source = Encoded(source)
    return decode_bytes(_read(source), source.path, look)


def decode_bytes(content: bytes, name: Path, look: Look) -> Decoded:
    """Decode the bytes of a JPEG or PNG of 8-bit RGB. Raises BadImage, which calls it `name`."""
    try:
        image = open_image(content)
        orientation = _orientation(image)
        width, height = image.size[::-1] if orientation >= 5 else image.size
        pixels = _pixels(image, orientation, look)
    except Exception as error:  # a damaged file may raise nearly anything in its decoder
        raise BadImage(name, fault(error)) from None
    digest = hashlib.sha256(content).hexdigest()
    return Decoded(pixels, width, height, digest, perceptual_hash(pixels))


def pixels_at(
    content: bytes,
    size: int,
    fit: Literal["crop", "letterbox"] = "crop",
    clean: tuple[str, ...] = (),
) -> np.ndarray:
    """uint8 [size, size, 3], RGB, of an encoded image that `decode_bytes` has accepted before."""
    image = open_image(content)
    return _pixels(image, _orientation(image), Look(size, fit, clean))


def decode_all(
    sources: list[Encoded] | list[Path],
    look: Look,
    keep_content: bool = False,
    root: Path | tuple[Path, ...] | None = None,
) -> Iterator[Decoded | BadImage]:
    """Decode with all cores, in order; an image that cannot be used yields its BadImage.

    With `root` (one folder, or those of several sources), files that lie outside it once links are
    resolved are not read. The memory used does not depend on the number of images.
    """
    roots = (root,) if isinstance(root, Path) else root or ()
    tops = [os.path.realpath(top) for top in roots]

    def attempt(source: Encoded | Path) -> Decoded | BadImage:
        source = Encoded(source) if isinstance(source, Path) else source
        try:
            if tops and not any(_inside(source.path, top) for top in tops):
                raise BadImage(source.path, "a link that leads out of the folder")
            content = _read(source)
            decoded = decode_bytes(content, source.path, look)
            return replace(decoded, content=content) if keep_content else decoded
        except BadImage as problem:
            return problem

    workers = cores()
    with (
        progress.bar(len(sources), "decoding", "image") as bar,
        ThreadPoolExecutor(workers) as pool,  # decoding, filtering and hashing release the GIL
    ):
        waiting: deque[Future[Decoded | BadImage]] = deque()
        try:
            for source in sources:
                waiting.append(pool.submit(attempt, source))
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


def _kept(waiting: deque[Future[Decoded | BadImage]]) -> int:
    """Bytes of encoded images that are ready and not yet asked for."""
    ready = (future.result() for future in waiting if future.done())
    return sum(len(getattr(result, "content", None) or b"") for result in ready)


# --------------------------------------------------------------------------------------- reading


def _read(source: Encoded) -> bytes:
    """The encoded bytes. Only regular files are opened, so that nothing blocks."""
    path = source.path
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BadImage(path, "a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise BadImage(path, "a pipe, a socket or a device, not an image")
        length = status.st_size - source.offset if source.length is None else source.length
        if length > MAX_BYTES:
            raise BadImage(path, f"more than {MAX_BYTES // 2**20} MiB")
        with open(path, "rb", buffering=0) as file:
            file.seek(source.offset)
            content = file.read(length) or b""
    except OSError as error:
        raise BadImage(path, f"cannot be read ({error.strerror})") from None
    if not content:
        raise BadImage(path, "empty (0 bytes): an interrupted download?")
    if len(content) < length:
        raise BadImage(path, "damaged or cut off")
    return content


def _orientation(image: Image.Image) -> int:
    """How a camera held the picture: 1..8 as in EXIF; 1 where it does not say."""
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


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


class _Room:
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


_room = _Room(MAX_PIXELS)  # at most 6 bytes each while a file is decoded


def _pixels(image: Image.Image, orientation: int, look: Look) -> np.ndarray:
    """Decode and fit an opened image. Raises anything for a damaged file."""
    full = image.size
    side = look.size * (2 if "frame" in look.clean else 1)  # cropping must leave enough
    if "hair" in look.clean:
        side = max(side, HAIR_SIDE)
    # What counts is the side that ends up as long as the square: the short one where the long one
    # is cut, the long one where the short one is filled up.
    share = side / (min(full) if look.fit == "crop" else max(full))
    need = (max(1, round(full[0] * share)), max(1, round(full[1] * share)))
    drafted = image.draft("RGB", need)  # None for PNG
    extent = drafted[1][2:] if drafted else full  # the last column may be less than a whole one
    whole = full if "progressive" in image.info else image.size
    with _room.taken(whole[0] * whole[1]):
        image.load()
        if look.clean:
            pixels = np.asarray(image)
            if need < image.size:  # cleaning costs time by the pixel
                pixels = cv2.resize(pixels, need, interpolation=cv2.INTER_AREA)
            image = Image.fromarray(clean_image(pixels, look.clean))
            extent = image.size
        image = _fit(image, extent, look)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    return np.asarray(image)


def _fit(image: Image.Image, extent: tuple[float, float], look: Look) -> Image.Image:
    """The square: the middle of `extent` (from the upper left, px), or all of it on black."""
    width, height = extent
    lanczos = Image.Resampling.LANCZOS
    if look.fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((look.size, look.size), lanczos, box=box)
    scale = look.size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    square = Image.new("RGB", (look.size, look.size))
    corner = ((look.size - inner[0]) // 2, (look.size - inner[1]) // 2)
    square.paste(image.resize(inner, lanczos, box=(0, 0, width, height)), corner)
    return square
