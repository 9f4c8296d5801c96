"""The parts of a finished run's predictions, each with what its dataset knows about the images."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classifier.evaluation.intervals import Scored
from classifier.evaluation.multiclass import ScoredClasses, class_numbers
from classifier.run_folder import METRICS, PREDICTIONS, VALIDATION, check_finished, read_predictions
from data.store import Dataset, load_dataset, load_table
from dermsynth.cli import read_yaml
from dermsynth.errors import UserError, some
from dermsynth.files import read_json
from dermsynth.runs import CONFIG


@dataclass(frozen=True)
class Part:
    """One part of the predictions and what its dataset knows about the images."""

    name: str
    rows: pd.DataFrame  # of predictions.parquet, numbered from 0
    scored: Scored
    classes: list[str]  # of a run of several diagnoses, else none
    table: pd.DataFrame | None = None  # the dataset's rows of these images, in this order
    dataset: Dataset | None = None  # None where there are no images
    places: np.ndarray | None = None  # int64 [n], rows in the dataset
    missing: str | None = None  # why table or images are not there

    @property
    def probabilities(self) -> np.ndarray:
        """float64 [n, k] of `classes`."""
        return self.rows[[f"score_{name}" for name in self.classes]].to_numpy(np.float64)

    @property
    def scored_classes(self) -> ScoredClasses:
        """The rows whose diagnosis is one of `classes`."""
        known = self.rows["diagnosis"].astype(str).isin(self.classes).to_numpy()
        truth = class_numbers(self.rows["diagnosis"][known], self.classes)
        return ScoredClasses(
            self.classes, truth, self.probabilities[known], self.scored.group[known]
        )

    def images(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [len(rows), s, s, 3] RGB."""
        assert self.dataset is not None
        assert self.places is not None
        return np.asarray(self.dataset.images[self.places[rows]])


def read_run(run: Path) -> tuple[dict[str, Part], dict[str, Any], str | None]:
    """Parts (validation first), options, and why the run is leaky, of a finished run.

    Raises UserError where the run is not finished or its predictions are damaged.
    """
    check_finished(run)
    path, config = run / PREDICTIONS, read_yaml(run / CONFIG)
    table = read_predictions(path)
    classes = _check_predictions(table, path)
    table["target"] = table["target"].astype(int)
    parts, order = {}, [*VALIDATION, "test"]
    for name in sorted(table["part"].unique(), key=lambda name: [name != first for first in order]):
        rows = table[table["part"] == name].reset_index(drop=True)
        scored = Scored.of(rows["target"], rows["score"], rows["group"].astype(str))
        parts[name] = _described(Part(name, rows, scored, classes), config)
    leaks = {part["leaky"] for part in read_json(run / METRICS).values() if part.get("leaky")}
    return parts, config, next(iter(leaks), None)


def _check_predictions(table: pd.DataFrame, path: Path) -> list[str]:
    """Raise UserError unless the predictions can be evaluated; returns the names of classes."""
    classes = [name.removeprefix("score_") for name in table.columns if name.startswith("score_")]
    if classes and "diagnosis" not in table:
        raise UserError(f"{path}: scores of classes but no column diagnosis; train the run again")
    validation = [name for name in VALIDATION if (table["part"] == name).any()]
    if len(validation) != 1:
        raise UserError(
            f"{path}: expected one validation part, val or oof, found "
            f"{' and '.join(validation) or 'none'} among {some(list(table['part'].unique()))}; "
            "train the run again"
        )
    for words, bad in (
        ("a target that is not 0 or 1", ~table["target"].isin([0, 1])),
        ("a score that is not in 0..1", ~table["score"].between(0, 1)),
        ("no group", table["group"].isna()),
        ("an image_id that its part has already", table.duplicated(["part", "image_id"])),
    ):
        if bad.any():
            names = table.loc[bad, "image_id"].astype(str).tolist()
            raise UserError(f"{path}: {len(names)} rows have {words}: {some(names)}; train again")
    return classes


def _described(part: Part, config: dict[str, Any]) -> Part:
    """The part with its dataset's table and images, or with the reason why they are missing."""
    external = dict(text.partition("=")[::2] for text in config.get("external") or [])
    name = part.name.removeprefix("external/")
    place = external.get(name) if part.name.startswith("external/") else config.get("data")
    if place is None:
        return replace(part, missing=f"config.yaml names no dataset of {part.name}")
    try:
        table = load_table(Path(place))[0]
    except UserError as error:
        return replace(part, missing=str(error))
    rows = pd.Series(np.arange(len(table)), index=table["image_id"])
    places = rows[~rows.index.duplicated()].reindex(part.rows["image_id"], fill_value=-1).to_numpy()
    changed = places < 0
    changed |= table["target"].iloc[places].to_numpy(float, na_value=np.nan) != part.rows["target"]
    if changed.any():
        names = part.rows.loc[changed, "image_id"].tolist()
        return replace(
            part,
            missing=f"{place} is not the dataset that was scored: {len(names)} of {len(places)} "
            f"images are not there or have another label: {some(names, 3)}",
        )
    part = replace(part, table=table.iloc[places].reset_index(drop=True), places=places)
    try:
        return replace(part, dataset=load_dataset(Path(place), config.get("size")))
    except UserError as error:
        return replace(part, missing=str(error))
