"""Which file is the image of which row: by name, in any folder below the root."""

import filecmp
from pathlib import Path

import pandas as pd

from data.images.files import SUFFIXES, find_files, find_images, leads_out
from data.sources.listing import Fault, packed_hint
from data.sources.tables import printable
from dermsynth.errors import UserError

ALIAS = "_downsampled"  # ISIC 2019 has it in some names of images, its users' files not always


def match(
    root: Path, table: pd.DataFrame, faults: list[Fault]
) -> tuple[pd.DataFrame, list[Path | None], int, int]:
    """Image files of the rows by name: rows left, their files, files without row, copies."""
    path_of, clashes, copies = files_by_name(root)
    name_of = {
        name: next((n for n in (name, f"{name}{ALIAS}") if n in path_of or n in clashes), None)
        for name in table["image_id"]
    }
    bad = [name for name in table["image_id"] if name_of[name] in clashes]
    for name in bad:
        where = " and ".join(
            printable(str(path.relative_to(root))) for path in clashes[name_of[name]]
        )
        faults.append(Fault(printable(name), where, "two files of this name that differ"))
    table = table[~table["image_id"].isin(bad)].reset_index(drop=True)
    files = [path_of.get(name_of[name]) for name in table["image_id"]]
    _check_present(root, table, files)
    return table, files, len(set(path_of) - set(name_of.values())), copies


def files_by_name(root: Path) -> tuple[dict[str, Path], dict[str, list[Path]], int]:
    """Image files below `root` by name without suffix.

    Also: names with two files that differ, and how many files are second copies of another's
    content under the same name (popular downloads hold every folder twice).
    """
    path_of: dict[str, Path] = {}
    clashes: dict[str, list[Path]] = {}
    copies = 0
    for path in find_images(root):
        first = path_of.setdefault(path.stem, path)
        if first is path:
            continue
        regular = all(file.is_file() and not leads_out(file, root) for file in (first, path))
        if regular and filecmp.cmp(first, path, shallow=False):
            copies += 1
        else:
            clashes.setdefault(path.stem, [first]).append(path)
    for name in clashes:
        del path_of[name]
    return path_of, clashes, copies


def _check_present(root: Path, table: pd.DataFrame, files: list[Path | None]) -> None:
    """Raise UserError where no row has its image; say what may be the cause where some have not."""
    absent = sum(path is None for path in files)
    if not absent:
        return
    hint = packed_hint(find_files(root))
    if absent == len(files):
        first = ", ".join(printable(name) for name in table["image_id"][:2])
        raise UserError(
            f"--root {root}: {absent:,} images are listed and none of them is below it "
            f"(looked for {first} ... with {', '.join(SUFFIXES)}); "
            + (hint or "unpack the image folders there, or use --tables-only")
        )
    if hint:
        print(f"note: {absent:,} of {len(files):,} images are not below {root}; {hint}")
