"""From the raw cells of a source to its Listing: one set of checks for all sources.

A reader brings one row an image, all cells words: `image_id`, `where` (for messages), and what it
has of `diagnosis, patient_id, lesion_id, age, sex, site, target, fold`. What is wrong with a row
makes it a Fault; the rest is listed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.images.files import Encoded
from data.sources import vocabulary
from data.sources.listing import COLUMNS, OWN_IDS, Fault, Listing, SourceOptions
from data.sources.matching import SUFFIX, match
from data.sources.tables import MAX_NAME, Names, Sheet, printable, read_table
from data.sources.targets import Own, decide
from data.store import TargetMeaning
from dermsynth.errors import UserError, counted, some

UNSAFE = re.compile(  # folders above, hidden files, control characters, what is no text at all
    r"\.\.|(^|/)\.|[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
RAGGED = "number of cells is not that of the header"
WORDS = {  # columns that are harmonised
    "sex": vocabulary.sex,
    "site": vocabulary.site,
}
IDS = ("patient_id", "lesion_id")


@dataclass
class Rows:
    """Rows of a source on their way into a Listing."""

    raw: pd.DataFrame  # words; columns as in the module's docstring, `own` and `unlabelled`
    faults: list[Fault] = field(default_factory=list)

    def reject(self, bad: pd.Series | np.ndarray, reason: str) -> None:
        """Take out the rows where `bad` (bool [n])."""
        bad = np.asarray(bad, bool)
        for name, where in self.raw.loc[bad, ["image_id", "where"]].itertuples(index=False):
            self.faults.append(Fault(printable(name), where, reason))
        self.raw = self.raw[~bad].reset_index(drop=True)


def from_sheet(sheet: Sheet, names: dict[str, str], filled: tuple[str, ...] = ()) -> Rows:
    """Rows of one CSV file; `names` says what its columns are here. `filled` may not be empty."""
    raw = sheet.cells.rename(columns=names)
    raw = raw.assign(where=[f"{sheet.name} line {line}" for line in raw.index])
    faults = [Fault("", f"{sheet.name} line {line}", RAGGED) for line in sheet.ragged]
    rows = Rows(raw.reset_index(drop=True), faults)
    in_file = {ours: column for column, ours in names.items()}
    for column in filled:
        rows.reject(rows.raw[column] == "", f"{in_file.get(column, column)} is empty")
    return rows


def read_rows(
    path: Path,
    root: Path,
    needed: tuple[Names, ...],
    optional: tuple[Names, ...],
    names: dict[str, str],
    fold: str | None = None,
    filled: tuple[str, ...] = (),
    header: tuple[str, ...] | None = None,
) -> Rows:
    """Rows of one CSV file. Raises UserError as `read_table` does.

    Parameters
    ----------
    path, root : the file, and the folder of the source
    needed, optional : columns that must be there, and that are read where they are
    names : what the columns are called here, where not as in the file
    fold : the column whose folds are kept, if one is
    filled : columns, by their names here, of which no cell may be empty
    header : the columns of a file that does not name them
    """
    folds = {fold: "fold"} if fold else {}
    sheet = read_table(path, root, (*needed, *folds), optional, header)
    return from_sheet(sheet, names | folds, filled)


def stacked(tables: list[Rows]) -> Rows:
    """The rows of several files, one below the other; cells that a file has no column for: ""."""
    raw = pd.concat([table.raw for table in tables], ignore_index=True)
    words = raw.columns.drop("own", errors="ignore")
    raw[words] = raw[words].fillna("")
    return Rows(raw, [fault for table in tables for fault in table.faults])


# --------------------------------------------------------------------------------------- listing


def listing(
    source: str,
    root: Path,
    options: SourceOptions,
    rows: Rows,
    facts: dict[str, Any],
    pairs: pd.DataFrame | None = None,
    own: Own | None = None,
) -> Listing:
    """Check, harmonise, and find the images of `rows`.

    The target is `rows.raw["own"]` (0, 1 or NaN), which `own` describes, or follows from the
    diagnosis (data.sources.targets). `rows.raw["path"]` (Path or Encoded) is the image of each
    row where the reader knows it; else it is looked for below `root` by name. Raises UserError
    where no image is there at all, and for what is wrong with the targets of the whole source.

    Parameters
    ----------
    source, root : name and folder of the source
    options : what the user says about it
    rows : as the reader brings them
    facts : what dataset.json is to say of the source
    pairs : two columns of image ids, declared duplicates
    own : what `rows.raw["own"]` is
    """
    _check_names(rows)
    _check_numbers(rows)
    if "own" in rows.raw:
        rows.reject(rows.raw["own"] == np.inf, "target is neither 0 nor 1")
    meaning, words = _label(root, rows, own, options)
    table, placeholders = _harmonise(source, rows.raw)
    if placeholders:
        facts = facts | {"placeholders": placeholders}
    table, repeated = _one_row_each(table, rows.faults)
    table = table.sort_values("image_id", kind="stable").reset_index(drop=True)
    unlisted, copies = 0, 0
    if options.tables_only:
        paths: list[Path | Encoded | None] = [None] * len(table)
    elif "path" in table:
        paths = table["path"].tolist()
    else:
        found = match(root, table, rows.faults)
        table, paths, unlisted, copies = found.table, [*found.files], found.unlisted, found.copies
        if found.left_out:
            facts = facts | {"left_out": found.left_out}
    if repeated:
        facts = facts | {"repeated_rows": repeated}
    same, lost = _row_pairs(table, pairs)
    if lost:
        facts = facts | {"declared_pairs_without_row": lost}
    kept = [*COLUMNS, *(["given_fold"] if options.fold_column else [])]
    files = [Encoded(path) if isinstance(path, Path) else path for path in paths]
    return Listing(
        *(table[kept].copy(), files, facts, rows.faults, same, meaning, words),
        *(unlisted, copies, source not in OWN_IDS),
    )


def _check_names(rows: Rows) -> None:
    """Image ids without folders and suffix; what leads anywhere else is rejected.

    `file` keeps the path as it is written, with `/` between folders: the image is looked for there.
    Where the names alone are not unique, the folders that differ become part of the id.
    """
    files = vocabulary.each(rows.raw["image_id"], _path)
    bare = vocabulary.each(files, lambda name: SUFFIX.sub("", name))
    rows.raw = rows.raw.assign(file=files, image_id=bare)
    rows.reject(rows.raw["image_id"] == "", "image_id is empty")
    unsafe = [bool(UNSAFE.search(n)) or len(n) > MAX_NAME for n in rows.raw["image_id"]]
    rows.reject(unsafe, "unsafe file name: it leads out of the folder, or is no plain text")
    rows.raw["image_id"] = _ids(rows.raw["file"])


def _path(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./")


def _ids(files: pd.Series) -> pd.Series:
    """Names without suffix; with folders, those that not all have, where names alone are shared."""
    steps = {file: SUFFIX.sub("", file).split("/") for file in files.unique()}
    if len({name[-1] for name in steps.values()}) == len(steps):
        return files.map(lambda file: steps[file][-1]).astype(object)
    folders = [name[:-1] for name in steps.values()]
    first, last = min(folders), max(folders)  # what these two share, all share
    pairs = zip(first, last, strict=False)
    shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))
    return files.map(lambda file: "__".join(steps[file][shared:])).astype(object)


def _check_numbers(rows: Rows) -> None:
    """Ages and folds become numbers; rows with other words in their place are rejected."""
    ages = _numbers(rows.raw, "age", vocabulary.age)
    rows.raw["age"] = ages
    wrong = f"age is not a number of years from 0 to {vocabulary.MAX_AGE}"
    rows.reject(ages == np.inf, wrong)
    rows.raw["given_fold"] = _numbers(rows.raw, "fold", _fold)
    rows.reject(rows.raw["given_fold"] == np.inf, "fold is not a whole number")


def _numbers(raw: pd.DataFrame, column: str, parse: Callable[[str], float]) -> pd.Series:
    """float64 of each word: NaN where missing, infinite where it cannot be parsed."""

    def attempt(word: str) -> float:
        try:
            return parse(word)
        except ValueError:
            return np.inf

    if column not in raw:
        return pd.Series(np.nan, index=raw.index)
    return vocabulary.each(raw[column], attempt).astype(np.float64)


def _fold(word: str) -> float:
    if vocabulary.is_missing(word):
        return np.nan
    if not float(word).is_integer():
        raise ValueError(f"{word}: not a fold")
    return float(word)


def _label(
    root: Path, rows: Rows, own: Own | None, options: SourceOptions
) -> tuple[TargetMeaning, pd.DataFrame]:
    """Put `target` and the harmonised `diagnosis` into `rows`; what contradicts is a fault.

    Returns what the targets mean, and Listing.words.
    """
    raw = rows.raw
    word = raw["diagnosis"] if "diagnosis" in raw else pd.Series("", index=raw.index, dtype=object)
    meant = vocabulary.each(word, options.understand)
    raw = raw.assign(
        word=word,
        diagnosis=[each.name for each in meant],
        kind=[each.kind for each in meant],
    )
    raw["diagnosis"] = raw["diagnosis"].astype(object)
    try:
        decided = decide(root, raw, own, options)
    except UserError as error:
        if not rows.faults:
            raise
        first = rows.faults[0]
        raise UserError(
            f"{error}; {counted(len(rows.faults), 'row')} could not be used before that, "
            f"the first: {first.reason} ({first.where})"
        ) from None
    rows.raw = raw.assign(target=decided.target, fault=decided.fault)
    for reason in sorted(set(decided.fault) - {""}):
        rows.reject(rows.raw["fault"] == reason, reason)
    told = rows.raw[rows.raw["kind"] != "missing"]
    words = told.groupby(["word", "kind", "target"], dropna=False).size()
    return decided.meaning, words.reset_index(name="n")


def _harmonise(source: str, raw: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """The columns of Listing.table, and those that are needed until then.

    Also the words of id columns that were taken for "unknown", with their number.
    """
    given = ("image_id", "where", "target", "diagnosis", "age", "given_fold", "path", "file")
    table = raw[[column for column in given if column in raw]].copy()
    for column, translate in WORDS.items():
        table[column] = vocabulary.each(raw[column], translate) if column in raw else None
        table[column] = table[column].astype(object)
    placeholders = {}
    for column in IDS:
        table[column] = None
        if column in raw:
            table[column], none = vocabulary.identities(raw[column])
            if none:
                placeholders[column] = none
        table[column] = table[column].astype(object)
    return table.assign(source=source), placeholders


def _one_row_each(table: pd.DataFrame, faults: list[Fault]) -> tuple[pd.DataFrame, int]:
    """Without repeated rows (and their number), and without ids whose rows contradict."""
    kept = table.drop_duplicates(subset=table.columns.drop(["where", "file"]).tolist())
    repeated = len(table) - len(kept)
    clash = kept["image_id"].duplicated(keep=False)
    if not clash.any():
        return kept, repeated
    rows = kept[clash]
    rest = table.columns.drop(["where", "file", "target", "diagnosis"]).tolist()
    alike = rows.drop_duplicates(subset=rest).groupby("image_id").size() == 1
    both = rows.drop_duplicates(["image_id", "target"]).groupby("image_id").size() > 1
    for name, where in rows.groupby("image_id")["where"].agg(list).items():
        conflict = alike[name] and both[name]
        reason = "conflicting targets for one image" if conflict else "image_id more than once"
        faults.append(Fault(printable(name), some(where, 3), reason))
    return kept[~clash], repeated


def _row_pairs(table: pd.DataFrame, pairs: pd.DataFrame | None) -> tuple[np.ndarray, int]:
    """Row numbers int64 [m, 2] (i < j, sorted) of pairs of ids, and how many lack a row."""
    if pairs is None or pairs.empty:
        return np.empty((0, 2), np.int64), 0
    index = pd.Index(table["image_id"])
    both = np.stack([index.get_indexer(pairs[column]) for column in pairs.columns[:2]], axis=1)
    listed = (both >= 0).all(axis=1)
    both = np.sort(both[listed & (both[:, 0] != both[:, 1])], axis=1)
    return np.unique(both, axis=0).astype(np.int64).reshape(-1, 2), int((~listed).sum())
