"""Images kept as the files they came as: tar shards, and an index in the table.

`shards/00000.tar` ... hold the untouched files (the layout of WebDataset, so that other tools
stream them too); `shard`, `offset` and `length` of each row say where its bytes are. They are
decoded when they are read, at any size, by scaled decoding.
"""

import hashlib
import io
import os
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

import numpy as np
import pandas as pd

from data.images.decoding import Preprocessing, pixels_at
from data.images.opening import fault
from dermsynth.errors import UserError
from dermsynth.manifest import FileEntry

FOLDER = "shards"
MEND = "prepare the dataset again"
Fit = Literal["crop", "letterbox"]


class NativeImages:
    """Reads like uint8 [n, size, size, 3]: `images[rows]` decodes these rows with all cores."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, path: Path, table: pd.DataFrame, fit: Fit, clean: tuple[str, ...], size: int
    ) -> None:
        """`fit`, `clean`: how the pixels are made; `table` says where the files lie.

        Raises UserError where a shard is missing.
        """
        self.path, self.shape = path, (len(table), size, size, 3)
        self._preprocessing = Preprocessing(size, fit, clean)
        self._places = table[["shard", "offset", "length"]].to_numpy(np.int64)
        self._hashes = table["sha256"].to_numpy(str)
        self._checked = np.zeros(len(table), bool)
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()
        for number in np.unique(self._places[:, 0]):
            if not shard_path(path, number).is_file():
                raise UserError(f"{shard_path(path, number)}: missing, or no file; {MEND}")

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
        try:
            with self._lock:
                if shard not in self._files:
                    self._files[shard] = os.open(shard_path(self.path, shard), os.O_RDONLY)
            content = os.pread(self._files[shard], length, offset)
        except OSError as error:
            raise UserError(
                f"{self._name(row)} cannot be read ({error.strerror}); {MEND}"
            ) from None
        if len(content) < length:
            raise UserError(f"{shard_path(self.path, shard)}: cut off; {MEND}")
        if not self._checked[row]:
            if hashlib.sha256(content).hexdigest() != self._hashes[row]:
                raise UserError(
                    f"{self._name(row)} is not what was written, its SHA-256 differs: changed or "
                    f"damaged since; {MEND}"
                )
            self._checked[row] = True
        return content

    def _decode(self, row: int) -> np.ndarray:
        content = self.content(row)
        try:
            return pixels_at(content, self._preprocessing)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file may raise nearly anything in its decoder
            raise UserError(f"{self._name(row)}: {fault(error)}; {MEND}") from None

    def _name(self, row: int) -> str:
        """A file's place and row, for messages."""
        return f"{shard_path(self.path, self._places[row, 0])}: image {row} (counted from 0)"

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)


class _Hashing(io.RawIOBase):
    """A file that hashes what is written to it, in one go from its beginning."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:  # type: ignore[override]
        """Append."""
        self.digest.update(content)
        self.size += len(content)
        return self.file.write(content)

    def tell(self) -> int:
        """Bytes written."""
        return self.size


class ShardWriter:
    """Writes one shard; `add` returns where the bytes of a file will be found."""

    def __init__(self, folder: Path, number: int) -> None:
        (folder / FOLDER).mkdir(exist_ok=True)
        self.number, self.name = number, shard_path(Path(), number).as_posix()
        self._file = open(shard_path(folder, number), "wb")  # noqa: SIM115 - closed in __exit__
        self._hashing = _Hashing(self._file)
        self._tar = tarfile.open(fileobj=self._hashing, mode="w")  # noqa: SIM115

    def __enter__(self) -> "ShardWriter":
        return self

    @property
    def entry(self) -> FileEntry:
        """What the manifest is to say of the shard, when it is closed."""
        return FileEntry(size=self._hashing.size, sha256=self._hashing.digest.hexdigest())

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
