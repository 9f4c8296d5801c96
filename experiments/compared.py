"""From the predictions of an experiment's trials to its comparisons and ROC curves.

Every trial scored its own fold's validation and test images, and all images of the external sets.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dermsynth.errors import UserError
from experiments import statistics
from experiments.records import PREDICTION_COLUMNS
from experiments.statistics.comparison import Row
from experiments.statistics.curves import mean_roc
from experiments.statistics.resamples import Resamples
from experiments.statistics.trainings import Images, Key, Trainings, pair_up, trainings_of

VALIDATION = "val"
ALIKE = ["image_id", "target", "group"]


@dataclass(frozen=True)
class FoldScores:
    """What the models of one fold say of one set of images."""

    fold: int
    rows: pd.DataFrame  # image_id, target, group of each image, sorted by image_id
    images: Images | None  # None: one class only; folds of the same rows share the object
    arms: dict[str, tuple[list[Key], np.ndarray]]  # keys and scores float64 [models, n]


def trial_predictions(
    trials: Iterable[tuple[str, int, int, int | None, pd.DataFrame]],
) -> pd.DataFrame:
    """Scores of all trials, PREDICTION_COLUMNS: one row an image and trial.

    `trials`: arm, fold, seed, GAN seed (None: no generator) and the rows of predictions.parquet.
    """
    frames = []
    for arm, fold, seed, gan_seed, rows in trials:
        frame = rows.rename(columns={"part": "test_set"})
        frame = frame.assign(arm=arm, fold=fold, seed=seed, gan_seed=gan_seed)
        frames.append(frame[list(PREDICTION_COLUMNS)].astype({"gan_seed": "Int64"}))
    if not frames:
        return pd.DataFrame(columns=list(PREDICTION_COLUMNS)).astype({"gan_seed": "Int64"})
    return pd.concat(frames, ignore_index=True)


def check_alike(predictions: pd.DataFrame) -> None:
    """Every trial of a fold was tested on the same images with the same targets and groups.

    So were all trials on an external set, whatever their fold; and no image is tested in two folds.
    Raises UserError that names two trials that were not: their difference would mean nothing.
    """
    for test_set, part in predictions.groupby("test_set", sort=False):
        external = str(test_set).startswith("external/")
        firsts: dict[int, tuple[str, pd.DataFrame]] = {}
        trials = part.groupby(["arm", "fold", "seed", "gan_seed"], dropna=False)
        for (arm, fold, seed, gan_seed), trial in trials:
            rows = trial[ALIKE].sort_values("image_id").reset_index(drop=True)
            generator = "" if pd.isna(gan_seed) else f", gan {gan_seed}"
            name = f"arm {arm}, fold {fold}, seed {seed}{generator}"
            if rows["image_id"].duplicated().any():
                raise UserError(f"{name}: an image of {test_set} was scored twice")
            before, first = firsts.setdefault(0 if external else fold, (name, rows))
            if not rows.equals(first):
                differ = [
                    column for column in ALIKE if rows[column].tolist() != first[column].tolist()
                ]
                raise UserError(
                    f"{name} and {before} were not tested on the same {test_set}: other "
                    f"{', '.join(differ)}. Remove the older trial's folder, then --resume"
                )
        if test_set == "test":
            _check_apart(firsts)


def _check_apart(firsts: Mapping[int, tuple[str, pd.DataFrame]]) -> None:
    """No image and no group is tested in two folds."""
    rows = pd.concat(table.assign(fold=fold) for fold, (_, table) in firsts.items())
    for column in ("image_id", "group"):
        folds = rows.groupby(column)["fold"].nunique()
        if (folds > 1).any():
            name = folds.index[folds > 1][0]
            raise UserError(
                f"{column} {name} is in the test parts of two folds; every image is tested once: "
                "prepare the dataset again"
            )


def scores_by_fold(predictions: pd.DataFrame, test_set: str) -> list[FoldScores]:
    """Scores on one test set, fold by fold.

    Raises UserError where a score is not a finite number.
    """
    part = predictions[predictions["test_set"] == test_set]
    if (bad := ~np.isfinite(part["score"].to_numpy(np.float64))).any():
        raise UserError(f"{int(bad.sum())} scores of {test_set} are not finite; train again")
    known: list[FoldScores] = []
    for fold, rows in part.groupby("fold", sort=True):
        arms: dict[str, tuple[list[Key], list[np.ndarray]]] = {}
        first: pd.DataFrame | None = None
        for (arm, gan_seed, seed), trial in rows.groupby(
            ["arm", "gan_seed", "seed"], dropna=False, sort=True
        ):
            ordered = trial.sort_values("image_id")
            first = ordered if first is None else first
            keys, scores = arms.setdefault(str(arm), ([], []))
            keys.append((int(seed), None if pd.isna(gan_seed) else int(gan_seed)))
            scores.append(ordered["score"].to_numpy(np.float64))
        assert first is not None
        table = first[ALIKE].reset_index(drop=True)
        stacked = {arm: (keys, np.array(scores)) for arm, (keys, scores) in arms.items()}
        images = _images(table, known, test_set)
        known.append(FoldScores(int(fold), table, images, stacked))
    return known


def _images(table: pd.DataFrame, known: Sequence[FoldScores], test_set: str) -> Images | None:
    """The images of a fold: those of another fold where they are the same."""
    same = next((fold.images for fold in known if fold.rows.equals(table)), None)
    if same is not None or table["target"].nunique() < 2:
        return same
    return Images.of(table["target"].to_numpy(), table["group"].to_numpy(), test_set)


def sets_of(predictions: pd.DataFrame) -> list[str]:
    """`test`, then the external sets as they come."""
    names = [str(name) for name in predictions["test_set"].unique() if name != VALIDATION]
    return sorted(names, key=lambda name: name != "test")


def compare_arms(
    predictions: pd.DataFrame,
    comparisons: Sequence[Sequence[str]],
    planned: pd.DataFrame,
    pooled: set[str],
    margin: float,
    replicates: int,
) -> list[Row]:
    """The configured pairs on the test part, then on every external set: comparisons.json.

    Parameters
    ----------
    predictions : PREDICTION_COLUMNS of the finished trials
    comparisons : [arm, reference] pairs, the primary one first
    planned : arm, fold, seed, gan_seed (nullable) of every trial, also of failed ones
    pooled : arms that train on synthetic images
    margin : AUC, fixed beforehand
    replicates : of the group bootstrap
    """
    compared = []
    resamples = Resamples(replicates)
    for test_set in sets_of(predictions):
        folds = scores_by_fold(predictions, test_set)
        for arm, reference in comparisons:
            pairs = paired_folds(folds, arm, reference)
            counts = planned_pairs(planned, arm, reference)
            there = {fold.fold: len(fold.pairs) for fold in pairs}
            compared.append(
                statistics.difference(
                    statistics.Names(arm, reference, test_set),
                    pairs,
                    bool({arm, reference} & pooled),
                    margin,
                    resamples,
                    sum(counts.values()) - sum(there.values()),
                    sorted(set(counts) - set(there)),
                )
            )
    return statistics.finish(compared)


def paired_folds(folds: Sequence[FoldScores], arm: str, reference: str) -> list[Trainings]:
    """Trainings of an arm beside those of its reference, of the folds that have both and an AUC."""
    nothing: tuple[list[Key], np.ndarray] = ([], np.empty((0, 0)))
    pairs = [
        trainings_of(
            fold.fold, fold.images, fold.arms.get(arm, nothing), fold.arms.get(reference, nothing)
        )
        for fold in folds
        if fold.images is not None
    ]
    return [fold for fold in pairs if fold is not None]


def planned_pairs(planned: pd.DataFrame, arm: str, reference: str) -> dict[int, int]:
    """How many pairs of trainings each fold was to have."""

    def keys(name: str, fold: int) -> list[Key]:
        rows = planned[(planned["arm"] == name) & (planned["fold"] == fold)]
        gans = [None if pd.isna(gan) else int(gan) for gan in rows["gan_seed"]]
        return list(zip(rows["seed"].astype(int), gans, strict=True))

    folds = [int(fold) for fold in planned["fold"].unique()]
    return {fold: len(pair_up(keys(arm, fold), keys(reference, fold))) for fold in folds}


def roc_bands(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Mean ROC curve of each arm's single models with its band, by test set and arm."""
    bands: dict[str, dict[str, Any]] = {}
    for test_set in sets_of(predictions):
        folds = [fold for fold in scores_by_fold(predictions, test_set) if fold.images is not None]
        for arm in dict.fromkeys(name for fold in folds for name in fold.arms):
            curves = [
                (fold.images, fold.arms[arm][1])
                for fold in folds
                if fold.images is not None and arm in fold.arms
            ]
            bands.setdefault(test_set, {})[arm] = mean_roc(curves)
    return bands
