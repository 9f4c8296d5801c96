"""Large arrays on disk with a hash a row: made while they are written, checked as they are read."""

import hashlib
from pathlib import Path

import numpy as np

from dermsynth.errors import UserError, some
from dermsynth.files import read_bytes

BYTES = 32  # of a SHA-256


def row_hashes(rows: np.ndarray) -> np.ndarray:
    """SHA-256 of each row's bytes: uint8 [n, ...] -> uint8 [n, 32]."""
    hashes = b"".join(hashlib.sha256(np.ascontiguousarray(row).data).digest() for row in rows)
    return np.frombuffer(hashes, np.uint8).reshape(-1, BYTES)


def parse_hashes(content: bytes, count: int, path: Path, mend: str) -> np.ndarray:
    """uint8 [count, 32] from a file of raw hashes. Raises UserError ending in `mend`."""
    if len(content) != count * BYTES:
        raise UserError(
            f"{path}: {len(content)} bytes, expected {count * BYTES} ({BYTES} an image); {mend}"
        )
    return np.frombuffer(content, np.uint8).reshape(-1, BYTES)


class CheckedRows:
    """A memory-mapped array whose rows are checked when they are first read.

    Reads like the array: `rows[3]`, `rows[3:9]`, `rows[[4, 2]]`, `np.asarray(rows)`.
    """

    def __init__(self, array: np.ndarray, hashes: np.ndarray, path: Path, mend: str) -> None:
        """`array` [n, ...] as it lies in `path`; `hashes` uint8 [n, 32] of its rows."""
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.path, self._mend = path, mend
        self._array, self._hashes = array, hashes
        self._checked = np.zeros(len(array), bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray | list[int]) -> np.ndarray:
        """A copy of these rows. Raises UserError where they are not what was written."""
        chosen = np.arange(len(self))[rows]
        values = np.array(self._array[rows])
        if chosen.ndim == 0:
            self._check(chosen[None], values[None])
        else:
            self._check(chosen, values)
        return values

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        values = self[:]
        return values if dtype is None else values.astype(dtype)

    def _check(self, rows: np.ndarray, values: np.ndarray) -> None:
        unseen = ~self._checked[rows]
        if not unseen.any():
            return
        rows = rows[unseen]
        wrong = (row_hashes(values[unseen]) != self._hashes[rows]).any(axis=1)
        if wrong.any():
            names = [str(row) for row in np.unique(rows[wrong])]
            raise UserError(
                f"{self.path}: image {some(names)} (counted from 0) is not what was written, its "
                f"SHA-256 differs: changed or damaged since; {self._mend}"
            )
        self._checked[rows] = True


def read_hashes(path: Path, count: int, mend: str) -> np.ndarray:
    """uint8 [count, 32] of a file of raw hashes. Raises UserError ending in `mend`."""
    return parse_hashes(read_bytes(path, max(count, 1) * BYTES * 2, mend), count, path, mend)
