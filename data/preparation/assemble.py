"""From decoded images to a dataset: duplicates, groups, folds, and the table that says so."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data import folds, store
from data.grouping import MEND
from data.images.decoding import Preprocessing
from data.preparation.duplicates import near_duplicates
from data.preparation.faults import in_short, reasons, save_skipped
from data.preparation.group_sizes import check_group_sizes
from data.preparation.ingest import IngestResult
from data.preparation.join import JoinedListing
from data.preparation.options import ConflictPolicy, PrepareOptions, SplitOptions, words
from data.sources.listing import Fault
from data.store import (
    EXTRA,
    NATIVE_SIZE,
    NO_PART,
    PARTS,
    DatasetRecord,
    Look,
    TargetMeaning,
)
from dermsynth.cli import save_options
from dermsynth.errors import UserError, counted, some
from dermsynth.options import as_plain

PAIRS = "duplicates.parquet"
HASHES = ("sha256", "phash")
WORDS = ("image_id", "diagnosis", "patient_id", "lesion_id", "sex", "site", "source")


def pair_up(
    joined: JoinedListing, ingested: IngestResult, images: np.ndarray, scratch: Path
) -> pd.DataFrame:
    """Pairs of rows of `joined` that show one lesion: columns one, other (int64), kind.

    `images` uint8 [k, size, size, 3] are the kept ones of `ingested`, in order. Of an `identical`
    pair `one` is kept and `other` dropped; `near` ones look alike; `declared` ones a source lists.
    """
    row = ingested.kept["row"].to_numpy(np.int64)
    rows_by_kind = {
        "identical": ingested.copies[["first", "row"]].to_numpy(np.int64),
        "near": row[near_duplicates(images, scratch)] if len(row) else np.empty((0, 2), np.int64),
        "declared": joined.same[np.isin(joined.same, row).all(axis=1)],
    }
    pairs = [
        pd.DataFrame(both, columns=["one", "other"]).assign(kind=kind)
        for kind, both in rows_by_kind.items()
    ]
    return pd.concat(pairs, ignore_index=True)


def settle_copies(
    joined: JoinedListing, ingested: IngestResult, policy: ConflictPolicy
) -> JoinedListing:
    """Apply `policy` to images that are byte for byte the same and have both targets.

    One image is kept of each: `fail` raises UserError, `malignant` counts it as malignant, `keep`
    as its first row says, `drop` takes its target away, so that it is in no part.
    """
    target = joined.table["target"].to_numpy(float).copy()
    first, row = ingested.copies["first"].to_numpy(), ingested.copies["row"].to_numpy()
    wrong = np.isfinite(target[first]) & np.isfinite(target[row]) & (target[first] != target[row])
    if not wrong.any():
        return joined
    names = joined.table["image_id"].to_numpy()
    shown = [f"{names[a]} and {names[b]}" for a, b in zip(first[wrong], row[wrong], strict=True)]
    if policy == "fail":
        raise UserError(
            f"{counted(len(shown), 'image has', 'images have')} both targets under two names: "
            f"{some(shown)}; mend the labels, or choose what they count as: "
            "--conflicts malignant, drop, or keep (the first)"
        )
    if policy != "keep":
        target[first[wrong]] = 1.0 if policy == "malignant" else np.nan
    conflicts = [*joined.conflicts, *({"images": pair.split(" and ")} for pair in shown)]
    table = joined.table.assign(target=target)
    return replace(joined, table=table, conflicts=conflicts)


def split(
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    kept: np.ndarray,
    options: SplitOptions,
    words: tuple[str, str] = folds.WORDS,
) -> pd.DataFrame:
    """The kept rows of `table`, in order, with `group` and `fold`.

    A copy that was dropped still ties its patient and lesion to the image that was kept. Labelled
    rows of the first source get folds (their own, where the table has `given_fold`), external ones
    EXTRA unless their group holds an image of the first source, all others NO_PART. Raises
    UserError for a group that is larger than a part, and for too few groups; `words` say there what
    the targets 0 and 1 mean.
    """
    alive = np.unique(np.concatenate([kept, pairs["one"], pairs["other"]])).astype(np.int64)
    both = np.searchsorted(alive, pairs[["one", "other"]].to_numpy(np.int64))
    group = folds.group_images(table.iloc[alive].reset_index(drop=True), both)
    group = pd.factorize(group[np.searchsorted(alive, kept)])[0].astype(np.int64)
    table = table.iloc[kept].reset_index(drop=True)
    external, labelled = table["external"].to_numpy(), table["target"].notna().to_numpy()
    fold = np.full(len(table), NO_PART, np.int64)
    own = labelled & ~external
    if "given_fold" in table and own.any():
        names = table["image_id"].to_numpy()[own]
        fold[own] = folds.given_folds(table["given_fold"].to_numpy()[own], group[own], names)
    elif own.any():
        check_group_sizes(table[own], group[own], options, words)
        target = table["target"].to_numpy()[own].astype(np.uint8)
        fold[own] = folds.assign_folds(
            *(target, group[own], options.folds, options.test_fraction, options.seed),
            words=words,
        )
    tied = np.isin(group, group[~external])
    fold[external & labelled & ~tied] = EXTRA
    return table.assign(group=group, fold=fold)


def finish(
    folder: Path,
    joined: JoinedListing,
    ingested: IngestResult,
    pairs: pd.DataFrame,
    options: PrepareOptions,
    facts: dict[str, Any],
    faults: list[Fault],
) -> None:
    """Group, split, write all but the images, and seal the folder.

    Parameters
    ----------
    folder : where the images are already, and nothing else
    joined, ingested : the rows, and what became of their files
    pairs : as `pair_up` gives them
    options : as the user gave them
    facts : what else dataset.json is to say
    faults : rows and files that were left out
    """
    kept = ingested.kept
    rows = kept["row"].to_numpy(np.int64)
    table = split(joined.table, pairs, rows, options.split, joined.meaning.words)
    for column in kept.columns.drop("row"):
        table[column] = kept[column].to_numpy(object if column in HASHES else np.int64)
    for column in WORDS:
        table[column] = table[column].astype("str")  # also where every value is missing
    target = table["target"]
    table["target"] = target.astype("UInt8" if target.isna().any() else np.uint8)
    table = table.drop(columns=["external", "given_fold"], errors="ignore")
    how, native = preprocessing(options), options.pixels.native
    small = (table[["width", "height"]].min(axis=1) < how.size) & (not native)
    listed = _named_pairs(pairs, joined.table)
    info = {
        "source": options.input.source,
        "options": as_plain(options),
        "look": Look(size=options.pixels.size, fit=how.fit, clean=how.clean),
        **facts,
        "enlarged": 0 if options.labels.tables_only else int(small.sum()),
        "dropped": joined.dropped | reasons(faults),
        "conflicts": joined.conflicts,
        "duplicates": _pair_counts(listed),
        "counts": _counts(table),
        "target": joined.meaning,
    }
    store.write_parquet(folder / PAIRS, listed)
    save_skipped(folder, faults)
    save_options(options, folder)
    store.seal_dataset(folder, table, info, ingested.shards)


def preprocessing(options: PrepareOptions) -> Preprocessing:
    """How files become pixels."""
    size = NATIVE_SIZE if options.pixels.native else int(options.pixels.size)
    return Preprocessing(size, options.pixels.fit, words(options.pixels.clean))


def _named_pairs(pairs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """`pairs` of rows of `table` by image ids, and whether their lesion ids differ."""
    ids, lesion = table["image_id"].to_numpy(), table["lesion_id"].to_numpy()
    one, other = pairs["one"].to_numpy(np.int64), pairs["other"].to_numpy(np.int64)
    across = pd.notna(lesion[one]) & pd.notna(lesion[other]) & (lesion[one] != lesion[other])
    return pd.DataFrame(
        {
            "image_id_1": ids[one],
            "image_id_2": ids[other],
            "kind": pairs["kind"].to_numpy(),
            "across_lesions": across.astype(bool),
        }
    )


def _pair_counts(listed: pd.DataFrame) -> dict[str, int]:
    kind, across = Counter(listed["kind"]), listed["across_lesions"]
    return {
        "identical_pairs": kind["identical"],
        "near_pairs": kind["near"],
        "near_pairs_across_lesions": int(((listed["kind"] == "near") & across).sum()),
        "declared_pairs": kind["declared"],
    }


def _counts(table: pd.DataFrame) -> dict[str, Any]:
    def count(part: pd.DataFrame) -> dict[str, int]:
        return {
            "images": len(part),
            "malignant": int(part["target"].sum()),
            "groups": part["group"].nunique(),
            "largest_group": int(part["group"].value_counts().max()) if len(part) else 0,
        }

    parts = {PARTS.get(k, f"fold {k}"): count(part) for k, part in table.groupby("fold")}
    return {**count(table), "parts": parts}


def print_summary(out: Path, info: DatasetRecord) -> None:
    """Print what was kept and dropped and why: the same figures as in dataset.json."""
    counts: dict[str, Any] = info.counts
    duplicates, facts = info.duplicates, info.facts
    lines = [
        ("rows in the metadata", facts.get("rows")),
        ("drawn from the phantom", facts.get("drawn")),
        *((f"dropped: {in_short(why)}", len(names)) for why, names in info.dropped.items()),
        ("dropped: byte-identical to another image", duplicates["identical_pairs"] or None),
        ("kept", counts["images"]),
        ("files that no row names (ignored)", facts.get("files_without_row") or None),
        ("second copies of a file (ignored)", facts.get("second_copies") or None),
        ("smaller than --size (enlarged)", info.enlarged or None),
        ("lesions or images of both targets", len(info.conflicts) or None),
        ("duplicate pairs that the source declares", duplicates["declared_pairs"] or None),
    ]
    if not info.options["tables_only"]:
        lines += [
            ("near-duplicate pairs (kept, one group)", duplicates["near_pairs"]),
            ("  of them across lesion ids", duplicates["near_pairs_across_lesions"]),
        ]
    print(f"\n{out}")
    for label, value in lines:
        if value is not None:
            print(f"  {label:<46}{value:>8,}")
    _print_parts(counts, info.target)
    print(f"  {_target_line(info.target)}")
    if info.grouping.warning:
        print(f"\nWARNING: {info.grouping.warning}.\n  {MEND[0].upper()}{MEND[1:]}.")
    if info.grouping.note:
        print(f"\nnote: {info.grouping.note}")


def _print_parts(counts: dict[str, Any], target: TargetMeaning) -> None:
    one = target.one if len(target.one) <= 20 else "target 1"
    wide = max(len(one), 9) + 2
    print(f"\n  {'part':<10}{'images':>9}{one:>{wide}}{'share':>8}{'groups':>9}{'largest':>9}")
    for name, part in [*counts["parts"].items(), ("all", counts)]:
        share = part["malignant"] / max(part["images"], 1)
        print(
            f"  {name:<10}{part['images']:>9,}{part['malignant']:>{wide},}{share:>8.1%}"
            f"{part['groups']:>9,}{part['largest_group']:>9,}"
        )


def _target_line(target: TargetMeaning) -> str:
    told = f", told by {target.told_by}" if target.told_by else ""
    return f"target 1: {target.one}{told}; 0: {target.zero}"
