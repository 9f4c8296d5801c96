"""Who and what was read, left out and used: the participant flow of an experiment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from data.store import Dataset
from data.view import view
from experiments.config import Trial, splits_of
from experiments.records import PartRecord

DESCRIBED = ("diagnosis", "age", "sex", "site")  # columns whose gaps are counted
READ = {  # facts of dataset.json that say how much was read: words, unit
    "rows": ("rows of the source's table", "rows"),
    "drawn": ("drawn from the phantom", "images"),
}
PASSED_OVER = {
    "files_without_row": ("files that no row names, passed over", "files"),
    "second_copies": ("second copies of a file, passed over", "files"),
}


def part_records(dataset: Dataset, trials: list[Trial]) -> dict[str, PartRecord]:
    """Training and validation of the first split, and what is tested in all of them.

    An image tested in several splits counts once.
    """
    splits = splits_of(trials)
    first = splits[0]
    seen = view(dataset, first.fold, first.test_fold)
    rows = {part: seen.rows(part, first.fold) for part in ("train", "val")}
    tested = [view(dataset, each.fold, each.test_fold).rows("test", each.fold) for each in splits]
    rows["test"] = np.unique(np.concatenate(tested))
    return {part: part_record(dataset.table.iloc[of_part]) for part, of_part in rows.items()}


def part_record(table: pd.DataFrame) -> PartRecord:
    """Counts of some rows of table.parquet."""
    lesion, patient = _known(table["lesion_id"]), _known(table["patient_id"])
    return PartRecord(
        images=len(table),
        malignant=int(table["target"].sum()),
        groups=int(table["group"].nunique()),
        lesions=int(table.loc[lesion, "lesion_id"].nunique()),
        patients=int(table.loc[patient, "patient_id"].nunique()),
        without_lesion=int((~lesion).sum()),
        without_patient=int((~patient).sum()),
        missing={name: int((~_known(table[name])).sum()) for name in DESCRIBED if name in table},
    )


def flow(info: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """From what was read to what was kept, of dataset.json: words, count and unit of each step.

    Only what the dataset's record says; images that are in no part come last.
    """
    duplicates, counts = info.get("duplicates") or {}, info.get("counts") or {}
    steps = [(*READ[key], info[key]) for key in READ if info.get(key) is not None]
    steps += [
        (f"dropped: {reason}", "images", len(names))
        for reason, names in (info.get("dropped") or {}).items()
    ]
    if (copies := duplicates.get("identical_pairs")) is not None:
        steps.append(("dropped: byte-identical to an image that was kept", "images", copies))
    steps += [(*PASSED_OVER[key], info[key]) for key in PASSED_OVER if info.get(key)]
    if counts.get("images") is not None:
        steps.append(("kept", "images", counts["images"]))
    unused = (counts.get("parts") or {}).get("no part") or {}
    if unused.get("images"):
        steps.append(
            ("of them in no part (no label, or tied to an image)", "images", unused["images"])
        )
    near = duplicates.get("near_pairs")
    if near is not None:
        steps.append(("near-duplicates, kept in one group", "pairs", near))
    return [(words, count, unit) for words, unit, count in steps]


def _known(column: pd.Series) -> pd.Series:
    return column.notna() & ~column.astype("str").isin(["", "nan", "unknown"])
