"""`images.npy`, uint8 [n, size, size, 3], and `images.sha256`: 32 bytes of hash an image.

Images are hashed while they are written and checked when they are first read.
"""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dermsynth.errors import UserError
from dermsynth.manifest import FileEntry, Sealed
from dermsynth.row_hashes import BYTES, CheckedRows, parse_hashes, row_hashes

IMAGES, HASHES = "images.npy", "images.sha256"


def load_images(sealed: Sealed, count: int) -> CheckedRows:
    """Map `images.npy` of a finished folder: uint8 [count, size, size, 3].

    Raises UserError where it is anything else.
    """
    path = sealed.path / IMAGES
    hashes = parse_hashes(sealed.bytes(HASHES), count, sealed.path / HASHES, sealed.mend)
    return CheckedRows(map_images(path, count, sealed.mend), hashes, path, sealed.mend)


def map_images(path: Path, count: int, mend: str) -> np.ndarray:
    """Map an npy file of uint8 [count, size, size, 3]. Raises UserError ending in `mend`."""
    try:
        if not path.is_file():
            raise UserError(f"{path}: missing, or no file; {mend}")
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UserError(f"{path}: damaged ({error}); {mend}") from None
    square = images.ndim == 4 and images.shape[1] == images.shape[2] and images.shape[3] == 3
    if images.dtype != np.uint8 or not square or len(images) != count:
        raise UserError(
            f"{path}: holds {images.dtype} {list(images.shape)}, expected uint8 "
            f"[{count}, size, size, 3]; {mend}"
        )
    return images


def stored_hashes(folder: Path) -> list[str]:
    """SHA-256 (hex) of each image in a folder's `images.npy`."""
    content = (folder / HASHES).read_bytes()
    return [content[at : at + BYTES].hex() for at in range(0, len(content), BYTES)]


def image_entries(folder: Path) -> dict[str, FileEntry]:
    """What the manifest is to say of `images.npy`: its rows were hashed while they were written."""
    path = folder / IMAGES
    if not path.exists():
        return {}
    return {IMAGES: FileEntry(size=path.stat().st_size, sha256=None, rows=HASHES)}


def save_images(folder: Path, images: np.ndarray) -> None:
    """Write uint8 [n, size, size, 3] as `images.npy` and `images.sha256`."""
    with image_writer(folder, images.shape[1]) as append:
        for start in range(0, len(images), 1024):
            append(images[start : start + 1024])


@contextlib.contextmanager
def image_writer(
    folder: Path, size: int, done: int = 0
) -> Iterator[Callable[[Sequence[np.ndarray] | np.ndarray], None]]:
    """Write `images.npy`, uint8 [n, size, size, 3], piece by piece, n not known beforehand.

    Yields `append(images)`; what was appended is on disk when it returns, and its hashes in
    `images.sha256`. The first `done` images of files that were left unfinished are kept. Plain
    writes, not a memory map: on a full disk a write raises OSError, a memory map kills the process.
    """

    def to_disk(file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())

    count, mode = done, "r+b" if done else "wb"
    with open(folder / IMAGES, mode) as file, open(folder / HASHES, mode) as hashes:

        def append(images: Sequence[np.ndarray] | np.ndarray) -> None:
            nonlocal count
            for image in images:
                if image.dtype != np.uint8 or image.shape != (size, size, 3):
                    raise ValueError(f"expected uint8 [{size}, {size}, 3], got {image.shape}")
                image = np.ascontiguousarray(image)
                file.write(image)
                hashes.write(row_hashes(image[None]).tobytes())
            count += len(images)
            to_disk(file)
            to_disk(hashes)

        file.write(_header(size, done))
        file.seek(file.tell() + done * size * size * 3)
        file.truncate()
        hashes.seek(done * BYTES)
        hashes.truncate()
        yield append
        file.seek(0)
        file.write(_header(size, count))
        to_disk(file)


def count_intact(folder: Path, size: int, pieces: list[int]) -> int:
    """How many pieces (of so many images each) of unfinished files are as `append` wrote them."""
    good = 0
    try:
        with open(folder / IMAGES, "rb") as file, open(folder / HASHES, "rb") as hashes:
            file.seek(len(_header(size, 0)))
            for piece in pieces:
                for _ in range(piece):
                    pixels = file.read(size * size * 3)
                    if hashlib.sha256(pixels).digest() != hashes.read(BYTES):
                        return good
                good += 1
    except OSError:  # not there, or unreadable: the same as damaged
        pass
    return good


def _header(size: int, count: int) -> bytes:
    """Of an npy file; of the same length for every `count`."""
    file = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()
