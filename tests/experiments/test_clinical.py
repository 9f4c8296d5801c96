"""Rates at thresholds, of 1,000 lesions, predictive values, and pictures of mistakes."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import beta

from experiments.clinical import operating_points, outcome, write_mistakes
from experiments.compared import trial_predictions
from experiments.records import RateRecord

VAL = {"target": [1] * 4 + [0] * 20, "score": [0.8] * 4 + [0.2] * 20}  # any threshold at 0.8


def scored(part, fold, target, score, group=None):
    """Rows of predictions.parquet; an image's id has its part, fold and place."""
    names = [f"{part}{fold}-{place}" for place in range(len(target))]
    columns = {"image_id": names, "group": group or names, "fold": fold, "part": part}
    return pd.DataFrame(columns | {"target": target, "score": score})


def trial(arm, fold, seed, score, target, group=None, external=None):
    """One trial: validation as VAL, and its test scores."""
    parts = [scored("val", fold, **VAL), scored("test", fold, target, score, group)]
    if external is not None:
        parts.append(scored("external/x", 9, [1, 1, 0, 0], external))
    return arm, fold, seed, None, pd.concat(parts)


def at(records, arm, test_set="test", threshold="sensitivity_95"):
    """The record of an arm."""
    (found,) = (
        one
        for one in records
        if (one.arm, one.test_set, one.threshold) == (arm, test_set, threshold)
    )
    return found


def test_rates_are_means_of_single_models():
    target = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    first = [0.9, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1]  # 3 of 4, 5 of 6
    second = [0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]  # 1 of 4, 6 of 6
    trials = [trial("real", 0, seed, score, target) for seed, score in enumerate((first, second))]
    records = operating_points(trial_predictions(trials))
    assert [one.threshold for one in records] == ["specificity_95", "sensitivity_95", "youden"]
    found = at(records, "real")
    assert (found.n_models, found.n, found.n_malignant) == (2, 10, 4)
    assert (found.n_groups, found.n_malignant_groups) == (10, 4)
    assert found.sensitivity.value == pytest.approx(0.5)
    assert found.specificity.value == pytest.approx(11 / 12)
    assert found.sensitivity.low < 0.5 < found.sensitivity.high
    assert found.specificity.high <= 1


def test_folds_that_are_tested_in_turn_count_by_their_images():
    trials = [
        trial("real", 0, 0, [0.9, 0.1, 0.1], [1, 0, 0]),
        trial("real", 1, 0, [0.1, 0.1, 0.1, 0.9], [1, 1, 1, 0]),
    ]
    found = at(operating_points(trial_predictions(trials)), "real")
    assert (found.n_models, found.n, found.n_malignant) == (2, 7, 4)
    assert found.sensitivity.value == pytest.approx(1 / 4)
    assert found.specificity.value == pytest.approx(2 / 3)


def test_an_external_set_that_every_fold_scores_counts_once():
    trials = [
        trial("real", 0, 0, [0.9, 0.1], [1, 0], external=[0.9, 0.9, 0.1, 0.1]),
        trial("real", 1, 0, [0.9, 0.1], [1, 0], external=[0.1, 0.1, 0.9, 0.1]),
    ]
    found = at(operating_points(trial_predictions(trials)), "real", "external/x")
    assert (found.n_models, found.n, found.n_malignant) == (2, 4, 2)
    assert found.sensitivity.value == pytest.approx(0.5)
    assert found.specificity.value == pytest.approx(0.75)


def test_more_images_of_the_same_lesions_do_not_narrow_an_interval():
    target, score = [1] * 6 + [0] * 6, [0.9] * 3 + [0.1] * 9
    apart = trial("apart", 0, 0, score * 8, target * 8)
    lesions = [f"lesion {place}" for place in range(12)] * 8
    same = trial("same", 0, 0, score * 8, target * 8, lesions)
    widths = []
    for one in (apart, same):
        found = at(operating_points(trial_predictions([one])), one[0]).sensitivity
        widths.append(found.high - found.low)
    assert widths[1] > 2 * widths[0]


def test_without_a_threshold_there_are_no_rates():
    rows = pd.concat([scored("val", 0, [0, 0], [0.1, 0.2]), scored("test", 0, [1, 0], [0.9, 0.1])])
    assert operating_points(trial_predictions([("real", 0, 0, None, rows)])) == []


# --- of 1,000 lesions -----------------------------------------------------------------------------


def rate(value, low=None, high=None):
    """A share with its interval."""
    return RateRecord(value=value, low=low, high=high)


def test_of_a_thousand_lesions():
    came = outcome(rate(0.9, 0.8, 0.95), rate(0.8, 0.75, 0.84), 0.1)
    assert came.diseased == pytest.approx(100)
    assert came.found.value == pytest.approx(90)
    assert (came.found.low, came.found.high) == pytest.approx((80, 95))
    assert (came.missed.value, came.missed.low, came.missed.high) == pytest.approx((10, 5, 20))
    assert (came.needless.value, came.needless.low, came.needless.high) == pytest.approx(
        (180, 144, 225)
    )
    assert came.ppv.value == pytest.approx(90 / 270)
    assert came.npv.value == pytest.approx(720 / 730)
    assert came.ppv.low < 90 / 270 < came.ppv.high
    rare = outcome(rate(0.9, 0.8, 0.95), rate(0.8, 0.75, 0.84), 0.01)
    assert rare.ppv.value == pytest.approx(9 / (9 + 198))


def test_predictive_values_at_the_ends():
    never = outcome(rate(0.0, 0.0, 0.1), rate(1.0, 0.9, 1.0), 0.1)
    assert never.ppv.value is None  # nothing is called so
    perfect = outcome(rate(0.5, 0.3, 0.7), rate(1.0, 0.98, 1.0), 0.1)
    assert (perfect.ppv.value, perfect.ppv.high) == (1, 1)
    assert perfect.ppv.low == pytest.approx(0.03 / (0.03 + 0.018))
    unknown = outcome(rate(0.5), rate(0.9), 0.1)
    assert unknown.ppv.value == pytest.approx(0.05 / 0.14)
    assert unknown.ppv.low is None


def test_intervals_of_predictive_values_hold_the_truth():
    rng = np.random.default_rng(0)
    sizes, truth = (40, 200), (0.85, 0.9)
    hits = np.zeros(2)
    for _ in range(1000):
        rates = []
        for n, p in zip(sizes, truth, strict=True):
            k = rng.binomial(n, p)
            low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
            high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
            rates.append(rate(k / n, float(low), float(high)))
        came = outcome(*rates, 0.1)
        exact = outcome(rate(truth[0]), rate(truth[1]), 0.1)
        for at_, name in enumerate(("ppv", "npv")):
            found, true = getattr(came, name), getattr(exact, name).value
            hits[at_] += found.low <= true <= found.high
    assert (hits / 1000 > 0.94).all()


# --- mistakes -------------------------------------------------------------------------------------


def test_mistakes_are_one_a_lesion_with_their_diagnosis(tmp_path):
    target = [1, 1, 1, 0, 0]
    arm = [0.1, 0.1, 0.9, 0.9, 0.1]  # misses two shots of one lesion, one false alarm
    reference = [0.9, 0.1, 0.9, 0.1, 0.1]
    trials = [trial("synthetic", 0, seed, arm, target) for seed in (0, 1)]
    trials.append(trial("real", 0, 0, reference, target))
    predictions = trial_predictions(trials)
    table = pd.DataFrame(
        {
            "image_id": [f"test0-{place}" for place in range(5)],
            "lesion_id": ["a", "a", "b", None, None],
            "diagnosis": ["mel", "mel", "mel", "nv", None],
        }
    )
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((1, 8, 8, 3), 50, np.uint8)
    (tmp_path / "mistakes").mkdir()
    (tmp_path / "mistakes" / "07.jpg").write_bytes(b"of an earlier call")
    dataset = SimpleNamespace(table=table, images=images)
    found = write_mistakes(tmp_path, dataset, predictions, "synthetic", "real")
    assert [(one.image_id, one.target, one.diagnosis) for one in found] == [
        ("test0-0", 1, "mel"),
        ("test0-3", 0, "nv"),
    ]
    assert [(one.wrong, one.n_models) for one in found] == [(2, 2), (2, 2)]
    assert [(one.wrong_reference, one.n_models_reference) for one in found] == [(0, 1), (0, 1)]
    assert sorted(path.name for path in (tmp_path / "mistakes").iterdir()) == ["00.jpg", "01.jpg"]
    shown = np.asarray(Image.open(tmp_path / found[1].file)).mean()
    assert shown == pytest.approx(150, abs=3)
