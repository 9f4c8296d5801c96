import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from classifier.evaluation.metrics import (
    best_threshold,
    calibration_error,
    measure,
    measure_scores,
    partial_auc,
)

KEYS = {
    *("auc", "average_precision", "balanced_accuracy", "sensitivity_at_95_specificity"),
    *("specificity_at_95_sensitivity", "partial_auc_tpr80", "brier", "ece", "n", "n_malignant"),
    *("accuracy", "accuracy_at_threshold", "log_loss", "threshold"),
}


def sample(n=400, seed=0, gap=1.0):
    rng = np.random.default_rng(seed)
    targets = (rng.random(n) < 0.3).astype(int)
    return targets, 1 / (1 + np.exp(-(rng.normal(size=n) + gap * targets - 1)))


def test_against_scikit_learn():
    targets, scores = sample()
    found = measure_scores(targets, scores, 0.4)
    assert set(found) == KEYS
    assert found["auc"] == pytest.approx(sk.roc_auc_score(targets, scores))
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(targets, scores))
    assert found["brier"] == pytest.approx(np.mean((scores - targets) ** 2))
    sensitivity = (scores[targets == 1] >= 0.4).mean()
    specificity = (scores[targets == 0] < 0.4).mean()
    assert found["balanced_accuracy"] == pytest.approx((sensitivity + specificity) / 2)
    assert found["accuracy"] == sk.accuracy_score(targets, scores >= 0.5)
    assert found["accuracy_at_threshold"] == sk.accuracy_score(targets, scores >= 0.4)
    assert found["log_loss"] == pytest.approx(sk.log_loss(targets, scores))
    assert (found["n"], found["n_malignant"]) == (400, targets.sum())


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(5, 60))
def test_operating_points_against_every_threshold(seed, n):
    rng = np.random.default_rng(seed)
    targets = np.r_[1, 0, rng.integers(0, 2, n)]
    scores = rng.integers(0, 12, n + 2) / 12  # with ties
    points = []
    for threshold in [*np.unique(scores), 2.0]:
        called = scores >= threshold
        points.append((called[targets == 1].mean(), 1 - called[targets == 0].mean()))
    found = measure_scores(targets, scores, 0.5)
    best = max(sens for sens, spec in points if spec >= 0.95 - 1e-12)
    assert found["sensitivity_at_95_specificity"] == pytest.approx(best)
    best = max(spec for sens, spec in points if sens >= 0.95 - 1e-12)
    assert found["specificity_at_95_sensitivity"] == pytest.approx(best)


def area_above(targets, scores, min_tpr):
    """The same area by brute force: a fine grid over the ROC curve's polygon."""
    fpr, tpr, _ = sk.roc_curve(targets, scores, drop_intermediate=False)
    heights = np.linspace(min_tpr, 1, 20001)
    # for each sensitivity the specificity at which the polygon reaches it
    return np.mean(1 - np.interp(heights, tpr, fpr)) * (1 - min_tpr)


def test_partial_auc():
    targets, scores = sample(seed=3)
    scores += np.arange(len(scores)) * 1e-9  # no ties, no vertical ambiguity
    assert partial_auc(targets, scores, 0.8) == pytest.approx(
        area_above(targets, scores, 0.8), abs=1e-3
    )
    assert partial_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), 0.8) == (
        pytest.approx(0.2)
    )
    assert partial_auc(targets, np.ones(len(targets)), 0.8) == pytest.approx(0.02)


def test_calibration_error_known_answers():
    assert calibration_error(np.array([0, 1, 0, 1]), np.full(4, 0.5)) == 0
    assert calibration_error(np.array([1, 1]), np.array([0.25, 0.25])) == pytest.approx(0.75)
    targets, scores = np.array([1, 0, 0, 1]), np.array([1.0, 1.0, 0.0, 0.0])
    assert calibration_error(targets, scores) == pytest.approx(0.5)


def test_undefined_is_none_and_never_nan():
    for targets in (np.zeros(5, int), np.ones(5, int), np.zeros(0, int)):
        found = measure_scores(targets, np.linspace(0.1, 0.9, len(targets)), 0.5)
        assert found["auc"] is None
        assert found["partial_auc_tpr80"] is None
        assert set(found) == KEYS
        assert (found["brier"] is None) == (found["accuracy"] is None) == (len(targets) == 0)
        assert all(value is None or np.isfinite(value) for value in found.values())


def test_best_threshold_separates():
    assert best_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.6, 0.9])) == 0.6


def test_single_views_beside_their_means():
    targets, scores = sample()
    rows = pd.DataFrame({"target": targets, "score": scores})
    assert "auc_single_view" not in measure(rows, 0.5)
    found = measure(rows.assign(plain_score=1 - scores), 0.5)
    assert found["auc_single_view"] == pytest.approx(1 - sk.roc_auc_score(targets, scores))
