"""What the folder of a classifier's run holds: its files, whether it is finished, its folds."""

from pathlib import Path

import numpy as np
import pandas as pd

from classifier.targets import Target
from data.store import Dataset
from dermsynth.errors import UserError, some

MODEL, METRICS, RUN = "model.safetensors", "metrics.json", "run.json"
PREDICTIONS = "predictions.parquet"
COLUMNS = ("image_id", "group", "fold", "part", "target", "score")  # of PREDICTIONS, at least
VALIDATION = ("val", "oof")  # its part that models are not trained on; oof: out of fold, of all


def check_finished(run: Path) -> None:
    """Raises UserError where `run` is not the folder of a finished run."""
    if not (run / METRICS).exists():
        raise UserError(
            f"--run {run}: no finished run of classifier.train there (no {METRICS}); train one, or "
            f"go on with `python -m classifier.train --out {run} --resume`"
        )


def fold_runs(run: Path) -> dict[int, Path]:
    """The folders of a run with `--fold all`, by fold; none of another run."""
    named = ((path.name.removeprefix("fold"), path) for path in run.glob("fold*"))
    return dict(sorted((int(number), path) for number, path in named if number.isdecimal()))


def read_predictions(path: Path) -> pd.DataFrame:
    """PREDICTIONS of a run. Raises UserError where they are damaged or lack one of COLUMNS."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: missing or damaged, cannot be read as predictions of a run ({reason}); train "
            "it again"
        ) from None
    if missing := [name for name in COLUMNS if name not in table]:
        raise UserError(f"{path}: no column {some(missing)}; train the run again")
    return table


def prediction_rows(
    dataset: Dataset, rows: np.ndarray, part: str, probabilities: np.ndarray, target: Target
) -> pd.DataFrame:
    """Rows of predictions.parquet for one part.

    With `--target diagnosis` also the true diagnosis and a score of every class.

    Parameters
    ----------
    dataset, rows : the images that were scored, int64 [n]
    part : val, test or external/NAME
    probabilities : float64 [n, classes]
    target : what the classes are
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
    if target.name == "diagnosis":
        columns["diagnosis"] = table["diagnosis"].to_numpy()
        for name, score in zip(target.classes, probabilities.T, strict=True):
            columns[f"score_{name}"] = score
    return pd.DataFrame(columns)
