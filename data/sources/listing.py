"""What a source lists before anything is decoded, and what a user may say about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.images.files import Encoded, check_text
from data.sources.diagnoses import Understood, plain, understand
from data.store import TargetMeaning
from dermsynth.errors import UserError

COLUMNS = [  # of Listing.table
    *("image_id", "target", "diagnosis", "patient_id", "lesion_id", "age", "sex", "site", "source"),
]
OWN_IDS = frozenset(  # sources whose ids mean something within themselves only
    ("folder", "ph2", "dermamnist", "pad-ufes-20", "derm7pt", "fitzpatrick17k", "ddi")
)
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")
HOLDERS = {  # files that hold images in themselves
    ".hdf5": "holds the images in itself: --source isic2024 reads ISIC 2024's",
    ".h5": "holds the images in itself: --source isic2024 reads ISIC 2024's",
    ".npz": "holds the images in itself: --source dermamnist reads DermaMNIST's",
    ".parquet": "may hold the images in itself: write them out as files first",
    ".tfrec": "holds the images in itself: --source tfrecords reads Kaggle's",
}
UNFINISHED = (".part", ".crdownload", ".partial", ".download", ".aria2")


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say about a source."""

    positive: tuple[str, ...] | None = None  # diagnoses that are the target; None: not said
    diagnosis_map: Mapping[str, Understood] = field(default_factory=dict)  # plain word: what it is
    tables_only: bool = False  # look for no image: files are all None
    tables: tuple[Path, ...] = ()  # `folder`: which to read; (): the only one below the root
    image_column: str | None = None  # `folder` with a CSV; None: the usual names are tried
    target_column: str | None = None
    group_column: str | None = None
    fold_column: str | None = None  # keep the folds of this column (any source with a CSV)

    def understand(self, word: str) -> Understood:
        """What a diagnosis means, by the user's word or else by the vocabulary."""
        return self.diagnosis_map.get(plain(word)) or understand(word)


@dataclass(frozen=True)
class Fault:
    """Why one row cannot be used."""

    image_id: str  # "" where the row has none
    where: str  # "train.csv line 12", or a file relative to the root
    reason: str  # the same words for all rows with the same fault


@dataclass(frozen=True)
class Listing:
    """What a source promises: one row an image, in order of image_id."""

    table: pd.DataFrame  # COLUMNS; NaN or None where unknown; `given_fold` if it was asked for
    files: list[Encoded | None]  # where each image is; None: absent, or not looked for
    facts: dict[str, Any]  # licence, citation, names of metadata files: goes into dataset.json
    faults: list[Fault]  # rows that were left out
    same: np.ndarray  # int64 [m, 2]: rows that the source itself declares duplicates
    meaning: TargetMeaning  # of the targets
    words: pd.DataFrame  # word (a diagnosis as it is written), kind, target, n
    unlisted: int  # image files that no row names
    copies: int  # files of the same name and content as another one
    global_ids: bool = True  # False: ids mean something within this source only


def check_root(source: str, root: Path | None) -> Path:
    """The folder to read. Raises UserError unless it is there and holds something unpacked."""
    if root is None:
        raise UserError(f"--source {source} needs --root FOLDER, the folder to read")
    check_text(root, "--root ")
    if not root.exists():
        raise UserError(f"--root {root}: no such folder; check the spelling, or unpack it there")
    if not root.is_dir():
        raise UserError(
            f"--root {root}: a file; expected the folder that holds the images"
            + packed_hint([root], "; ")
        )
    try:
        entries = sorted(root.iterdir())
    except PermissionError:
        raise UserError(f"--root {root}: may not be read (permission denied)") from None
    if not entries:
        raise UserError(f"--root {root}: empty; unpack the download there")
    hint = packed_hint(entries)
    if hint and not any(path.is_dir() or is_plain(path) for path in entries):
        raise UserError(f"--root {root}: holds no images yet; {hint}")
    return root


def is_plain(path: Path) -> bool:
    """Whether a file is neither an archive nor an unfinished download."""
    return path.suffix.lower() not in (*ARCHIVES, *UNFINISHED)


def packed_hint(paths: list[Path], before: str = "") -> str:
    """What to do about archives and unfinished downloads among `paths`, with `before` in front.

    "" where there are none.
    """
    if partial := [path for path in paths if path.suffix.lower() in UNFINISHED]:
        name = partial[0].name
        return f"{before}{name} is an unfinished download: let it finish, or start it again"
    if packed := [path for path in paths if path.suffix.lower() in ARCHIVES]:
        return f"{before}unpack {packed[0].name} there first (if that fails, download it again)"
    for path in paths:
        if why := HOLDERS.get(path.suffix.lower()):
            return f"{before}{path.name} {why}"
    return ""
