"""What an arm means for patients: rates at a threshold, of 1,000 lesions, and its mistakes.

Every model chose its threshold on validation images of its own fold. Intervals resample patients
or lesions and hold for these trained models.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from classifier.evaluation.intervals import Freedom, Resampling, Scored, figure, resample
from data.grouping import known
from data.store import Dataset
from dermsynth.files import write_bytes
from dermsynth.records import Record
from experiments.compared import VALIDATION, FoldScores, scores_by_fold, sets_of
from experiments.metric_differences import Models, calibrated
from experiments.records import MistakeRecord, OperatingRecord, RateRecord
from experiments.statistics.metrics import THRESHOLDS

RESAMPLING = Resampling(2000, 0)
SENSITIVE = "sensitivity_95"  # the threshold that mistakes are looked at
SHOWN = 8  # mistakes of a kind
FOLDER = "mistakes"
PREVALENCES = (0.01, 0.1)  # beside that of the test images
THOUSAND = 1000


# --- rates of an arm ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Called:
    """Images of one test set, each once, with the share of an arm's models that call it 1."""

    rows: pd.DataFrame  # image_id, target, group
    share: np.ndarray  # float64 [n]
    models: np.ndarray  # int64 [n], models that saw the image


def operating_points(predictions: pd.DataFrame) -> list[OperatingRecord]:
    """Sensitivity and specificity of every arm on every test set at each of THRESHOLDS.

    Means of single models, over all folds. Left out where validation has one class only, so that
    no threshold could be chosen. `predictions`: PREDICTION_COLUMNS, those of validation included.
    """
    validation = {fold.fold: fold for fold in scores_by_fold(predictions, VALIDATION)}
    records = []
    for test_set in sets_of(predictions):
        folds = scores_by_fold(predictions, test_set)
        models = calibrated(folds, validation)
        for arm in dict.fromkeys(name for fold in folds for name in fold.arms):
            for threshold in THRESHOLDS:
                called = _called(folds, models, arm, threshold)
                if called is not None:
                    n_models = sum(len(models.get((fold.fold, arm), [])) for fold in folds)
                    records.append(_operating(called, (arm, test_set, threshold), n_models))
    return records


def _called(
    folds: Sequence[FoldScores], models: Models, arm: str, threshold: str
) -> _Called | None:
    """What an arm's models call each image; None where one of them has no threshold."""
    parts = []
    for fold in folds:
        own = models.get((fold.fold, arm), [])
        if not own:
            continue
        if any(model.thresholds is None for model in own):
            return None
        calls = [m.probability >= m.thresholds[threshold] for m in own if m.thresholds is not None]
        parts.append(fold.rows.assign(share=np.mean(calls, axis=0), models=len(own)))
    if not parts:
        return None
    rules = {"target": "first", "group": "first", "share": "mean", "models": "sum"}
    rows = pd.concat(parts).groupby("image_id", sort=True).agg(rules).reset_index()
    return _Called(rows, rows["share"].to_numpy(float), rows["models"].to_numpy(np.int64))


def _operating(called: _Called, names: tuple[str, str, str], n_models: int) -> OperatingRecord:
    target = called.rows["target"].to_numpy()
    rows = Scored.of(target, called.share, called.rows["group"].to_numpy())
    columns = [called.share * rows.target, rows.target, (1 - called.share) * ~rows.target]
    sums = rows.group_sums(np.stack([*columns, ~rows.target], 1).astype(float))

    def rates(weights: np.ndarray) -> np.ndarray:
        hit, malignant, passed, benign = (weights @ sums).T
        with np.errstate(invalid="ignore"):
            return np.stack([hit / malignant, passed / benign], 1)

    values, drawn = resample(rows, rates, RESAMPLING)
    freedom = Freedom.of(rows)
    behind = [(freedom.malignant, freedom.n_malignant), (freedom.benign, freedom.n_benign)]
    found = [
        RateRecord(**figure(float(values[at]), drawn[:, at], df, groups=groups))
        for at, (df, groups) in enumerate(behind)
    ]
    arm, test_set, threshold = names
    return OperatingRecord(
        arm=arm,
        test_set=test_set,
        threshold=threshold,
        n_models=n_models,
        n=len(target),
        n_malignant=int(rows.target.sum()),
        n_groups=rows.n_groups,
        n_malignant_groups=freedom.n_malignant,
        sensitivity=found[0],
        specificity=found[1],
    )


# --- of 1,000 lesions -----------------------------------------------------------------------------


class Outcome(Record):
    """What 1,000 lesions at a prevalence come to; rates with their 95% intervals."""

    prevalence: float
    diseased: float  # lesions of target 1 among 1,000
    found: RateRecord  # of them, lesions
    missed: RateRecord
    needless: RateRecord  # lesions of target 0 that are called 1
    ppv: RateRecord
    npv: RateRecord


def outcome(sensitivity: RateRecord, specificity: RateRecord, prevalence: float) -> Outcome:
    """Sensitivity and specificity as counts of lesions, with predictive values.

    Predictive values follow Bayes; their intervals combine those of both rates on the scale of the
    log likelihood ratio by MOVER (Zou and Donner 2008), which needs no symmetric interval.
    `prevalence`: 0 to 1, exclusive.
    """
    diseased, healthy = THOUSAND * prevalence, THOUSAND * (1 - prevalence)
    false = _flipped(specificity)
    odds = prevalence / (1 - prevalence)
    return Outcome(
        prevalence=prevalence,
        diseased=diseased,
        found=_times(sensitivity, diseased),
        missed=_times(_flipped(sensitivity), diseased),
        needless=_times(false, healthy),
        ppv=_predictive(sensitivity, false, odds),
        npv=_predictive(specificity, _flipped(sensitivity), 1 / odds),
    )


def _flipped(rate: RateRecord) -> RateRecord:
    value, low, high = (None if x is None else 1 - x for x in (rate.value, rate.high, rate.low))
    return RateRecord(value=value, low=low, high=high)


def _times(rate: RateRecord, count: float) -> RateRecord:
    value, low, high = (None if x is None else x * count for x in (rate.value, rate.low, rate.high))
    return RateRecord(value=value, low=low, high=high)


def _predictive(right: RateRecord, wrong: RateRecord, odds: float) -> RateRecord:
    """`right * odds / (right * odds + wrong)`: the share of calls that are right."""
    if right.value is None or wrong.value is None or right.value + wrong.value == 0:
        return RateRecord(value=None)  # nothing is called so
    value = right.value * odds / (right.value * odds + wrong.value)
    ends = (right.low, right.high, wrong.low, wrong.high)
    if any(end is None for end in ends):
        return RateRecord(value=value)
    low, high, wrong_low, wrong_high = (float(end or 0) for end in ends)
    return RateRecord(
        value=value,
        low=_end(right.value, low, wrong.value, wrong_high, odds, below=True),
        high=_end(right.value, high, wrong.value, wrong_low, odds, below=False),
    )


def _end(
    right: float, right_end: float, wrong: float, wrong_end: float, odds: float, below: bool
) -> float:
    """An end of the interval of a predictive value; a rate of 0 takes both ends at their worst."""
    if right_end == 0 or wrong_end == 0:
        return 0.0 if below else 1.0
    if right == 0 or wrong == 0:
        ratio = math.log(right_end / wrong_end)
    else:
        reach = math.hypot(math.log(right / right_end), math.log(wrong / wrong_end))
        ratio = math.log(right / wrong) + (-reach if below else reach)
    return 1 / (1 + math.exp(-ratio) / odds)


# --- mistakes -------------------------------------------------------------------------------------


def write_mistakes(
    out: Path, dataset: Dataset, predictions: pd.DataFrame, arm: str, reference: str
) -> list[MistakeRecord]:
    """Pictures of test images that most models of `arm` call wrongly, SHOWN of either kind at most.

    One a lesion (by its id, else by its group), the worst first: those that most models miss, then
    those that most call 1 without need. Files of an earlier call are removed.
    """
    for old in (out / FOLDER).glob("*.jpg"):
        old.unlink()
    validation = {fold.fold: fold for fold in scores_by_fold(predictions, VALIDATION)}
    folds = scores_by_fold(predictions, "test")
    models = calibrated(folds, validation)
    both = [_called(folds, models, name, SENSITIVE) for name in (arm, reference)]
    if both[0] is None or both[1] is None:
        return []
    table = _wrongly_called(both[0], both[1]).merge(
        dataset.table.assign(place=range(len(dataset.table)))[
            ["image_id", "lesion_id", "diagnosis", "place"]
        ],
        on="image_id",
    )
    table["lesion"] = table["lesion_id"].where(known(table["lesion_id"]), table["group"])
    worst = table.sort_values(["share_wrong", "image_id"], ascending=[False, True])
    records: list[MistakeRecord] = []
    for target in (1, 0):
        chosen = worst[(worst["target"] == target) & (worst["share_wrong"] > 0.5)]
        for row in chosen.drop_duplicates("lesion").head(SHOWN).to_dict("records"):
            file = f"{FOLDER}/{len(records):02d}.jpg"
            _save(out / file, dataset.images[row["place"]])
            records.append(_mistake(row, file))
    return records


def _wrongly_called(arm: _Called, reference: _Called) -> pd.DataFrame:
    """image_id, target, group, and of both arms how many models call the image wrongly."""
    table = arm.rows[["image_id", "target", "group"]].copy()
    target = table["target"].to_numpy() == 1
    wrong = np.where(target, 1 - arm.share, arm.share)
    table["share_wrong"], table["n_models"] = wrong, arm.models
    table["wrong"] = np.round(wrong * arm.models).astype(int)
    other = reference.rows.set_index("image_id").loc[table["image_id"]]
    shares = other["share"].to_numpy(float)
    table["n_models_reference"] = other["models"].to_numpy()
    rate = np.where(target, 1 - shares, shares)
    table["wrong_reference"] = np.round(rate * table["n_models_reference"]).astype(int)
    return table


def _mistake(row: Mapping[str, object], file: str) -> MistakeRecord:
    named = {key: int(str(row[key])) for key in ("target", "wrong", "n_models")}
    named |= {key: int(str(row[key])) for key in ("wrong_reference", "n_models_reference")}
    diagnosis = row["diagnosis"]
    known = isinstance(diagnosis, str) and diagnosis not in ("", "nan")
    return MistakeRecord(
        file=file,
        image_id=str(row["image_id"]),
        diagnosis=str(diagnosis) if known else None,
        **named,
    )


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    content = io.BytesIO()
    picture = Image.fromarray(image)
    picture.thumbnail((160, 160))
    picture.save(content, "jpeg", quality=90)
    write_bytes(path, content.getvalue())
