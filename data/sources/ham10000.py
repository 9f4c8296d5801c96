"""Where images and their labels come from: what a source lists before anything is decoded."""

import filecmp
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.images import SUFFIXES, find_files, find_images
from runtime.errors import UserError, some

HAM_NAMES = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")
HAM_NEEDED = ("image_id", "lesion_id", "dx")
HAM_OPTIONAL = ("patient_id", "age", "sex", "localization")
HAM_FACTS = {
    "licence": "CC BY-NC 4.0",
    "citation": "Tschandl, Rosendahl, Kittler: The HAM10000 dataset. Scientific Data 5 (2018), "
    "doi:10.1038/sdata.2018.161",
}
UNKNOWN = {"", "unknown", "nan", "na", "n/a", "none"}  # spellings of a missing value, lower case


@dataclass(frozen=True)
class Listing:
    """What a source promises: one row an image, in the order of image_id."""

    table: pd.DataFrame  # the columns of data.store that are known before decoding
    files: list[Path | None]  # where each image is; None where it is absent
    facts: dict[str, Any]  # licence, citation, file names: goes into dataset.json
    unlisted: int  # image files that no row names
    copies: int  # files of the same name and content as another one


def check_root(source: str, root: Path | None) -> Path:
    """The folder to read. Raises UserError unless it is there and holds something."""
    if root is None:
        raise UserError(f"--source {source} needs --root FOLDER, the folder to read")
    if not root.exists():
        raise UserError(f"--root {root}: no such folder; check the spelling, or unpack it there")
    if not root.is_dir():
        raise UserError(f"--root {root}: a file; expected the folder that holds the images")
    try:
        if not any(root.iterdir()):
            raise UserError(f"--root {root}: empty; unpack the download there")
    except PermissionError:
        raise UserError(f"--root {root}: may not be read (permission denied)") from None
    return root


def list_ham10000(root: Path, positive: list[str]) -> Listing:
    """HAM10000 as it is downloaded: images in any folders below `root`, and the metadata CSV.

    `positive`: diagnoses (`dx`) that count as malignant. Own images in the same layout work too;
    of the CSV only image_id, lesion_id and dx are needed. Raises UserError.
    """
    csv = _find_csv(root)
    raw = _read_csv(csv)
    _check_rows(csv, raw)
    raw = raw.sort_values("image_id", kind="stable").reset_index(drop=True)
    present = raw["dx"].value_counts()
    if not positive:
        raise UserError(f"--positive: empty; name at least one of {some(list(present.index), 20)}")
    if unknown := [name for name in positive if name not in present]:
        there = ", ".join(f"{name} ({count})" for name, count in present.items())
        raise UserError(
            f"--positive {some(unknown)}: no such diagnosis in {csv}; there are {there}"
        )
    target = raw["dx"].isin(positive).astype(np.uint8)
    if target.all():
        raise UserError(
            f"one class only: every row of {csv} is {some(positive)}; bring benign ones"
        )
    table = pd.DataFrame(
        {
            "image_id": raw["image_id"],
            "target": target,
            "diagnosis": raw["dx"],
            "patient_id": _words(raw, "patient_id"),
            "lesion_id": raw["lesion_id"],
            "age": _ages(csv, raw),
            "sex": _words(raw, "sex"),
            "site": _words(raw, "localization"),
            "source": "ham10000",
        }
    )
    found, copies = _files_by_id(root)
    files = [found.get(image_id) for image_id in table["image_id"]]
    if not any(files):
        raise UserError(
            f"--root {root}: {csv.name} lists {len(files)} images and none of them is below it "
            f"(looked for {some(table['image_id'].tolist(), 2)} with {', '.join(SUFFIXES)}); "
            "unpack the image folders there"
        )
    unlisted = len(set(found) - set(table["image_id"]))
    return Listing(table, files, HAM_FACTS | {"metadata": csv.name}, unlisted, copies)


def list_pool(root: Path) -> list[Path]:
    """Image files below `root`, sorted. Raises UserError where there is none or it is a pool."""
    if made := [folder for folder in (root, root.parent) if (folder / "pool.json").exists()]:
        raise UserError(
            f"--root {root}: {made[0]} is a pool already, with its own provenance; "
            f"use `--pool {made[0]}` as it is"
        )
    if files := find_images(root):
        return files
    raise UserError(f"--root {root}: no image below it; expected {', '.join(SUFFIXES)} files")


def _find_csv(root: Path) -> Path:
    found = [path for path in find_files(root) if path.name in HAM_NAMES]
    if not found:
        raise UserError(
            f"--root {root}: no {HAM_NAMES[0]} in it or below; it comes with the images of HAM10000"
            f" (for own images write one with the columns {', '.join(HAM_NEEDED)})"
        )
    if any(not filecmp.cmp(found[0], other, shallow=False) for other in found[1:]):
        raise UserError(
            f"--root {root}: several metadata files that differ: {some([str(p) for p in found])}; "
            "keep one"
        )
    return found[0]


def _read_csv(path: Path) -> pd.DataFrame:
    """All cells as stripped words; "" where empty. Raises UserError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            separator = "\t" if "\t" in file.readline() else ","
        table = pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            index_col=False,
            encoding="utf-8-sig",
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not UTF-8, no rows and columns, ragged rows
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a CSV file in UTF-8 ({reason}); download it again") from None
    table.columns = [str(name).strip() for name in table.columns]
    if missing := [name for name in HAM_NEEDED if name not in table]:
        raise UserError(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(table.columns)}; "
            f"needed are {', '.join(HAM_NEEDED)}, used where present {', '.join(HAM_OPTIONAL)}"
        )
    if table.empty:
        raise UserError(f"{path}: no rows below the header; download it again")
    return table.apply(lambda column: column.fillna("").astype(str).str.strip())


def _check_rows(path: Path, table: pd.DataFrame) -> None:
    """Every row names an image of its own, a lesion and a diagnosis; all faults in one error."""
    faults = []
    for name in HAM_NEEDED:
        if (empty := table.index[table[name] == ""]).size:
            faults.append(f"{name} is empty in {_lines(empty)}")
    twice = table.index[table["image_id"].duplicated(keep=False) & (table["image_id"] != "")]
    if twice.size:
        names = some(sorted(set(table["image_id"][twice])))
        faults.append(f"image_id more than once: {names} in {_lines(twice)}")
    if faults:
        raise UserError(f"{path}: {'; '.join(faults)}; expected one complete row an image")


def _ages(path: Path, table: pd.DataFrame) -> pd.Series:
    """Years, float64, NaN where unknown. Raises UserError naming lines that are no age."""
    if "age" not in table:
        return pd.Series(np.nan, index=table.index)
    known = ~table["age"].str.lower().isin(UNKNOWN)
    years = pd.to_numeric(table["age"].where(known), errors="coerce")
    wrong = known & ~years.between(0, 120)
    if wrong.any():
        shown = some([f"{row.image_id}: `{row.age}`" for row in table[wrong].itertuples()])
        raise UserError(
            f"{path}: age is not a number of years from 0 to 120 for {shown}; "
            "mend these cells, or leave them empty where the age is unknown"
        )
    return years.astype(np.float64)


def _words(table: pd.DataFrame, column: str) -> pd.Series:
    """A column of words with None where unknown or where the table lacks the column."""
    if column not in table:
        return pd.Series(None, index=table.index, dtype=object)
    known = ~table[column].str.lower().isin(UNKNOWN)
    return table[column].astype(object).where(known, None)


def _files_by_id(root: Path) -> tuple[dict[str, Path], int]:
    """Image files by name without suffix, and how many were second copies of the same content."""
    found: dict[str, Path] = {}
    copies, clashes = 0, []
    for path in find_images(root):
        first = found.setdefault(path.stem, path)
        if first is path:
            continue
        if path.is_file() and first.is_file() and filecmp.cmp(first, path, shallow=False):
            copies += 1  # popular downloads hold every folder twice
        else:
            clashes.append(f"{first} and {path}")
    if clashes:
        raise UserError(
            f"--root {root}: {len(clashes)} images have two files that differ: {some(clashes, 2)}; "
            "keep one of each"
        )
    return found, copies


def _lines(index: pd.Index) -> str:
    """Line numbers as a text editor counts them: the header is line 1."""
    return f"line{'s' if len(index) > 1 else ''} {some([str(row + 2) for row in index])}"
