"""The scores that are blended: read, checked, and brought into one order."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from classifier.evaluation.cross_validation import percentile
from classifier.run_folder import (
    COLUMNS,
    MEND,
    PREDICTIONS,
    RUNS,
    VALIDATION,
    open_run,
    read_predictions,
)
from classifier.scores import read_scores
from data.store import KIND as DATASET
from data.store import TEST, load_table
from dermsynth import manifest
from dermsynth.errors import UserError, counted, some
from dermsynth.files import read_bytes
from dermsynth.manifest import is_finished, read_table


@dataclass(frozen=True)
class Member:
    """One model's scores."""

    name: str
    path: Path
    weight: float | None  # as given
    rows: pd.DataFrame  # by image_id: `score`; of a run also `part`, `fold`, `target`

    @property
    def leaky(self) -> bool:
        """Whether its run was trained with a leak; a CSV cannot say."""
        return "leaky" in self.rows and bool(self.rows["leaky"].any())

    def rows_of(self, part: str) -> pd.DataFrame:
        """The rows of a part; of a CSV all. Raises UserError where there is none."""
        if "part" not in self.rows:
            if part not in VALIDATION:
                return self.rows
            raise UserError(f"{self.path}: a CSV, which has no part {part}; give the run instead")
        rows = self.rows[self.rows["part"] == part]
        if rows.empty:
            parts = some(self.rows["part"].unique().tolist())
            raise UserError(f"{self.path}: has no part {part}; it has {parts}")
        return rows


def read_members(words: list[str]) -> list[Member]:
    """Members from `NAME=FILE` or `NAME=FILE:WEIGHT`. Raises UserError naming the bad one."""
    if not words:
        raise UserError("--scores: expected NAME=FILE:WEIGHT for each model")
    members = [_read_member(word) for word in words]
    names = [member.name for member in members]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--scores: the name {some(twice)} is given twice")
    return members


def _read_member(word: str) -> Member:
    name, _, rest = word.partition("=")
    file, _, number = rest.rpartition(":")
    weight = None
    with contextlib.suppress(ValueError):  # a colon in the file's name
        weight = float(number) if file else None
    file = rest if weight is None else file
    if not name or not file:
        raise UserError(f"--scores {word}: expected NAME=FILE or NAME=FILE:WEIGHT")
    if weight is not None and not 0 <= weight < float("inf"):
        raise UserError(f"--scores {word}: expected a weight of 0 or more, found {weight:g}")
    path, of_run = Path(file), Path(file).is_dir()
    if of_run:
        path = path / PREDICTIONS
    if not path.exists():
        raise UserError(f"--scores {word}: no {path}; expected NAME=FILE or NAME=FILE:WEIGHT")
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"--scores {word}: expected a run, its {PREDICTIONS} or a .csv file")
    read = _read_csv if path.suffix == ".csv" else _read_run if of_run else _read_parquet
    return Member(name, path, weight, read(path))


def _read_csv(path: Path) -> pd.DataFrame:
    return _by_image(read_scores(path), path)


def _read_run(path: Path) -> pd.DataFrame:
    """PREDICTIONS in a run's folder."""
    return _checked(read_predictions(open_run(path.parent, RUNS)), path)


def _read_parquet(path: Path) -> pd.DataFrame:
    """The same file, or one that was taken out of its folder."""
    if path.name == PREDICTIONS and (path.parent / manifest.NAME).exists():
        return _read_run(path)
    content = read_bytes(path, manifest.MOST_BYTES, MEND)
    return _checked(read_table(content, COLUMNS, path, MEND), path)


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    scores = pd.to_numeric(table["score"], errors="coerce")
    if len(bad := table.loc[~np.isfinite(scores), "image_id"]):
        raise UserError(f"{path}: {len(bad)} scores are not finite: {some(bad.tolist())}")
    return _by_image(table, path)


def _by_image(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    key = [name for name in ("part", "image_id") if name in table]
    if len(twice := table.loc[table.duplicated(key), "image_id"]):
        number = counted(len(twice), "image comes", "images come")
        raise UserError(f"{path}: {number} twice: {some(twice.tolist())}")
    return table.set_index("image_id")


def same_rows(
    members: list[Member], part: str, ranks: bool = False
) -> tuple[pd.DataFrame, np.ndarray]:
    """The first member's rows of a part, and all members' scores in their order, float64 [n, k].

    With `ranks`, percentiles instead: of "oof" within a fold, because each has a model of its own.
    Raises UserError where members have other images, targets or folds.
    """
    first, columns = members[0].rows_of(part), []
    for member in members:
        rows = member.rows_of(part)
        for own, other, where in ((first, rows, members[0]), (rows, first, member)):
            if len(odd := own.index.difference(other.index)):
                raise UserError(
                    f"--scores {members[0].name} and {member.name}: not the same images; "
                    f"{len(odd)} are in {where.path} only: {some(odd.tolist())}"
                )
        rows = rows.loc[first.index]
        for key in ("target", "fold"):
            if key in rows and key in first and len(odd := rows[rows[key] != first[key]]):
                raise UserError(
                    f"{member.path} and {members[0].path}: not the same {key}s: "
                    f"{some(odd.index.tolist())}; mix runs on the same dataset and folds"
                )
        scores = rows["score"].to_numpy(np.float64)
        if ranks:
            models = rows["fold"] if part == "oof" else np.zeros(len(rows))
            scores = rows["score"].groupby(np.asarray(models)).transform(percentile).to_numpy()
        columns.append(scores)
    return first, np.column_stack(columns)


def read_truth(path: Path, part: str, ids: pd.Index) -> pd.Series:
    """Targets, int64, of the images to be tested on: a part of a run, or of a dataset.

    Of a dataset: its test part, its folds ("oof"), what was scored ("val"), else all with a target.
    Raises UserError where `ids` has images that are not there, or lacks some of those.
    """
    if is_finished(path, DATASET):
        table = load_table(path)[0].set_index("image_id")
        wanted = table[table["target"].notna()]
        if part in ("test", "oof"):
            wanted = wanted[wanted["fold"] == TEST if part == "test" else wanted["fold"] >= 0]
        wanted = wanted[wanted.index.isin(ids)] if part == "val" else wanted
    else:
        rows = _read_run(path / PREDICTIONS) if path.is_dir() else _read_parquet(path)
        table = wanted = Member("truth", path, None, rows).rows_of(part)
    if len(odd := ids.difference(table.index)):
        number = counted(len(odd), "image")
        raise UserError(f"--truth {path}: does not know {number}: {some(odd.tolist())}")
    if len(odd := wanted.index.difference(ids)):
        number = counted(len(odd), "image")
        raise UserError(
            f"--truth {path}: {number} of part {part} without a score: {some(odd.tolist())}"
        )
    return wanted["target"].astype(np.int64)
