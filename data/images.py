"""From an image file to square 8-bit RGB pixels: one path for every source, real or synthetic.

Upright (EXIF orientation), centre crop to a square, Lanczos to the stored size. Large JPEGs are
decoded at 1/2, 1/4 or 1/8 of their size where that is still at least the stored size. Colour
profiles are not applied.
"""

import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from runtime import progress
from runtime.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png")
MIN_SIDE = 32  # px; anything smaller is an icon or a thumbnail, not a lesion
MAX_PIXELS = 100_000_000  # more is a mistake, or meant to exhaust the memory
TO_RGB = "python -c \"from PIL import Image; Image.open('IN').convert('RGB').save('OUT.png')\""
CHUNK = 512  # images decoded ahead of the one that is written


@dataclass(frozen=True)
class Decoded:
    """An image as it is stored, and what its file was."""

    pixels: np.ndarray  # uint8 [size, size, 3], RGB
    width: int  # of the whole upright image, px
    height: int
    sha256: str  # of the file's bytes, 64 hex digits
    phash: str  # perceptual hash of `pixels`, 16 hex digits


class BadImage(UserError):
    """A file that cannot be used. `reason` is the same for all files with the same fault."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def find_files(root: Path) -> list[Path]:
    """Everything below `root`, sorted, links followed; hidden files and folders are left out.

    Folders named like an image are listed too, so that they are reported and not overlooked.
    Raises UserError for a folder that may not be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})")

    found: list[Path] = []
    visited: set[str] = set()  # a link may lead back up
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if (real := os.path.realpath(folder)) in visited:
            subfolders.clear()
            continue
        visited.add(real)
        images = [name for name in subfolders if name.lower().endswith(SUFFIXES)]
        found += [Path(folder, name) for name in files + images if not name.startswith(".")]
    return sorted(found)


def find_images(root: Path) -> list[Path]:
    """The files of `find_files` that have an image's name."""
    return [path for path in find_files(root) if path.name.lower().endswith(SUFFIXES)]


def decode(path: Path, size: int) -> Decoded:
    """Decode a JPEG or PNG file of 8-bit RGB to `size` px a side. Raises BadImage."""
    content = _read(path)
    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG"))
    except UnidentifiedImageError:
        raise BadImage(path, "not a JPEG or PNG image, whatever its name says") from None
    except Image.DecompressionBombError:
        raise BadImage(path, f"more than {MAX_PIXELS // 10**6} megapixels") from None
    except Exception:  # a damaged file may raise nearly anything in its decoder
        raise BadImage(path, "damaged or cut off") from None
    _check(path, image)
    width, height = image.size
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:
            width, height = height, width
        image.draft("RGB", (size, size))
        image.load()
        image = ImageOps.exif_transpose(image)
    except Exception:
        raise BadImage(path, "damaged or cut off") from None
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=box))
    digest = hashlib.sha256(content).hexdigest()
    return Decoded(pixels, width, height, digest, perceptual_hash(pixels))


def decode_all(
    paths: list[Path], size: int, description: str = "decoding"
) -> Iterator[Decoded | BadImage]:
    """Decode with all cores, in order; a file that cannot be used yields its BadImage."""

    def attempt(path: Path) -> Decoded | BadImage:
        try:
            return decode(path, size)
        except BadImage as problem:
            return problem

    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    with (
        progress.bar(len(paths), description, "image") as bar,
        ThreadPoolExecutor(workers) as pool,  # decoding and scaling release the GIL
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is ours
        warnings.filterwarnings("ignore", module="PIL")  # odd metadata of usable images
        for start in range(0, len(paths), CHUNK):
            for result in pool.map(attempt, paths[start : start + CHUNK]):
                yield result
                bar.update(1)


def perceptual_hash(pixels: np.ndarray) -> str:
    """64-bit DCT hash (imagehash's phash) of uint8 [size, size, 3] RGB, as 16 hex digits."""
    return str(imagehash.phash(Image.fromarray(pixels)))


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise BadImage(path, "a folder, not an image") from None
    except OSError as error:
        raise BadImage(path, f"cannot be read ({error.strerror})") from None
    if not content:
        raise BadImage(path, "empty (0 bytes): an interrupted download?")
    return content


def _check(path: Path, image: Image.Image) -> None:
    """What can be told before decoding: size, channels, bits."""
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(path, f"more than {MAX_PIXELS // 10**6} megapixels")
    if min(image.size) < MIN_SIDE:
        raise BadImage(path, f"smaller than {MIN_SIDE} px a side")
    deep = image.mode.startswith("I") or any(";16" in str(tile) for tile in image.tile)
    if deep or image.mode != "RGB":  # Pillow opens 16-bit RGB as "RGB" and drops the lower bits
        names = {"L": "grayscale", "P": "palette", "1": "1-bit", "LA": "grayscale with alpha"}
        found = "16-bit" if deep else names.get(image.mode, image.mode)
        raise BadImage(path, f"{found}, expected 8-bit RGB; to convert a file: `{TO_RGB}`")
