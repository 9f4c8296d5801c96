"""Mix the scores of several models: by given weights, by ranks, or by weights found out of fold.

    python -m classifier.blend --scores image=runs/cls/b3:0.9 age=runs/cls/meta:0.1 --out both.csv

FILE is a run's folder or predictions.parquet, of which --part is mixed, or a CSV
`image_name,target`, taken whole. Writes a CSV of that form and, beside it, a .json with members,
weights and figures. Weights are divided by their sum; alike without any.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import tyro
from scipy.stats import rankdata

from classifier.evaluation.cross_validation import percentile
from classifier.run_folder import COLUMNS
from data.store import MARKER, TEST, load_table
from dermsynth import cli
from dermsynth.errors import UserError, some
from dermsynth.files import sha256, write_json, write_text

UNITS = 100  # weights that are found are multiples of 1 / UNITS
STEPS = (50, 20, 10, 5, 2, 1)  # units that the search moves from one member to another
UNSEEN = ("oof", "val")  # parts that a model was neither trained nor is tested on
FIGURES = ("auc", "fold_auc", "fold_auc_nested", "auc_truth")  # of the blend
Words = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class BlendOptions:
    """Options of `python -m classifier.blend`."""

    out: Path  # CSV file to write
    scores: Words = ()  # NAME=FILE:WEIGHT for each model
    part: str = "test"  # what to mix of a run: test, oof, val or external/NAME
    by: Literal["weights", "rank", "search"] = "weights"  # rank: percentiles, not scores, are mixed
    fit_on: str | None = None  # find weights on oof (so does --by search) or val: the highest AUC
    truth: Path | None = None  # dataset or run: its images must be there, and the AUC on it is told
    overwrite: bool = False  # replace the files in --out


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

    def of(self, part: str) -> pd.DataFrame:
        """The rows of a part; of a CSV all. Raises UserError where there is none."""
        if "part" not in self.rows:
            if part not in UNSEEN:
                return self.rows
            raise UserError(f"{self.path}: a CSV, which has no part {part}; give the run instead")
        rows = self.rows[self.rows["part"] == part]
        if rows.empty:
            there = some(self.rows["part"].unique().tolist())
            raise UserError(f"{self.path}: has no part {part}; it has {there}")
        return rows


def blend(options: BlendOptions) -> dict[str, Any]:
    """Write the CSV and the record beside it; returns the record.

    Raises UserError for what cannot be read or mixed (other images in one member than in another
    or the truth, images twice, scores that are no finite numbers, weights below 0 or all 0), and
    for weights to be found on a part to be tested on.
    """
    fit_on = options.fit_on or ("oof" if options.by == "search" else None)
    _check(options, fit_on)
    members = read_members([word for group in options.scores for word in group])
    rows, columns = same_rows(members, options.part, options.by == "rank")
    truth = read_truth(options.truth, options.part, rows.index) if options.truth else None
    weights, record = _weigh(options, members, fit_on)
    mixed = pd.Series(mix(columns, weights), rows.index)
    if truth is not None:
        record["blend"]["auc_truth"] = auc(truth.to_numpy(), mixed[truth.index].to_numpy())
    text = mixed.rename("target").rename_axis("image_name").to_csv()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out.with_suffix(".json"), record)
    write_text(options.out, text)
    print(_table(record))
    print(f"{len(mixed):,} rows: {options.out}")
    return record


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
    path = Path(file) / "predictions.parquet" if Path(file).is_dir() else Path(file)
    if not path.exists():
        raise UserError(f"--scores {word}: no {path}; expected NAME=FILE or NAME=FILE:WEIGHT")
    return Member(name, path, weight, _read_csv(path) if path.suffix == ".csv" else _read_run(path))


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from None
    whole = isinstance(table.index, pd.RangeIndex)  # a longer row makes its first field the index
    if sorted(table.columns) != ["image_name", "target"] or not whole:
        found = some(table.columns.tolist())
        raise UserError(f"{path}: expected the columns image_name,target alone; found {found}")
    scores = pd.to_numeric(table["target"], errors="coerce")
    bad = table[~np.isfinite(scores)]
    if len(bad):
        shown = [f"{row.image_name} ({row.target!r})" for row in bad.itertuples()]
        raise UserError(f"{path}: {len(bad)} scores are no finite numbers: {some(shown)}")
    return _by_image(pd.DataFrame({"image_id": table["image_name"], "score": scores}), path)


def _read_run(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read as a run or a .csv ({reason})") from None
    if missing := [name for name in COLUMNS if name not in table]:
        raise UserError(f"{path}: no predictions of a run: no column {some(missing)}")
    if len(bad := table.loc[~np.isfinite(table["score"]), "image_id"]):
        raise UserError(f"{path}: {len(bad)} scores are not finite: {some(bad.tolist())}")
    return _by_image(table, path)


def _by_image(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    key = [name for name in ("part", "image_id") if name in table]
    if len(twice := table.loc[table.duplicated(key), "image_id"]):
        raise UserError(f"{path}: {len(twice)} images come twice: {some(twice.tolist())}")
    return table.set_index("image_id")


def same_rows(
    members: list[Member], part: str, ranks: bool = False
) -> tuple[pd.DataFrame, np.ndarray]:
    """The first member's rows of a part, and all members' scores in their order, float64 [n, k].

    With `ranks`, percentiles instead: of "oof" within a fold, because each has a model of its own.
    Raises UserError where members have other images, targets or folds.
    """
    first, columns = members[0].of(part), []
    for member in members:
        rows = member.of(part)
        for one, other, where in ((first, rows, members[0]), (rows, first, member)):
            if len(odd := one.index.difference(other.index)):
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
    if (path / MARKER).exists():
        table = load_table(path)[0].set_index("image_id")
        wanted = table[table["target"].notna()]
        if part in ("test", "oof"):
            wanted = wanted[wanted["fold"] == TEST if part == "test" else wanted["fold"] >= 0]
        wanted = wanted[wanted.index.isin(ids)] if part == "val" else wanted
    else:
        file = path / "predictions.parquet" if path.is_dir() else path
        table = wanted = Member("truth", path, None, _read_run(file)).of(part)
    if len(odd := ids.difference(table.index)):
        raise UserError(f"--truth {path}: does not know {len(odd)} images: {some(odd.tolist())}")
    if len(odd := wanted.index.difference(ids)):
        raise UserError(
            f"--truth {path}: {len(odd)} images of part {part} have no score: {some(odd.tolist())}"
        )
    return wanted["target"].astype(np.int64)


def mix(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean, float64 [n], of columns [n, k] by weights [k] >= 0 that are not all 0."""
    # column by column: equal rows stay equal to the last bit, so ties stay ties
    total = np.zeros(len(columns))
    for number, weight in enumerate(weights / weights.sum()):
        total += weight * columns[:, number]
    return total


def auc(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve, counted as Mann & Whitney (1947) do; None with one class."""
    positive = int(targets.sum())
    negative = len(targets) - positive
    if not positive or not negative:
        return None
    above = rankdata(scores)[targets == 1].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def fit_weights(columns: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Weights [k], >= 0, sum 1, multiples of 0.01, whose mix of columns [n, k] has the best AUC.

    AUC and not log loss: it is what blends are judged by, and it takes members as they are, while
    log loss would throw out those that are no calibrated probabilities (all that were trained with
    balanced classes). It has no gradient: from the best of each member alone and all alike, the
    search moves weight between two members, 0.01 to 0.5, whichever helps most, until none does.
    """

    def value(units: tuple[int, ...]) -> float:
        return auc(targets, mix(columns, np.array(units))) or 0.0

    k = columns.shape[1]
    alike = tuple(UNITS // k + (number < UNITS % k) for number in range(k))
    alone = [tuple(UNITS * (number == one) for number in range(k)) for one in range(k)]
    best = max([alike, *alone], key=value)
    while True:
        top = max(_moves(best), key=value, default=best)
        if value(top) <= value(best):
            return np.array(best) / UNITS
        best = top


def _moves(units: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for giver, has in enumerate(units):
        for step in sorted({min(step, has) for step in STEPS if has}):
            for taker in range(len(units)):
                if taker != giver:
                    change = {giver: -step, taker: step}
                    yield tuple(old + change.get(number, 0) for number, old in enumerate(units))


def fold_auc(
    columns: np.ndarray, targets: np.ndarray, folds: np.ndarray, weights: np.ndarray | None
) -> float | None:
    """Mean over folds of the AUC within a fold; without `weights`, by those of all other folds.

    Within, as the test part meets one set of weights, too: pooled, another scale in another fold
    would count as error. None where a fold, or the rest, has one class only.
    """
    found = []
    for fold in np.unique(folds):
        own = folds == fold
        if len(np.unique(targets[own])) < 2 or len(np.unique(targets[~own])) < 2:
            return None
        chosen = fit_weights(columns[~own], targets[~own]) if weights is None else weights
        found.append(auc(targets[own], mix(columns[own], chosen)))
    return float(np.mean(found))


def _check(options: BlendOptions, fit_on: str | None) -> None:
    if fit_on is not None and fit_on not in UNSEEN:
        raise UserError(
            f"--fit-on {fit_on}: weights are found on oof (out-of-fold predictions) or val only, "
            "never on what they are tested on"
        )
    if options.out.suffix != ".csv":
        raise UserError(f"--out {options.out}: expected a name that ends in .csv")
    for path in (options.out, options.out.with_suffix(".json")):
        if path.exists() and not options.overwrite:
            raise UserError(f"--out: {path} exists already; give another name or --overwrite")


def _weigh(
    options: BlendOptions, members: list[Member], fit_on: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """The weights [k], and what the record says of them."""
    weights = None if fit_on else _given_weights(members)
    own: list[float | None] = [None] * len(members)
    whole: dict[str, float | None] = dict.fromkeys(FIGURES)
    try:
        rows, columns = same_rows(members, fit_on or "oof", options.by == "rank")
        targets, note = rows["target"].to_numpy(np.int64), None
        if weights is None:
            weights = _found_weights(members, columns, targets, fit_on)
            folds = rows["fold"].to_numpy()
            whole["fold_auc"] = fold_auc(columns, targets, folds, weights)
            whole["fold_auc_nested"] = fold_auc(columns, targets, folds, None)
        whole["auc"] = auc(targets, mix(columns, weights))
        own = [auc(targets, column) for column in columns.T]
    except UserError as error:
        if weights is None:  # given ones need no figures
            raise
        note = f"no out-of-fold figures: {error}"
    return weights, {
        "part": options.part,
        "of": "percentiles" if options.by == "rank" else "scores",
        "weights_found_on": fit_on,
        "auc_on": fit_on or "oof",
        "note": note,
        "members": {
            member.name: {
                "file": str(member.path),
                "sha256": sha256(member.path),
                "weight": float(weight),
                "auc": value,
            }
            for member, weight, value in zip(members, weights, own, strict=True)
        },
        "blend": whole,
        "leaky": [member.name for member in members if member.leaky],
    }


def _given_weights(members: list[Member]) -> np.ndarray:
    given = [member.weight for member in members if member.weight is not None]
    if not given:
        return np.full(len(members), 1 / len(members))
    if len(given) < len(members):
        bare = next(member.name for member in members if member.weight is None)
        raise UserError(f"--scores {bare}=...: no weight, and others have one; give all or none")
    if sum(given) == 0:
        raise UserError("--scores: the weights sum to 0; give at least one above 0")
    return np.array(given) / sum(given)


def _found_weights(
    members: list[Member], columns: np.ndarray, targets: np.ndarray, fit_on: str | None
) -> np.ndarray:
    for member in members:
        if member.weight is not None:
            raise UserError(
                f"--scores {member.name}=...:{member.weight:g}: weights are to be found; give none"
            )
    if len(members) < 2:
        raise UserError("--scores: weights are found for two members or more")
    if len(np.unique(targets)) < 2:
        raise UserError(f"--fit-on {fit_on}: its {len(targets)} images are all of one class")
    print(f"finding {len(members)} weights on the {len(targets):,} images of part {fit_on}")
    return fit_weights(columns, targets)


def _table(record: dict[str, Any]) -> str:
    """Weights and AUC of the members and of the blend, and what to think of them."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    whole = record["blend"]
    width = max(map(len, ["blend", *record["members"]])) + 2
    lines = [f"{'':<{width}}{'weight':>8}{'AUC, ' + record['auc_on']:>12}"]
    for name, of in record["members"].items():
        lines.append(f"{name:<{width}}{of['weight']:>8.3g}{number(of['auc']):>12}")
    lines.append(f"{'blend':<{width}}{'':>8}{number(whole['auc']):>12}")
    if record["note"]:
        lines.append(record["note"])
    if record["weights_found_on"]:
        one, other = (number(whole[key]) for key in ("fold_auc", "fold_auc_nested"))
        lines.append("warning: optimistic, the weights were found on the same images")
        lines.append(
            f"AUC of a fold, mean: {one} by these weights, {other} by those of the other folds"
            if whole["fold_auc"] is not None
            else "with one fold, or one class in a fold, nothing better is known"
        )
    if whole["auc_truth"] is not None:
        lines.append(f"AUC of the blend on --truth: {number(whole['auc_truth'])}")
    if record["leaky"]:
        lines.append(f"LEAKY: {some(record['leaky'])} trained with a leak; this is not a result")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(BlendOptions, blend, "classifier.blend", __doc__ or "")
