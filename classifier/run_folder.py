"""What the folder of a classifier's run holds: its files, what kind of run it is, its folds."""

from pathlib import Path

import numpy as np
import pandas as pd

from classifier.options import NETWORKS
from classifier.records import (
    VERSION,
    Figures,
    MetadataRunRecord,
    MetricsRecord,
    ModelRecord,
    RunRecord,
    TargetRecord,
)
from classifier.targets import Target
from data.store import Dataset, TargetMeaning
from dermsynth import manifest
from dermsynth.errors import UserError
from dermsynth.manifest import Sealed, open_sealed

KIND, METADATA = "classifier", "metadata-classifier"
FOLDS, PAIR = "classifier-folds", "classifier-pair"  # made of runs: a fold each, two networks
OF_IMAGES = (KIND, PAIR, FOLDS)  # kinds of runs that hold networks
RUNS = (*OF_IMAGES, METADATA)
EVALUATION = "classifier-evaluation"
WEIGHTS, MODEL, METRICS, RUN = "model.safetensors", "model.json", "metrics.json", "run.json"
DECISIONS = "decisions.json"  # of two networks, what model.json has of one
REFERENCES = "likeness.safetensors"  # features of some training images
PREDICTIONS, CHECKPOINT = "predictions.parquet", "checkpoint"
COLUMNS = ("image_id", "group", "fold", "part", "target", "score")  # of PREDICTIONS, at least
PLAIN_SCORE = "plain_score"  # its column of the images as they are, where `score` is over views
VALIDATION = ("val", "oof")  # its part that models are not trained on; oof: out of fold, of all
MEND = "train it again"


def open_run(run: Path, kinds: tuple[str, ...] = OF_IMAGES) -> Sealed:
    """The folder of a finished run. Raises UserError where there is none of these kinds."""
    absent = f"--run {run}: no finished run there; train one: `python -m classifier.train`"
    if (run / manifest.NAME).exists():
        there, train = manifest.read_manifest(run, MEND), "`python -m classifier.train"
        absent = f"Give the folder of a run, or train one: {train}`"
        if there.kind in OF_IMAGES and not there.finished:
            absent = f"Go on with {train} --config {run}/config.yaml --out {run} --resume`"
    return open_sealed(run, kinds, absent, MEND)


def fold_name(fold: int) -> str:
    """The folder of one fold's run in that of all."""
    return f"fold{fold}"


def open_fold_runs(sealed: Sealed) -> dict[int, Sealed]:
    """The runs of a run with `--fold all`, by fold: of one network, or of two; none of another run.

    Raises UserError where one is missing, damaged, or not the one that belongs there.
    """
    if sealed.manifest.kind != FOLDS:
        return {}
    folds = {}
    for name in sealed.manifest.parts:
        if (number := name.removeprefix("fold")) != name and number.isdecimal():
            folds[int(number)] = _open_part(sealed, name, (KIND, PAIR))
    return dict(sorted(folds.items()))


def open_networks(sealed: Sealed) -> list[Sealed]:
    """The runs of one network that a run is made of, fold by fold; itself where it is one.

    Raises UserError as `open_fold_runs`.
    """
    if folds := open_fold_runs(sealed):
        return [network for fold in folds.values() for network in open_networks(fold)]
    if sealed.manifest.kind == PAIR:
        return [_open_part(sealed, name, (KIND,)) for name in NETWORKS]
    return [sealed]


def _open_part(sealed: Sealed, name: str, kinds: tuple[str, ...]) -> Sealed:
    part = open_run(sealed.path / name, kinds)
    if part.identity.id != sealed.manifest.parts.get(name):
        raise UserError(f"{part.path}: is not the run that was trained with {sealed.path}; {MEND}")
    return part


def read_metrics(sealed: Sealed) -> dict[str, Figures]:
    """`metrics.json`: figures by part. Raises UserError where it is damaged."""
    return sealed.record(METRICS, MetricsRecord).root


def read_facts(sealed: Sealed) -> RunRecord:
    """`run.json` of a run of one fold. Raises UserError where it is damaged."""
    return sealed.record(RUN, RunRecord)


def read_meaning(sealed: Sealed) -> TargetMeaning | None:
    """What targets 1 and 0 are called in a run of any kind; None: an earlier version did not say.

    Raises UserError where its record is damaged.
    """
    one = open_networks(sealed)[0]
    record: MetadataRunRecord | TargetRecord
    if sealed.manifest.kind == METADATA:
        record = sealed.record(RUN, MetadataRunRecord)
    elif one.has(MODEL):
        record = one.record(MODEL, ModelRecord, VERSION).target
    else:
        return None
    return record.meaning if "meaning" in record.model_fields_set else None


def read_predictions(sealed: Sealed) -> pd.DataFrame:
    """PREDICTIONS of a run. Raises UserError where they are damaged or lack one of COLUMNS."""
    return sealed.table(PREDICTIONS, COLUMNS)


def prediction_rows(
    dataset: Dataset,
    rows: np.ndarray,
    part: str,
    probabilities: np.ndarray,
    target: Target,
    plain: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rows of predictions.parquet for one part.

    With `--target diagnosis` also the true diagnosis and a score of every class; with `plain` the
    column PLAIN_SCORE.

    Parameters
    ----------
    dataset, rows : the images that were scored, int64 [n]
    part : val, test or external/NAME
    probabilities : float64 [n, classes]
    target : what the classes are
    plain : float64 [n, classes], of the images as they are, where `probabilities` are over views
    """
    table = dataset.table.iloc[rows]
    columns = {
        "image_id": table["image_id"].to_numpy(),
        "group": table["group"].astype(str).to_numpy(),
        "fold": table["fold"].to_numpy(np.int64),
        "part": part,
        "target": table["target"].to_numpy(np.int64),
        "score": target.scores(probabilities),
    }
    if plain is not None:
        columns[PLAIN_SCORE] = target.scores(plain)
    if target.name == "diagnosis":
        columns["diagnosis"] = table["diagnosis"].to_numpy()
        for name, score in zip(target.classes, probabilities.T, strict=True):
            columns[f"score_{name}"] = score
    return pd.DataFrame(columns)
