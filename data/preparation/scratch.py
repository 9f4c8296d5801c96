"""Files of unfinished work, which a kill or a bad disk may leave in any state.

Each begins with the SHA-256 of what follows; one that does not fit it counts as not there.
"""

import errno
import hashlib
import os
from pathlib import Path

import numpy as np

from dermsynth.errors import UserError
from dermsynth.files import read_bytes, write_bytes

BYTES = 32  # of a SHA-256
MOST_BYTES = 2**30
NO_ALLOCATION = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of file systems that have none
ZEROS = 2**20  # bytes written at a time


def write_scratch(path: Path, content: bytes) -> None:
    """Replace a file atomically."""
    write_bytes(path, hashlib.sha256(content).digest() + content)


def read_scratch(path: Path) -> bytes | None:
    """What was written; None where the file is missing or damaged."""
    try:
        content = read_bytes(path, MOST_BYTES, "")
    except UserError:
        return None
    whole = hashlib.sha256(content[BYTES:]).digest() == content[:BYTES]
    return content[BYTES:] if whole else None


def mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A memory map, of the file as it is or of a new one, zeros where nothing was written.

    Its space on the disk is taken beforehand: a full disk is an OSError here, where it would kill
    the process (SIGBUS) that writes into a map.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _allocate(file, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(file)
    return np.memmap(path, dtype, "r+", shape=shape)


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in NO_ALLOCATION:
                raise
        else:
            return
    have = os.lseek(file, 0, os.SEEK_END)
    while have < size:
        have += os.write(file, bytes(min(ZEROS, size - have)))
