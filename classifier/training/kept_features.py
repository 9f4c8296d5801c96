"""Trunk features that are kept: in a device's memory, or in files that several processes map.

Whoever needs the features of a view that nobody has kept computes them and keeps them for all.
Several processes may do so at once, as they come to the same bits. A row that is half written, or
damaged, is never read: beside it stands its checksum, and without that it counts as missing.
"""

import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch

from dermsynth.manifest import digest
from dermsynth.tensors import send

WRITTEN = 1 << 32  # beside a row's 32-bit checksum: the mark of a row is never that of an empty one


class KeptFeatures:
    """Features [n, views, height, width, channels] in a device's memory, and which there are."""

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        self.features = torch.empty(shape, dtype=dtype, device=device)
        self.known = np.zeros(shape[:2], bool)

    @property
    def nbytes(self) -> int:
        """Bytes of all, whether they are there or not."""
        return self.features.numel() * self.features.element_size()

    def missing(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """bool [m]: which of the pairs (row, view) are not there yet."""
        return ~self.known[rows, views]

    def put(self, rows: np.ndarray, views: np.ndarray, features: torch.Tensor) -> None:
        """Keep features [m, height, width, channels] of pairs (row, view)."""
        self.features[self._places(rows, views)] = features.to(self.features.device)
        self.known[rows, views] = True

    def take(self, rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
        """A copy of what is kept of pairs (row, view) that are there."""
        return self.features[self._places(rows, views)]

    def _places(self, rows: np.ndarray, views: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.features.device
        return send(rows, device), send(views, device)


class SharedFeatures(KeptFeatures):
    """The same in two files of a folder, shared by all processes that name the same ones.

    Raises OSError where the disk has no room for all of them: it is taken at once, because a write
    into mapped memory that finds the disk full ends the process.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stem = digest([name, list(shape), str(dtype)])
        count, row = math.prod(shape[:2]), math.prod(shape[2:]) * dtype.itemsize
        self._bytes = _mapped(folder / f"{stem}.features", count * row).reshape(*shape[:2], row)
        marks = _mapped(folder / f"{stem}.marks", count * 8)
        self._marks = marks.view(np.uint64).reshape(shape[:2])
        self.features = torch.from_numpy(self._bytes).view(dtype).reshape(shape)
        self.known = np.zeros(shape[:2], bool)  # to this process: it wrote or checked them

    def missing(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """As of `KeptFeatures`; what another process has written is checked when first met."""
        written = ~self.known[rows, views] & (self._marks[rows, views] != 0)
        for place in zip(rows[written], views[written], strict=True):
            self.known[place] = self._marks[place] == self._mark(*place)
        return super().missing(rows, views)

    def put(self, rows: np.ndarray, views: np.ndarray, features: torch.Tensor) -> None:
        """As of `KeptFeatures`; the marks come last."""
        super().put(rows, views, features)
        for place in zip(rows, views, strict=True):
            self._marks[place] = self._mark(*place)

    def _mark(self, row: int, view: int) -> int:
        return zlib.crc32(self._bytes[row, view]) | WRITTEN


def _mapped(path: Path, size: int) -> np.ndarray:
    """A file's bytes as they are to all processes, zero where nobody wrote: uint8 [size]."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
    return np.memmap(path, np.uint8, "r+", shape=(size,))
