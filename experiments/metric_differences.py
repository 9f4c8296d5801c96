"""Differences of the arms in what an AUC does not say, and between subgroups of patients.

Scores are calibrated and thresholds chosen for each training on its own fold's validation images.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from classifier.evaluation.calibration import fit_temperature, scale
from classifier.evaluation.operating_points import choose_thresholds
from classifier.evaluation.subgroups import LEAST_GROUPS, UNKNOWN, angles, labels
from data.store import Dataset
from experiments.compared import VALIDATION, FoldScores, paired_folds, scores_by_fold, sets_of
from experiments.records import MetricRecord, NetBenefitRecord, PairedRecord, SubgroupRecord
from experiments.statistics.comparison import FEW_GROUPS, Row
from experiments.statistics.intervals import Spread
from experiments.statistics.metrics import NET_BENEFIT_AT, net_benefit
from experiments.statistics.paired import Judged, Model, Paired, paired_metrics
from experiments.statistics.resamples import Resamples
from experiments.statistics.trainings import Images, Trainings
from experiments.statistics.variance import estimate

REPLICATES = 200  # of metrics: their spread over groups is needed, not its tails
SUBGROUP_REPLICATES = 1000
ALPHA = 0.05

Models = dict[tuple[int, str], list[Model]]  # by fold and arm, in the order of its scores


def metric_differences(
    predictions: pd.DataFrame, comparisons: Sequence[Row], subgroups: pd.DataFrame
) -> list[PairedRecord]:
    """What paired.json holds: every comparison that has an AUC difference, in order.

    Parameters
    ----------
    predictions : of finished trials, those of validation images included
    comparisons : rows of comparisons.json
    subgroups : by image_id, a column a variable with each image's subgroup; of test images. Only
        the first comparison is looked at by subgroup
    """
    judged = Judged(REPLICATES)
    validation = {fold.fold: fold for fold in scores_by_fold(predictions, VALIDATION)}
    records = []
    for test_set in sets_of(predictions):
        folds = scores_by_fold(predictions, test_set)
        models = calibrated(folds, validation)
        for row in comparisons:
            if row["test_set"] != test_set or row["delta_auc"] is None:
                continue
            pairs = paired_folds(folds, row["arm"], row["reference"])
            of_folds = [
                (models[fold.fold, row["arm"]], models[fold.fold, row["reference"]])
                for fold in pairs
            ]
            found = paired_metrics(
                pairs, of_folds, row["scope"] == "method", row["df_groups"], judged
            )
            by_subgroup = []
            if row is comparisons[0]:
                ids = {fold.fold: fold.rows["image_id"] for fold in folds}
                by_subgroup = _by_subgroup(pairs, ids, subgroups, row["scope"] == "method")
            records.append(_record(row, pairs, found, by_subgroup))
    return records


def calibrated(folds: Sequence[FoldScores], validation: dict[int, FoldScores]) -> Models:
    """Every model's probabilities after temperature scaling, and its thresholds.

    Where validation has one class only, scores stay as they are, without thresholds.
    """
    models: Models = {}
    for fold in folds:
        chosen_on = validation.get(fold.fold)
        for arm, (keys, scores) in fold.arms.items():
            models[fold.fold, arm] = []
            for key, score in zip(keys, scores, strict=True):
                if chosen_on is None or chosen_on.images is None:
                    models[fold.fold, arm].append(Model(score, None))
                    continue
                own_keys, own_scores = chosen_on.arms[arm]
                target, own = chosen_on.images.target, own_scores[own_keys.index(key)]
                temperature = fit_temperature(target, own) or 1.0
                thresholds = choose_thresholds(target, scale(own, temperature))
                models[fold.fold, arm].append(Model(scale(score, temperature), thresholds))
    return models


def _record(
    row: Row, folds: Sequence[Trainings], found: list[Paired], by_subgroup: list[SubgroupRecord]
) -> PairedRecord:
    prefix = "net_benefit_"
    benefits = [each for each in found if each.name.startswith(prefix)]
    return PairedRecord(
        arm=row["arm"],
        reference=row["reference"],
        test_set=row["test_set"],
        replicates=REPLICATES,
        metrics=[_figures(each) for each in found if not each.name.startswith(prefix)],
        decision_curve=[
            NetBenefitRecord(
                threshold=at, treat_all=_treat_all(folds, at), **_figures(each).model_dump()
            )
            for at, each in zip(NET_BENEFIT_AT, benefits, strict=True)
        ],
        subgroups=by_subgroup,
    )


def _figures(found: Paired) -> MetricRecord:
    return MetricRecord(
        name=found.name,
        arm=found.arm,
        reference=found.reference,
        delta=found.delta,
        ci_low=found.low,
        ci_high=found.high,
    )


def _treat_all(folds: Sequence[Trainings], threshold: float) -> float:
    """Net benefit of calling every image malignant, averaged over folds by their images."""
    sizes = np.array([len(fold.images.target) for fold in folds], np.float64)
    values = [
        float(net_benefit(target, np.ones(len(target)), np.ones((1, len(target))), threshold)[0])
        for target in (fold.images.target for fold in folds)
    ]
    return float(np.average(values, weights=sizes))


# --- subgroups ------------------------------------------------------------------------------------


def subgroups_of(dataset: Dataset, predictions: pd.DataFrame) -> pd.DataFrame:
    """Subgroups of the test images by image_id, a column a variable that the dataset knows of."""
    tested = predictions.loc[predictions["test_set"] == "test", "image_id"].unique()
    rows = np.flatnonzero(dataset.table["image_id"].isin(tested))
    table = dataset.table.iloc[rows]
    named = labels(table, angles(dataset.images, rows))
    known = {name: words for name, words in named.items() if set(words) != {UNKNOWN}}
    return pd.DataFrame(known, index=pd.Index(table["image_id"], name="image_id"))


def _by_subgroup(
    folds: Sequence[Trainings],
    ids: dict[int, pd.Series],
    subgroups: pd.DataFrame,
    count_gans: bool,
) -> list[SubgroupRecord]:
    """AUC differences among the images of each subgroup; `ids`: image_ids of each fold's rows."""
    records = []
    for variable in subgroups.columns:
        names = [subgroups[variable].loc[ids[fold.fold]].to_numpy() for fold in folds]
        for name in sorted(set(np.concatenate(names))):
            masks = [of_fold == name for of_fold in names]
            records.append(_subgroup(variable, str(name), folds, masks, count_gans))
    return records


def _subgroup(
    variable: str,
    name: str,
    folds: Sequence[Trainings],
    masks: Sequence[np.ndarray],
    count_gans: bool,
) -> SubgroupRecord:
    """One subgroup, without folds where it lacks a class; without an AUC where groups are few."""
    parts = [
        part
        for fold, mask in zip(folds, masks, strict=True)
        if (part := _take(fold, mask)) is not None
    ]
    malignant = sum(len(part.images.groups.m) for part in parts)
    benign = sum(len(part.images.groups.n) for part in parts)
    n_malignant = sum(
        int(fold.images.target[mask].sum()) for fold, mask in zip(folds, masks, strict=True)
    )
    record = SubgroupRecord(
        variable=variable,
        name=name,
        n=int(sum(mask.sum() for mask in masks)),
        n_malignant=n_malignant,
        n_malignant_groups=malignant,
        folds_left_out=len(folds) - len(parts),
        few=min(malignant, benign) < FEW_GROUPS,
    )
    if min(malignant, benign) < LEAST_GROUPS:
        return record
    found = estimate(parts, count_gans)
    low, high = None, None
    if found.variance.seeds is not None and found.variance.groups.df > 0:
        drawn = Resamples(SUBGROUP_REPLICATES).differences(parts)
        low, high = Spread.of(found, drawn).interval(ALPHA)
    return record.model_copy(
        update={
            "auc_arm": found.auc_arm,
            "auc_reference": found.auc_reference,
            "delta_auc": found.delta,
            "ci_low": low,
            "ci_high": high,
        }
    )


def _take(fold: Trainings, mask: np.ndarray) -> Trainings | None:
    """Some of a fold's images; None where a class is missing among them."""
    target = fold.images.target[mask]
    if target.all() or not target.any():
        return None
    images = Images.of(target, fold.images.group[mask], "subgroup")
    return Trainings(
        fold.fold,
        images,
        fold.arm[:, mask],
        fold.reference[:, mask],
        fold.pairs,
        fold.seed,
        fold.gan,
    )
