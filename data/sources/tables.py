"""CSV files from outside: whatever they hold, the outcome is a table of words or a UserError.

UTF-8 with or without a byte-order mark, UTF-16, Windows-1252 and Latin-1; `,`, `;` or tab between
the cells. Only the columns that are asked for are kept, so that memory stays in proportion to them.
"""

import csv
import filecmp
import fnmatch
import functools
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from data.images.files import check_text, escaped, find_files, leads_out
from dermsynth.errors import UserError, some

MAX_BYTES = 1024 * 2**20  # of a metadata file; 400,000 images of the ISIC Archive need 200 MiB
MAX_LINE = 2**20  # characters
MAX_COLUMNS = 1000
MAX_NAME = 200  # characters of a cell that a message shows
SEPARATORS = ",;\t"
SEPARATOR = re.compile(r"sep=([,;|\t])", re.IGNORECASE)
DATA = re.compile(r"[+-]?[\d.,]+|[A-Za-z]{2,5}[_-]?\d{3,}(\.\w+)?|.*\.(jpe?g|png|bmp|tiff?)", re.I)
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")  # in no text file
FOREIGN = {  # what else is found under a CSV's name
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack it, or save it as CSV",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV",
    b"%PDF": "a PDF",
    b"version https://git-lfs": "a Git LFS pointer: fetch the real file with `git lfs pull`",
}

Names = str | tuple[str, ...]  # of one column: alternatives, the first of which it is called here


@dataclass(frozen=True)
class Sheet:
    """What was read of a CSV file."""

    name: str  # relative to the root
    cells: pd.DataFrame  # stripped words, "" where empty; index: line number, the header is line 1
    ragged: list[int]  # lines with more or fewer cells than the header

    def where(self, lines: list[int]) -> str:
        """`train.csv line 12`, `train.csv lines 3, 9`."""
        return f"{self.name} line{'s' if len(lines) > 1 else ''} {some([str(n) for n in lines])}"


def find_table(root: Path, names: tuple[str, ...]) -> Path | None:
    """The file below `root` with one of `names` (in lower case); None where there is none.

    An earlier name beats a later one. Raises UserError for files of one name that differ.
    """
    below = [path for path in find_files(root) if path.name.lower() in names]
    for name in names:
        if named := [path for path in below if path.name.lower() == name]:
            return only_one(root, named)
    return None


def find_tables(
    root: Path, patterns: tuple[str, ...], files: list[Path] | None = None
) -> list[Path]:
    """The files below `root` whose names in lower case match one of `patterns` (fnmatch), sorted.

    Of files of one name that are all alike the first. `files`: those of `find_files`, where they
    are known. Raises UserError where they differ.
    """
    by_name: dict[str, list[Path]] = {}
    for path in find_files(root) if files is None else files:
        name = path.name.lower()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            by_name.setdefault(name, []).append(path)
    return [only_one(root, paths) for _, paths in sorted(by_name.items())]


def only_one(root: Path, paths: list[Path]) -> Path:
    """The first of files that are all alike. Raises UserError where they are not."""
    for path in paths:
        check_file(path, root)
    if any(not filecmp.cmp(paths[0], other, shallow=False) for other in paths[1:]):
        raise UserError(
            f"--root {root}: several metadata files that differ: {some([str(p) for p in paths])}; "
            "keep one"
        )
    return paths[0]


def read_table(
    path: Path,
    root: Path,
    needed: tuple[Names, ...],
    optional: tuple[Names, ...] = (),
    header: tuple[str, ...] | None = None,
) -> Sheet:
    """Read some columns of a CSV file. Upper and lower case in their names do not matter.

    Optional columns that the file lacks are left out. With `header` the file is one that has no
    line with the names of its columns. Raises UserError for a file that is no CSV, that lacks a
    needed column, or that has no rows.
    """
    with _opened(path, root) as rows:
        names = next(rows, []) if header is None else list(header)
        names = [cell.strip() for cell in names]
        chosen = _choose(path, names, needed, optional)
        return _read(path, str(path.relative_to(root)), rows, names, chosen)


def read_header(path: Path, root: Path) -> list[str]:
    """The names of a CSV file's columns. Raises UserError as `read_table` does."""
    with _opened(path, root) as rows:
        return [cell.strip() for cell in next(rows, [])]


@contextmanager
def _opened(path: Path, root: Path) -> Iterator[Any]:
    """A reader of the file's lines, whatever its encoding and separator. Raises UserError."""
    check_file(path, root)
    try:
        stamp = path.stat().st_size, path.stat().st_mtime_ns
        with open(path, encoding=_encoding(path, stamp), newline="") as file:
            lines = _lines(path, file)
            first = next(lines, "")
            told = SEPARATOR.fullmatch(first.strip().strip('"'))  # Excel's own first line
            if told:
                separator, first = told[1], next(lines, "")
            else:
                separator = max(
                    SEPARATORS, key=lambda mark: len(next(csv.reader([first], delimiter=mark)))
                )
            yield csv.reader(chain([first], lines), delimiter=separator, strict=True)
    except csv.Error as error:
        raise UserError(
            f"{path}: not a CSV file ({printable(str(error))}); download or export it again"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def check_file(path: Path, root: Path) -> None:
    """Raise UserError unless `path` is a file of bearable size and name inside `root`."""
    check_text(path)
    if leads_out(path, root):
        raise UserError(f"{path}: a link that leads out of the folder; put the file itself there")
    if not path.is_file():
        raise UserError(f"{path}: not a regular file; expected a CSV file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path}: {size / 2**30:.1f} GiB; expected a CSV file of at most 1 GiB")


def check_header(path: Path, header: list[str]) -> None:
    """Raise UserError where the first line of a file is no header but a row."""
    if any(DATA.fullmatch(cell) for cell in header):
        row = printable(",".join(header[:4]))
        line = ",".join(["image", "target", "column3", "column4"][: len(header)])
        raise UserError(
            f"{path}: its first line is no header but a row ({row}); put the names of the columns "
            f"on top, such as: sed -i '1i {line}' {shlex.quote(str(path))}"
        )


def printable(name: str) -> str:
    """A cell as it may be shown: one line of bearable length."""
    return escaped(name[:MAX_NAME]) + ("..." if len(name) > MAX_NAME else "")


@functools.lru_cache(maxsize=64)
def _encoding(path: Path, stamp: tuple[int, int]) -> str:
    """The encoding, by reading all of it, once for a header and its rows.

    `stamp`: the file's size and time, so that a file that was changed is read again. Raises
    UserError for what is no text at all.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    for mark, kind in FOREIGN.items():
        if start.startswith(mark):
            raise UserError(f"{path}: not a CSV file but {kind}")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path}: not a CSV file but a web page; download the file itself")
    if not start:
        raise UserError(f"{path}: not a CSV file (0 bytes); download it again")
    wide = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ["utf-16"] if wide else ["utf-8-sig", "cp1252", "latin-1"]:
        try:
            with open(path, encoding=encoding, newline="") as file:
                while piece := file.read(MAX_LINE):
                    if CONTROL.search(piece):
                        raise UserError(f"{path}: not a CSV file (it holds binary data)")
        except UnicodeError:
            continue
        if encoding in ("cp1252", "latin-1"):
            print(f"note: {path} is not in UTF-8; read as {encoding} (Western European)")
        return encoding
    raise UserError(f"{path}: not a CSV file (damaged UTF-16); save it as CSV in UTF-8")


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise UserError(f"{path}: not a CSV file (a line of more than {MAX_LINE:,} characters)")
        yield line


def _choose(
    path: Path, header: list[str], needed: tuple[Names, ...], optional: tuple[Names, ...]
) -> dict[str, int]:
    """Position of each column that is wanted and there, by its first name."""
    if len(header) > MAX_COLUMNS:
        raise UserError(f"{path}: {len(header):,} columns; expected at most {MAX_COLUMNS:,}")
    lower = [cell.lower() for cell in header]
    chosen: dict[str, int] = {}
    missing = []
    for names in (*needed, *optional):
        first, *others = (names,) if isinstance(names, str) else names
        present = [name for name in (first, *others) if name.lower() in lower]
        if present and lower.count(present[0].lower()) > 1:
            raise UserError(f"{path}: column {present[0]} is there more than once; keep one")
        if present:
            chosen[first] = lower.index(present[0].lower())
        elif names in needed:
            missing.append(" or ".join([first, *others]))
    if missing:
        check_header(path, header)
        have = ", ".join(printable(cell[:40]) or "(no name)" for cell in header[:40])
        rest = f" and {len(header) - 40} more" if len(header) > 40 else ""
        use = [names if isinstance(names, str) else names[0] for names in optional]
        also = f", used where present {', '.join(use)}" if use else ""
        want = ", ".join(n if isinstance(n, str) else " or ".join(n) for n in needed)
        raise UserError(
            f"{path}: no column {', '.join(missing)}; it has {have}{rest}; needed are {want}{also}"
        )
    return chosen


def _read(path: Path, name: str, rows: Any, header: list[str], chosen: dict[str, int]) -> Sheet:
    """The chosen columns of all rows; `rows` is a csv.reader past its header."""
    width, again = len(header), 0
    cells: dict[str, list[str]] = {column: [] for column in chosen}
    numbers: list[int] = []
    ragged: list[int] = []
    for row in rows:
        if not any(map(str.strip, row)):
            continue  # spreadsheets leave empty rows behind
        if [cell.strip() for cell in row] == header:
            again += 1  # of files that were put one behind the other
            continue
        if len(row) != width and (len(row) < width or any(row[width:])):
            ragged.append(rows.line_num)
            continue
        numbers.append(rows.line_num)
        for column, position in chosen.items():
            cells[column].append(sys.intern(row[position].strip()))  # most words recur
    if again:
        print(f"note: {path}: the header is there {again + 1} times; read as one table")
    if not numbers and not ragged:
        raise UserError(f"{path}: no rows below the header; download it again")
    table = pd.DataFrame(cells, index=pd.Index(numbers, dtype="int64"), dtype=object)
    return Sheet(name, table, ragged)
