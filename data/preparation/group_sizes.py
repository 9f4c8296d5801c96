"""One group that is larger than a part: mostly a placeholder that was taken for somebody's id."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.folds import SAME
from data.preparation.options import SplitOptions
from data.sources.tables import printable
from dermsynth.errors import UserError

LEAST, TIMES = 20, 10  # images of a group, and multiples of the median group, that are too large


@dataclass(frozen=True)
class TooLarge:
    """A group that no part can hold as its share."""

    rows: np.ndarray  # int64, its images
    kind: str  # of the images that it has too many of: "images", "melanoma images"
    held: int  # of these, by the group
    of: int  # of these, in all
    share: float  # of these, that the largest part is to hold


def check_group_sizes(
    table: pd.DataFrame, group: np.ndarray, split: SplitOptions, words: tuple[str, str]
) -> None:
    """Raise UserError where one group would be a part by itself, with what ties it together.

    Parameters
    ----------
    table : the labelled rows that get folds: image_id, target, patient_id, lesion_id
    group : int [n], of each row
    split : how many parts, and how large
    words : what the targets 0 and 1 mean
    """
    found = too_large(table["target"].to_numpy(), group, split, words)
    if found is None:
        return
    raise UserError(
        f"one group holds {found.held:,} of {found.of:,} {found.kind}, and a part is to hold "
        f"{found.share:,.0f} at most: {_tie(table.iloc[found.rows])}{_other_split(found)}"
    )


def too_large(
    targets: np.ndarray, group: np.ndarray, split: SplitOptions, words: tuple[str, str]
) -> TooLarge | None:
    """The largest group where it has too many images, or too many of one target; else None.

    Too many: LEAST or more, more than the largest part is to hold, and more than TIMES the median
    of the other groups that have any. With the last, a few patients of uneven size are none.
    """
    largest = max(split.test_fraction, (1 - split.test_fraction) / split.folds)
    kinds = {"images": np.ones(len(targets), bool)}
    kinds |= {f"{words[target]} images": targets == target for target in (1, 0)}
    for kind, rows in kinds.items():
        names, counts = np.unique(group[rows], return_counts=True)
        if not len(names):
            continue
        place = int(np.argmax(counts))
        held, others = int(counts[place]), np.delete(counts, place)
        share, usual = largest * rows.sum(), np.median(others) if len(others) else 0
        if held >= LEAST and held > share and held > TIMES * usual:
            found = np.flatnonzero(group == names[place])
            return TooLarge(found, kind, held, int(rows.sum()), share)
    return None


def _tie(rows: pd.DataFrame) -> str:
    """What ties most images of a group together, and what to do about it."""
    counts = [
        (int(values.iloc[0]), column, str(values.index[0]))
        for column in SAME
        if len(values := rows[column].value_counts())
    ]
    count, column, value = max(counts, default=(0, "", ""))
    if count * 2 > len(rows):
        return (
            f"{column} is {printable(value)} in {count:,} of its {len(rows):,} images; if that "
            "means unknown, empty these cells (an image without an id is tied to nothing)"
        )
    owners = rows.groupby("lesion_id")["patient_id"].nunique()
    if len(owners) and owners.max() > 1:
        return (
            f"lesion_id {printable(str(owners.idxmax()))} is given to images of {owners.max():,} "
            "patients, which ties all of these together; put the patient's id in front, so that "
            "a lesion_id is one lesion"
        )
    first, second = (printable(str(name)) for name in rows["image_id"].iloc[:2])
    return (
        f"its {len(rows):,} images are near-duplicates, {first} and {second} for two; look at "
        "them, and leave out what is no lesion (blank pictures, masks)"
    )


def _other_split(found: TooLarge) -> str:
    """The split that has room for the group, if it is one after all."""
    folds = found.of // found.held
    if folds >= 2:
        return f"; else --folds {folds} --test-fraction 0 has room for it"
    return "; else leave some of its images out, or give folds of your own with --fold-column"
