"""What the dataset card counts, all from the table: parts, kinds, what is missing, leaks."""

from typing import Any

import numpy as np
import pandas as pd

from data.store import NO_PART, PARTS

DESCRIBED = ("diagnosis", "patient_id", "lesion_id", "age", "sex", "site")
AGES = [0, 20, 30, 40, 50, 60, 70, 80, np.inf]
KINDS = {  # of duplicates, in the order of the page
    "identical": "the same file under two names; the second is dropped",
    "near": "the same lesion photographed or stored again; both kept, in one group",
    "declared": "listed as duplicates by the source itself; in one group",
}
MOST = 20  # values of a column with a line of their own


def figures(rows: pd.DataFrame) -> dict[str, Any]:
    """Images, malignant, their share of the labelled (None: no label), groups, largest group."""
    labelled = int(rows["target"].count())
    malignant = int(rows["target"].sum())
    sizes = rows["group"].value_counts()
    return {
        "images": len(rows),
        "malignant": malignant if labelled else None,
        "share": malignant / labelled if labelled else None,
        "groups": len(sizes),
        "largest": int(sizes.max()) if len(sizes) else 0,
    }


def breakdown(
    table: pd.DataFrame, labels: pd.Series, ordered: bool = False
) -> list[dict[str, Any]]:
    """`figures` of every value of `labels`, most images first (`ordered`: as categories come).

    Values beyond the MOST frequent share a line; rows without a value come last.
    """
    counts = labels.value_counts(sort=False)
    counts = counts[counts > 0]
    if not ordered:
        counts = counts.sort_index().sort_values(ascending=False, kind="stable")
    names = list(counts.index if ordered or len(counts) <= MOST + 1 else counts.index[:MOST])
    lines = [{"name": str(name), "kind": "", **figures(table[labels == name])} for name in names]
    if rest := len(counts) - len(names):
        others = figures(table[labels.notna() & ~labels.isin(names)])
        lines.append({"name": f"{rest:,} others", "kind": "rest", **others})
    if labels.isna().any():
        lines.append({"name": "not known", "kind": "rest", **figures(table[labels.isna()])})
    return lines


def part_names(folds: pd.Series) -> pd.Series:
    """`fold 0`..., `test`, `extra`, `no part` as an ordered categorical."""
    present = sorted(folds.unique(), key=lambda fold: (fold < 0, abs(fold)))
    names = {fold: PARTS.get(fold, f"fold {fold}") for fold in present}
    return folds.map(names).astype(pd.CategoricalDtype(list(names.values()), ordered=True))


def age_bands(ages: pd.Series) -> pd.Series:
    """`under 20`, `20-29`, ..., `80 and over` as an ordered categorical."""
    names = ["under 20", *(f"{low}–{low + 9}" for low in AGES[1:-2]), "80 and over"]
    return pd.cut(ages.astype(float), AGES, right=False, labels=names)


def leak_checks(table: pd.DataFrame, pairs: pd.DataFrame | None) -> list[dict[str, Any]]:
    """What must not lie in two parts, how many there are, and which do: looked up in the table.

    `pairs`: of `with_rows`. Images of no part can leak nothing.
    """
    rows = table[table["fold"] != NO_PART]
    lines = []
    for name, column in (
        *(("groups", "group"), ("patients", "patient_id"), ("lesions", "lesion_id")),
        *(("file contents", "sha256"), ("image ids", "image_id")),
    ):
        known = rows[rows[column].notna() & (rows[column] != "")]
        parts = known.drop_duplicates([column, "fold"])[column].value_counts()
        torn = sorted(parts.index[parts > 1])
        first = torn[:5]
        if column == "group":  # its number says nothing: name an image of it
            first = [known["image_id"][known["group"] == code].iloc[0] for code in first]
        lines.append({"name": name, "checked": len(parts), "torn": len(torn), "first": first})
    if pairs is not None:
        fold = np.append(table["fold"].to_numpy(), NO_PART)  # row -1, dropped: no part
        one, other = fold[pairs["one"]], fold[pairs["other"]]
        both = (one != NO_PART) & (other != NO_PART)
        torn = pairs[both & (one != other)]
        first = [f"{a} and {b}" for a, b in torn[["image_id_1", "image_id_2"]].to_numpy()[:5]]
        pair_line = {"name": "pairs of duplicates", "checked": int(both.sum()), "torn": len(torn)}
        lines.append({**pair_line, "first": first})
    return lines


def missing(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Missing values of the columns that describe, and the malignant share with and without."""
    lines = []
    for column in DESCRIBED:
        lost = table[column].isna()
        share, rest = (figures(table[rows])["share"] for rows in (lost, ~lost))
        counts = {"missing": int(lost.sum()), "of_all": float(lost.mean())}
        lines.append({"name": column, **counts, "share": share, "rest": rest})
    return lines


def resolutions(table: pd.DataFrame, size: int | None) -> dict[str, Any] | None:
    """Sizes of the original images, and how many are smaller than `size`; None where unknown."""
    known = table[(table["width"] > 0) & (table["height"] > 0)]
    if known.empty:
        return None
    short = known[["width", "height"]].min(axis=1)
    label = known["width"].astype(str) + " × " + known["height"].astype(str)
    return {
        "lines": breakdown(known, label)[:10],
        "distinct": label.nunique(),
        "short": [int(short.min()), int(short.median()), int(short.max())],
        "enlarged": int((short < size).sum()) if size else None,
    }


def duplicate_counts(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """Pairs (of `with_rows`) by kind, how many across lesion ids and of different labels."""
    lines = []
    for kind in dict.fromkeys([*KINDS, *sorted(pairs["kind"].unique())]):
        alike = pairs[pairs["kind"] == kind]
        across, differ = int(alike["across_lesions"].sum()), int(alike["differ"].sum())
        lines.append({"kind": kind, "pairs": len(alike), "across": across, "differ": differ})
    return lines


def with_rows(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """`pairs` and where they are: `one`, `other`, row of either image, -1 where it was dropped.

    `differ`: both have a label, and not the same.
    """
    rows = pd.Series(np.arange(len(table)), index=table["image_id"].to_numpy(object))
    rows = rows[~rows.index.duplicated()]
    one, other = (
        rows.reindex(pairs[name].to_numpy(object), fill_value=-1).to_numpy()
        for name in ("image_id_1", "image_id_2")
    )
    target = np.append(table["target"].to_numpy(), np.nan)  # row -1: no label
    return pairs.assign(one=one, other=other, differ=np.abs(target[one] - target[other]) == 1)
