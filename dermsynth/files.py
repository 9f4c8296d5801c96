"""Files, written so that a kill leaves the old content or the new, and read with a bound."""

import contextlib
import glob
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dermsynth.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` atomically: a reader sees all of the old content or all of the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Replace a UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically. NaN is refused: JSON has none, say null."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


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
    """Raise UserError where a file cannot be written to `out`, or one is there already."""
    if not out.name:
        raise UserError(f"{option} {str(out)!r}: expected the name of a file")
    if out.is_dir():
        raise UserError(f"{option} {out}: a folder of that name exists; give the name of a file")
    if out.exists() and not overwrite:
        raise UserError(f"{option} {out}: exists already; give another or --overwrite")


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


def read_json(path: Path) -> Any:
    """Raises UserError naming the file where it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); it may be damaged, make it again") from None


@contextlib.contextmanager
def new_folder(out: Path, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """A folder that appears at `out` complete or not at all.

    Yields a temporary sibling to write into. When the block ends well it takes `out`'s place; when
    it raises, it is removed and what was at `out` stays. `marker` is a file that every complete
    folder of this kind holds: `overwrite` replaces only folders that hold it (or are empty), so a
    mistyped `--out` cannot delete somebody's home.

    Raises UserError where `out` exists and may not be replaced.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    _clear_after_kill(out)
    check_replaceable(out, marker, overwrite)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        yield partial
        _replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def continued_folder(out: Path, marker: str, key: str, overwrite: bool = False) -> Iterator[Path]:
    """Like `new_folder`, for work of hours: a killed process's folder is found and gone on with.

    Yields a hidden sibling of `out`, with whatever a process that was killed or interrupted wrote
    there under the same `key` (a hash of all that the content depends on); left under another key,
    it is removed first. An error removes it, Ctrl-C does not.

    Raises UserError where `out` may not be replaced, or another process is at work there.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    _clear_after_kill(out)
    check_replaceable(out, marker, overwrite)
    work = out.with_name(f".{out.name}.unfinished")
    owner = work / "process.json"
    left = read_json(owner) if owner.exists() else {}
    if left and left["pid"] != os.getpid() and _alive(left["pid"]):
        raise UserError(f"--out {out}: process {left['pid']} is at work there; wait for its end")
    if left.get("key") != key:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(exist_ok=True)
    write_json(owner, {"pid": os.getpid(), "key": key})
    try:
        yield work
        owner.unlink()
        _replace(work, out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"what was done waits in {work}; the same command goes on from there"
        ) from None
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _replace(folder: Path, out: Path) -> None:
    """Give `folder` the place of `out`, whole."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        os.replace(out, old)
    os.replace(folder, out)
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(out: Path, marker: str, overwrite: bool) -> None:
    """Raise UserError unless `out` is free, empty, or ours (holds `marker`) with `overwrite`."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out}: a file of that name exists; choose another name")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise UserError(f"--out {out}: exists already; choose another name or add --overwrite")
    if not (out / marker).exists():
        raise UserError(
            f"--out {out}: holds no {marker}, so it was not made by this command "
            "and is not overwritten; choose another name"
        )


def _clear_after_kill(out: Path) -> None:
    """Undo what a process that was killed in `new_folder` left beside `out`."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.*"):
        pid, kind = left.name.rsplit(".", 2)[1:]
        if kind not in ("partial", "old") or not pid.isdigit() or _alive(int(pid)):
            continue
        if kind == "old" and not out.exists():
            os.replace(left, out)  # killed between its two renames
        else:
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
