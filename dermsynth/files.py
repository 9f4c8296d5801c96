"""Files, written so that a kill leaves the old content or the new, and read with a bound."""

import glob
import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from dermsynth.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` atomically: a reader sees all of the old content or all of the new.

    Raises UserError where a folder of that name is in the way.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except IsADirectoryError:
        raise UserError(f"{path}: a folder lies where a file belongs; move it away") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Replace a UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically. NaN is refused: JSON has none, say null."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """JSON as `write_json` writes it."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read_bytes(path: Path, most: int, mend: str) -> bytes:
    """The bytes of a regular file; nothing else is opened, so that nothing blocks.

    Raises UserError, ending in `mend`, where it is missing, no file or has more than `most` bytes.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise UserError(f"{path}: {kind}, expected a file; {mend}")
        if status.st_size > most:
            raise UserError(
                f"{path}: {status.st_size:,} bytes, expected at most {most:,}: not written by this "
                f"program; {mend}"
            )
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {mend}") from None


def check_free(out: Path, overwrite: bool, option: str = "--out") -> None:
    """Raise UserError where a file cannot be written to `out`, or one is there already.

    What a killed process left half-written beside it is removed.
    """
    if not out.name:
        raise UserError(f"{option} {str(out)!r}: expected the name of a file")
    if out.is_dir():
        raise UserError(f"{option} {out}: a folder of that name exists; give the name of a file")
    if out.exists() and not overwrite:
        raise UserError(f"{option} {out}: exists already; give another or --overwrite")
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and not _is_alive(int(pid)):
            left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def free_space(path: Path) -> int:
    """Bytes that are free where `path` lies or will lie."""
    folder = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(folder).free


def free_name(folder: Path, stem: str) -> Path:
    """`folder/stem`, or `folder/stem-2`, `-3`, ... : the first that is not taken."""
    number = 1
    while (path := folder / (stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
