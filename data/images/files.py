"""Image files: where they lie, and their bytes, whatever a folder from outside holds."""

import os
import re
import shlex
import stat
from dataclasses import dataclass, field
from pathlib import Path

from data.images.formats import SUFFIXES
from dermsynth.errors import UserError

MAX_BYTES = 64 * 2**20  # of one encoded image
NO_TEXT = re.compile(  # control characters, line ends, changes of direction, what is not UTF-8
    r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
RENAME = "a name that is not UTF-8 or holds control characters; rename it"


@dataclass(frozen=True)
class Encoded:
    """Where an encoded image lies: a whole file, or a piece of one (a TFRecord, a tar shard)."""

    path: Path
    offset: int = 0  # bytes
    length: int | None = None  # bytes; None: to the end of the file
    content: bytes | None = field(default=None, repr=False, compare=False)  # where already at hand


class BadImage(UserError):
    """An image that cannot be used. `reason` is the same for all images with the same fault."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{escaped(path)}: {reason}")
        self.path, self.reason = path, reason


def escaped(name: Path | str) -> str:
    r"""A name on one line, what cannot be shown as `\x1b`, `\n` or (bytes, no UTF-8) `\udcff`."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(name)
    )


def check_text(path: Path, where: str = "") -> None:
    """Raise UserError, with `where` in front, for a path that could not be written down."""
    if NO_TEXT.search(str(path)):
        raise UserError(f"{where}{escaped(path)}: {RENAME}")


def find_files(root: Path) -> list[Path]:
    """Everything below `root`, sorted; hidden files and folders are left out.

    Links to folders are followed as long as they stay inside; one that leads out is listed as it
    is. Folders named like an image are listed too: reported, not overlooked. Raises UserError for
    a folder that may not be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{escaped(error.filename)}: cannot be read ({error.strerror})")

    paths: list[Path] = []
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
        paths += [Path(folder, name) for name in names]
    return sorted(paths)


def find_images(root: Path) -> list[Path]:
    """The files of `find_files` with a picture's suffix, and links to folders that lead out.

    Formats that are not read are among them, so that they are told, not overlooked.
    """
    return [
        path
        for path in find_files(root)
        if path.name.lower().endswith(SUFFIXES) or (path.is_dir() and leads_out(path, root))
    ]


def leads_out(path: Path, root: Path) -> bool:
    """Whether `path`, all links resolved, lies outside `root`."""
    return not is_inside(path, os.path.realpath(root))


def out_of(path: Path, root: Path) -> str:
    """Why a link that leads out of `root` is not followed, and what mends it: a reason.

    Links into one folder have the same reason, so that they are counted together.
    """
    target = Path(os.path.realpath(path))  # not resolve(): a link may lead to itself
    if target.is_dir():
        where = f"to the folder {escaped(target)}"
    else:
        what = "files" if target.exists() else "nothing"
        where = f"to {what} in {escaped(target.parent)}"
    return (
        f"a link that leads out of the folder, {where}; read that folder itself, or a copy that "
        f"holds the files: `cp -rL {shlex.quote(escaped(root))} NEW`"
    )


def is_inside(path: Path, top: str) -> bool:
    """Whether `path`, all links resolved, lies below the real path `top`."""
    return os.path.commonpath([top, os.path.realpath(path)]) == top


def read_file(source: Encoded) -> bytes:
    """The encoded bytes. Only regular files are opened, so that nothing blocks. Raises BadImage."""
    path = source.path
    if source.content is not None:
        return source.content
    if NO_TEXT.search(str(path)):
        raise BadImage(path, RENAME)
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
