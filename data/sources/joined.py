"""Rows of several tables as one: below each other where their columns are equal, else by image."""

import pandas as pd

from data.images.pictures import folded
from data.sources.diagnoses import diagnosis
from data.sources.listing import Fault
from data.sources.matching import ALIAS, SUFFIX
from data.sources.rows import Rows, stacked
from data.sources.tables import printable
from dermsynth.errors import UserError, some

NO_WORDS = ("own", "unlabelled", "path")  # columns of Rows.raw that hold no words
ONE_VALUE = ("own", "diagnosis", "patient_id", "lesion_id")  # columns that may not contradict
AGAIN = " of the second table"
OF_A_ROW = ("where", "image_id", "path")  # columns that may differ for one image


def joined(tables: list[Rows]) -> Rows:
    """Rows of several tables, in order. Raises UserError as `merged` does."""
    kinds: dict[tuple[str, ...], list[Rows]] = {}
    for rows in tables:
        kinds.setdefault(tuple(sorted(map(str, rows.raw.columns))), []).append(rows)
    parts = [stacked(group) if len(group) > 1 else group[0] for group in kinds.values()]
    whole = parts[0]
    for part in parts[1:]:
        whole = merged(whole, part)
    return whole


def _key(names: pd.Series) -> pd.Series:
    """What images are joined on: the name without folders and suffix, case and Unicode folded."""
    names = names.map(lambda name: SUFFIX.sub("", name.replace("\\", "/").rpartition("/")[2]))
    return names.map(lambda name: folded(name.removesuffix(ALIAS))).astype(object)


def merged(left: Rows, right: Rows, keep_right: bool = True, on: str = "image_id") -> Rows:
    """Rows of two tables; where both say something of one image, the first counts.

    What they say of targets, diagnoses, patients and lesions may not contradict: such rows are
    faults. Raises UserError where `right` says two things of one image.

    Parameters
    ----------
    left, right : the tables
    keep_right : keep rows that `right` alone has: images of which the first table says nothing
    on : the column that ties them; `right` has one row for each of its values
    """
    keys = [_key(rows.raw[on]) if on == "image_id" else rows.raw[on] for rows in (left, right)]
    one, other = left.raw.assign(key=keys[0]), right.raw.assign(key=keys[1])
    other = other.drop_duplicates([name for name in other if name not in OF_A_ROW])
    if (twice := other["key"].duplicated()).any():
        name = other["key"][twice].iloc[0]
        where = some(other["where"][other["key"] == name].tolist(), 3)
        raise UserError(f"{where}: {printable(name)} has rows that differ; keep one of them")
    both = one.merge(other, on="key", how="outer" if keep_right else "left", suffixes=("", AGAIN))
    faults = [*left.faults, *right.faults]
    for name in [name for name in other if f"{name}{AGAIN}" in both]:
        again = both.pop(f"{name}{AGAIN}").rename(name)
        empty = both[name].isna() | (both[name] == "")
        if name in ONE_VALUE:
            differs = ~empty & again.notna() & (again != "") & (_same(both[name]) != _same(again))
            faults += [
                Fault(printable(str(image)), str(where), f"two tables differ in {name}")
                for image, where in both.loc[differs, ["image_id", "where"]].itertuples(index=False)
            ]
            both, again, empty = both[~differs], again[~differs], empty[~differs]
        both[name] = both[name].mask(empty, again)
    words = both.columns.drop(list(NO_WORDS), errors="ignore")
    both[words] = both[words].astype(object).where(both[words].notna(), "")
    if "unlabelled" in both:
        both["unlabelled"] = both["unlabelled"].fillna(True).astype(bool)
    return Rows(both.drop(columns="key").reset_index(drop=True), faults)


def _same(column: pd.Series) -> pd.Series:
    """Words as they are compared: a diagnosis by its meaning."""
    if column.name == "diagnosis":
        return column.map(lambda word: diagnosis(word) if isinstance(word, str) else word)
    return column
