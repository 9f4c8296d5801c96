"""Images kept as the files they came as: tar shards, and an index in the table.

`shards/00000.tar` ... hold the untouched files (the layout of WebDataset, so that other tools
stream them too); `shard`, `offset` and `length` of each row say where its bytes are. They are
decoded when they are read, at any size, by scaled decoding.
"""

import io
import os
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from data.images.decoding import Preprocessing, pixels_at
from dermsynth.errors import UserError

FOLDER = "shards"


class NativeImages:
    """Reads like uint8 [n, size, size, 3]: `images[rows]` decodes these rows with all cores."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, path: Path, table: pd.DataFrame, look: dict[str, Any], size: int) -> None:
        """`look`: how the pixels are made, as dataset.json has it. Raises UserError."""
        self.path, self.shape = path, (len(table), size, size, 3)
        self._preprocessing = Preprocessing(size, look["fit"], tuple(look["clean"]))
        self._places = table[["shard", "offset", "length"]].to_numpy(np.int64)
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()
        for number in np.unique(self._places[:, 0]):
            if not shard_path(path, number).exists():
                raise UserError(f"{shard_path(path, number)}: missing; prepare the dataset again")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """uint8 [size, size, 3] for one row number, [len(rows), size, size, 3] for several."""
        chosen = np.arange(len(self))[rows]
        if chosen.ndim == 0:
            return self._decode(int(chosen))
        if len(chosen) == 0:
            return np.empty((0, *self.shape[1:]), np.uint8)
        with ThreadPoolExecutor() as executor:  # decoding releases the GIL
            return np.stack(list(executor.map(self._decode, chosen.tolist())))

    def content(self, row: int) -> bytes:
        """The file of one row, byte by byte as it came."""
        shard, offset, length = self._places[row].tolist()
        with self._lock:
            if shard not in self._files:
                self._files[shard] = os.open(shard_path(self.path, shard), os.O_RDONLY)
        content = os.pread(self._files[shard], length, offset)
        if len(content) < length:
            raise UserError(f"{shard_path(self.path, shard)}: cut off; prepare the dataset again")
        return content

    def _decode(self, row: int) -> np.ndarray:
        return pixels_at(self.content(row), self._preprocessing)

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)


class ShardWriter:
    """Writes one shard; `add` returns where the bytes of a file will be found."""

    def __init__(self, folder: Path, number: int) -> None:
        (folder / FOLDER).mkdir(exist_ok=True)
        self.number = number
        self._file = open(shard_path(folder, number), "wb")  # noqa: SIM115 - closed in __exit__
        self._tar = tarfile.open(fileobj=self._file, mode="w")  # noqa: SIM115

    def __enter__(self) -> "ShardWriter":
        return self

    def add(self, name: str, content: bytes) -> int:
        """Append a file; returns the offset of its first byte in the shard."""
        entry = tarfile.TarInfo(name)  # no time, no owner: the same files make the same shard
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))
        padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        return self._tar.offset - padded

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._tar.close()
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` of a dataset lies."""
    return folder / FOLDER / f"{number:05d}.tar"
