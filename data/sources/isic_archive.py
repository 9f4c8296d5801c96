"""A folder made by `isic image download` (isic-cli): metadata.csv beside the images.

The target is what the archive says: `benign_malignant`, or `diagnosis_1` of its newer tables (any
cancer counts, not melanoma alone). Indeterminate or unknown is no label. --positive takes the
diagnosis instead: --positive mel makes it melanoma against the rest. Several tables (one download a
class, say) are read as one. Every image has a licence of its own: all are counted.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from data.images.files import find_files
from data.sources import vocabulary
from data.sources.listing import Listing, SourceOptions
from data.sources.rows import Rows, listing, read_rows, stacked
from data.sources.tables import printable, read_header
from data.sources.targets import Own
from dermsynth.errors import UserError, some

CITATION = "ISIC Archive, https://www.isic-archive.com; cite the contributors of the images"
LEVELS = ("diagnosis", *(f"diagnosis_{level}" for level in (5, 4, 3, 2)))  # the finest first
SITES = (
    "anatom_site_general",
    *(f"anatom_site_{level}" for level in (5, 4, 3, 2, 1)),
    "anatom_site_special",
)
OPTIONAL = (
    *("attribution", "copyright_license", "benign_malignant", "diagnosis_1", *LEVELS, *SITES),
    *(("age_approx", "age"), "sex", "patient_id", "lesion_id", "image_type"),
)
OWN = {"benign": 0.0, "malignant": 1.0}
MOST = 50  # contributors that dataset.json names


def list_isic_archive(root: Path, options: SourceOptions) -> Listing:
    """One row an image of metadata.csv. Raises UserError."""
    paths = _tables(root)
    names = {"isic_id": "image_id", "age_approx": "age"}
    fold = options.fold_column
    rows = stacked([read_rows(p, root, ("isic_id",), OPTIONAL, names, fold) for p in paths])
    if not {"benign_malignant", "diagnosis_1", *LEVELS} & set(rows.raw):
        raise UserError(
            f"{some([str(path) for path in paths])}: no column benign_malignant, diagnosis_1 or "
            "diagnosis: no image has a label"
        )
    facts = {
        "licence": _counted(rows.raw, "copyright_license") or "unknown",
        "citation": CITATION,
        "attribution": _counted(rows.raw, "attribution"),
        "image_types": _counted(rows.raw, "image_type"),
        "metadata": ", ".join(path.name for path in paths),
    }
    _label(rows)
    rows.raw["diagnosis"] = _finest(rows.raw, LEVELS, lambda word: _rank(word, options))
    rows.raw["site"] = _finest(
        rows.raw, SITES, lambda w: 0 if vocabulary.site(w) in vocabulary.SITES else 1
    )
    own = Own("the archive's benign or malignant") if "own" in rows.raw else None
    said = {key: value for key, value in facts.items() if value}
    return listing("isic-archive", root, options, rows, said, own=own)


def _tables(root: Path) -> list[Path]:
    """Every metadata.csv, or every table of the archive under another name. Raises UserError."""
    tables = [path for path in find_files(root) if path.suffix.lower() == ".csv"]
    named = [path for path in tables if path.name.lower() == "metadata.csv"]
    found = named or [path for path in tables if "isic_id" in map(str.lower, _header(path, root))]
    if not found:
        raise UserError(
            f"--root {root}: no metadata.csv in it or below; `isic image download` writes it when "
            "all images are there: run it again to let it finish"
        )
    return found


def _header(path: Path, root: Path) -> list[str]:
    """The columns of a table; none where it cannot be read."""
    try:
        return read_header(path, root)
    except UserError:
        return []


def _rank(word: str, options: SourceOptions) -> int:
    """A diagnosis that is understood comes first, one that may mean melanoma next."""
    return {"known": 0, "doubtful": 1}.get(options.understand(word).kind, 2)


def _label(rows: Rows) -> None:
    """The column `own`, where the archive has one; rows whose two columns disagree are faults."""
    columns = [name for name in ("benign_malignant", "diagnosis_1") if name in rows.raw]
    if not columns:
        return
    words = rows.raw[columns].map(vocabulary.plain)
    votes = words.apply(lambda column: column.map(OWN).astype(np.float64))
    unsure = words.apply(lambda column: column.str.startswith("indeterminate")).any(axis=1)
    rows.raw["own"] = votes.bfill(axis=1).iloc[:, 0].mask(unsure)
    rows.reject(votes.max(axis=1) > votes.min(axis=1), "conflicting targets for one image")


def _finest(raw: pd.DataFrame, columns: tuple[str, ...], rank: Callable[[str], int]) -> list[str]:
    """Of each row's words that say something the first of the lowest rank, else ""."""

    def choose(words: tuple[str, ...]) -> str:
        return min(
            (word for word in words if not vocabulary.is_missing(word)), key=rank, default=""
        )

    present = [name for name in columns if name in raw]
    if not present:
        return [""] * len(raw)
    tuples = list(zip(*(raw[name] for name in present), strict=True))
    chosen = {words: choose(words) for words in set(tuples)}
    return [chosen[words] for words in tuples]


def _counted(raw: pd.DataFrame, column: str) -> str:
    """`CC-0 (120), CC-BY (30)`: the words of a column by their number."""
    if column not in raw:
        return ""
    counts = raw[column].replace("", "unknown").value_counts()
    return some([f"{printable(word)} ({count:,})" for word, count in counts.items()], MOST)
