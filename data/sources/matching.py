"""Which file is the image of which row: by its path below the root, else by its name.

The contract with data.sources.rows: `table` has `image_id`, unique, and may have `file`, the cell
as the source wrote it (`train/benign/x.jpg`, `images\\x.jpg`, `C:\\Users\\me\\HAM\\x.jpg`, `x`);
without it, or where it is empty, the image_id is what is looked for. A path is a hint of where
below the root a file lies, never a place to read: nothing outside the root is ever opened.
"""

import filecmp
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.images.files import find_files, leads_out
from data.images.formats import IN_WORDS, READ, SUFFIXES
from data.images.pictures import Pictures, ends_of, find_pictures, folded, masks_among
from data.sources.listing import Fault, packed_hint
from data.sources.tables import printable
from dermsynth.errors import UserError, counted, some

ALIAS = "_downsampled"  # ISIC 2019 has it in some names of images, its users' files not always
SUFFIX = re.compile(rf"({'|'.join(map(re.escape, SUFFIXES))})$", re.IGNORECASE)
DRIVE = re.compile(r"^[A-Za-z]:")
DIFFER = "two files of this name that differ"
OUTSIDE = "a path that leads out of the root; expected one below it, or the file's name"
ALIKE = "another row names the same file"
# What it took to find a file where name and path did not agree letter by letter, for messages
FOLDED = "in other letters (case, or the form of accents)"
DOUBLED = "with a second suffix (x.jpg.jpg)"
ZEROS = "with zeros in front that the table has lost"
ELSEWHERE = "by name alone: the table's folders are not below the root"


class _Index:
    """The pictures below a root, by the names that rows may call them."""

    def __init__(self, root: Path, pictures: Pictures) -> None:
        self.root, self.pictures = root, pictures
        self.by_stem: dict[str, list[Path]] = defaultdict(list)  # letter by letter
        self.by_fold: dict[str, list[Path]] = defaultdict(list)
        self.by_single: dict[str, list[Path]] = defaultdict(list)  # x for x.jpg.jpg
        self.by_number: dict[int, list[Path]] = defaultdict(list)
        self.aside: dict[str, list[Path]] = defaultdict(list)  # masks and their like
        self.folders: set[str] = set()  # names of folders below the root, folded
        self.clashing: set[Path] = set()  # found while rows are matched
        self._compared: dict[tuple[Path, Path], bool] = {}
        for path in pictures.images:
            self.by_stem[path.stem].append(path)
            self.by_fold[folded(path.stem)].append(path)
            if SUFFIX.search(path.stem):
                self.by_single[folded(SUFFIX.sub("", path.stem))].append(path)
            if path.stem.isdecimal():
                self.by_number[int(path.stem)].append(path)
            self.folders.update(self.parents(path))
        for paths in pictures.left_out.values():
            for path in paths:
                self.aside[folded(path.stem)].append(path)

    def parents(self, path: Path) -> list[str]:
        """Folded names of the folders between the root and a file."""
        return [folded(step) for step in path.relative_to(self.root).parts[:-1]]

    def named(self, stem: str, with_folders: bool) -> tuple[list[Path], str]:
        """Files that a name may mean, and what it took to find them."""
        for name in (stem, f"{stem}{ALIAS}"):
            if name in self.by_stem:
                return self.by_stem[name], ""
        fold = folded(stem)
        for paths, how in ((self.by_fold, FOLDED), (self.by_single, DOUBLED)):
            if fold in paths:
                return paths[fold], how
        if stem.isdecimal():
            found = self.by_number.get(int(stem), [])
            if len({path.stem for path in found}) == 1:
                return found, ZEROS
        # Not the mask of an image that is absent: only one that is named as what it is.
        return (self.aside.get(fold, []) if with_folders or ends_of(fold) else []), ""

    def same(self, first: Path, second: Path) -> bool:
        """Whether two files hold the same bytes; what leads out of the root is not read."""
        if (first, second) not in self._compared:
            regular = all(p.is_file() and not leads_out(p, self.root) for p in (first, second))
            equal = regular and filecmp.cmp(first, second, shallow=False)
            self._compared[first, second] = equal
        return self._compared[first, second]

    def that_differ(self, paths: list[Path]) -> list[Path]:
        """The first of the files, and those whose content is not that of the first."""
        return paths[:1] + [path for path in paths[1:] if not self.same(paths[0], path)]


@dataclass(frozen=True)
class Matched:
    """Rows and their files."""

    table: pd.DataFrame  # rows without fault
    files: list[Path | None]  # of each row; None: absent
    unlisted: int  # images that no row names
    copies: int  # files of the same name and content as another one
    left_out: dict[str, int]  # masks and their like, by kind


def match(root: Path, table: pd.DataFrame, faults: list[Fault]) -> Matched:
    """The image file of each row.

    A row whose file cannot be told becomes a fault; one without a file has None. What it took to
    find files, and which pictures were left out, is printed with numbers. Raises UserError where no
    row has a file.
    """
    index = _Index(root, find_pictures(root, by_content=False))
    cells = table["image_id"].astype(str).tolist()
    if "file" in table:
        written = table["file"].astype(object).where(table["file"].notna(), "").tolist()
        cells = [str(cell) or name for cell, name in zip(written, cells, strict=True)]
    found = [_find(index, cell) for cell in cells]
    _reject_twice(found, root)
    for name, row in zip(table["image_id"], found, strict=True):
        if row.reason:
            faults.append(Fault(printable(name), row.where, row.reason))
    good = np.array([not row.reason for row in found], bool)
    table = table[good].reset_index(drop=True)
    found = [row for row in found if not row.reason]
    files = [row.path for row in found]
    _say(index, found)
    gone = {
        name: row.stem
        for name, row in zip(table["image_id"], found, strict=True)
        if row.path is None
    }
    if gone:
        _tell_absent(index, gone, len(files))
    unlisted, copies = _rest(index, {path for path in files if path})
    return Matched(table, files, unlisted, copies, index.pictures.counts())


# ------------------------------------------------------------------------------------ one row


@dataclass
class _Found:
    """The file of a row, what it took to find it, or why it cannot be told."""

    stem: str
    path: Path | None = None
    how: str = ""
    reason: str = ""
    where: str = ""


def _find(index: _Index, cell: str) -> _Found:
    *above, last = DRIVE.sub("", cell).replace("\\", "/").split("/")
    folders = [folded(step) for step in above if step not in ("", ".")]
    if ".." in folders or _is_elsewhere(cell, index.root):
        return _Found(last, reason=OUTSIDE, where=printable(cell))
    suffix, stem = SUFFIX.search(last), SUFFIX.sub("", last)
    paths, how = index.named(stem, bool(folders))
    if folders and paths:
        paths, elsewhere = _below(index, paths, folders)
        how = how or elsewhere
    if suffix and len(paths) > 1:
        paths = [path for path in paths if folded(path.suffix) == folded(suffix[0])] or paths
    paths = index.that_differ(_readable(index, paths))
    if len(paths) > 1 and (masks := masks_among(paths, index.root)):
        paths = [path for path in paths if path not in masks]
        index.pictures.left_out.setdefault("masks", []).extend(masks)
        index.clashing.update(masks)
    if len(paths) > 1:
        index.clashing.update(paths)
        where = " and ".join(printable(str(path.relative_to(index.root))) for path in paths)
        return _Found(stem, reason=DIFFER, where=where)
    return _Found(stem, paths[0], how) if paths else _Found(stem)


def _readable(index: _Index, paths: list[Path]) -> list[Path]:
    """Without files of a format that is not read, where one that is lies beside: Kaggle's DICOM."""
    read = [path for path in paths if path.suffix.lower() in READ]
    if not read or len(read) == len(paths):
        return paths
    rest = [path for path in paths if path not in read]
    index.pictures.left_out.setdefault("files of other formats", []).extend(rest)
    index.clashing.update(rest)
    return read


def _is_elsewhere(cell: str, root: Path) -> bool:
    """Whether an absolute path is there on this machine, and not below the root."""
    return Path(cell).is_absolute() and os.path.lexists(cell) and leads_out(Path(cell), root)


def _below(index: _Index, paths: list[Path], folders: list[str]) -> tuple[list[Path], str]:
    """Of files of one name those whose folders agree longest with the table's, from the end.

    Where the table's last folder is one below the root, a file that lies elsewhere is another one.
    """

    def agree(path: Path) -> int:
        steps = index.parents(path)
        most = min(len(steps), len(folders))
        return next((k for k in range(most) if steps[-1 - k] != folders[-1 - k]), most)

    is_known = folders[-1] in index.folders
    if is_known:
        paths = [path for path in paths if folders[-1] in index.parents(path)]
    if not paths:
        return [], ""
    best = max(map(agree, paths))
    return [path for path in paths if agree(path) == best], "" if is_known else ELSEWHERE


def _reject_twice(found: list[_Found], root: Path) -> None:
    """One file is one row's: of the one that names it letter by letter, or of none."""
    rows_of: dict[Path, list[int]] = defaultdict(list)
    for row, one in enumerate(found):
        if one.path:
            rows_of[one.path].append(row)
    for path, rows in rows_of.items():
        if len(rows) == 1:
            continue
        exact = [row for row in rows if not found[row].how and found[row].stem == path.stem]
        for row in rows:
            if len(exact) != 1:
                where = printable(str(path.relative_to(root)))
                found[row] = _Found(found[row].stem, reason=ALIKE, where=where)
            elif row != exact[0]:
                found[row] = _Found(found[row].stem)


# ------------------------------------------------------------------------------------ all rows


def _say(index: _Index, found: list[_Found]) -> None:
    """Print what it took to find files, and what was left out, with numbers."""
    ways = Counter(row.how for row in found if row.path and row.how)
    for how, count in ways.items():
        print(f"note: {counted(count, 'image')} below {index.root} found {how}")
    used = {row.path for row in found}
    for kind, paths in index.pictures.left_out.items():
        index.pictures.left_out[kind] = [path for path in paths if path not in used]
    for note in index.pictures.notes():
        print(f"note: {index.root}: {note}")


def _rest(index: _Index, used: set[Path]) -> tuple[int, int]:
    """Files that no row names, and how many are second copies of another's content and name.

    Popular downloads hold every folder twice. Masks and files that clash are told elsewhere.
    """
    unlisted = copies = 0
    for paths in index.by_stem.values():
        differ = index.that_differ(paths)
        copies += len(paths) - len(differ)
        if not index.clashing & set(paths):
            taken = [path for path in paths if path in used]
            unlisted += sum(not any(p == t or index.same(p, t) for t in taken) for p in differ)
    return unlisted, copies


def _tell_absent(index: _Index, gone: dict[str, str], rows: int) -> None:
    """Say what may be the cause for images (ids and names) to be absent.

    Raises UserError where those of all rows are.
    """
    root, below = index.root, find_files(index.root)
    hints = [
        f"{printable(str(path.relative_to(root)))} is {why}"
        for path, why in list(index.pictures.bad.items())[:3]
        if path.is_dir()
    ]
    names = {folded(name) for name in gone.values()}
    pictures = set(index.pictures.images)
    others = [path for path in below if folded(path.stem) in names and path not in pictures]
    if others:
        shown = some([printable(str(path.relative_to(root))) for path in others], 3)
        hints.append(f"{counted(len(others), 'file')} of such a name, but no picture ({shown})")
    if packed := packed_hint(below):
        hints.append(packed)
    if len(gone) == rows:
        first = ", ".join(printable(name) for name in list(gone.values())[:2])
        raise UserError(
            f"--root {root}: {counted(len(gone), 'image')} listed and none of them below it "
            f"(looked for {first} ... with {IN_WORDS}); "
            + ("; ".join(hints) or "unpack the image folders there, or use --tables-only")
        )
    if hints:
        print(
            f"note: {len(gone):,} of {counted(rows, 'image')} not below {root}; {'; '.join(hints)}"
        )
