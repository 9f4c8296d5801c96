"""The parts of a finished run's predictions, each with what its dataset knows about the images."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from classifier.evaluation.intervals import Scored
from classifier.evaluation.multiclass import ScoredClasses, class_numbers
from classifier.run_folder import PREDICTIONS, VALIDATION, read_metrics, read_predictions
from data.store import Dataset, TargetMeaning, load_dataset, load_table
from dermsynth.errors import UserError, counted, some
from dermsynth.manifest import Sealed, check_same
from dermsynth.records import Json


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
    meaning: TargetMeaning | None = None  # of targets, as its dataset says; None: it is not there
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


def read_run(
    sealed: Sealed, data: Path | None, externals: dict[str, Path]
) -> tuple[dict[str, Part], str | None]:
    """Parts (validation first), and why the run is leaky, of a finished run.

    Raises UserError where its predictions are damaged.

    Parameters
    ----------
    sealed : the run
    data : where its dataset is; None: where it was
    externals : where test sets are, by name, of those that were moved
    """
    path, table = sealed.path / PREDICTIONS, read_predictions(sealed)
    classes = _check_predictions(table, path)
    table["target"] = table["target"].astype(int)
    parts, order = {}, [*VALIDATION, "test"]
    places = {f"external/{name}": folder for name, folder in externals.items()}
    if data is not None:
        places["dataset"] = data
    asked = sealed.manifest.options
    size = asked.get("read_size") or asked.get("size")
    for name in sorted(table["part"].unique(), key=lambda name: [name != first for first in order]):
        rows = table[table["part"] == name].reset_index(drop=True)
        scored = Scored.of(rows["target"], rows["score"], rows["group"].astype(str))
        source = name if name.startswith("external/") else "dataset"
        part = Part(name, rows, scored, classes)
        parts[name] = _described(part, sealed, source, places.get(source), size)
    leaks = {part["leaky"] for part in read_metrics(sealed).values() if part.get("leaky")}
    return parts, next(iter(map(str, leaks)), None)


def named_externals(sealed: Sealed, texts: tuple[str, ...]) -> dict[str, Path]:
    """Folders by the names of test sets. Raises UserError for a name that the run does not know."""
    known = [name.removeprefix("external/") for name in sealed.manifest.inputs if "/" in name]
    places: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if name not in known or not folder:
            raise UserError(
                f"--external {text}: expected NAME=FOLDER, NAME one of the run's test sets: "
                f"{some(known) if known else 'it has none'}"
            )
        places[name] = Path(folder)
    return places


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
            rows = counted(len(names), "row has", "rows have")
            raise UserError(f"{path}: {rows} {words}: {some(names)}; train again")
    return classes


def _described(part: Part, sealed: Sealed, source: str, place: Path | None, size: Json) -> Part:
    """The part with its dataset's table and images, or with the reason why they are missing."""
    scored = sealed.manifest.inputs.get(source)
    if scored is None:
        return replace(part, missing=f"{sealed.path} does not say what {part.name} was")
    option = "--data FOLDER" if source == "dataset" else f"--{source.replace('/', ' ')}=FOLDER"
    mend = f"say with {option} where the one that was scored is now"
    place = place or Path(scored.path)
    try:
        table, info, identity = load_table(place)
    except UserError as error:
        return replace(part, missing=f"{error}; or {mend}")
    try:
        check_same({source: scored}, {source: identity}, str(place), mend)
    except UserError as error:
        return replace(part, missing=str(error))
    rows = pd.Series(np.arange(len(table)), index=table["image_id"])
    places = rows[~rows.index.duplicated()].reindex(part.rows["image_id"], fill_value=-1).to_numpy()
    if (places < 0).any():
        return replace(part, missing=f"{place} does not know all images that were scored; {mend}")
    own = table.iloc[places].reset_index(drop=True)
    part = replace(part, table=own, places=places, meaning=info.target)
    try:
        return replace(part, dataset=load_dataset(place, size if isinstance(size, int) else None))
    except UserError as error:
        return replace(part, missing=str(error))
