"""Weighted metrics against scikit-learn and the ISIC challenge's own scoring."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isic_challenge_scoring import metrics as isic
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from classifier.evaluation.metrics import calibration_error as plain_calibration_error
from classifier.evaluation.metrics import partial_auc as plain_partial_auc
from experiments.statistics import metrics
from experiments.statistics.metrics import Ranked


@st.composite
def scored(draw_from):
    """Targets of both classes, coarse probabilities (many ties), whole weights."""
    n = draw_from(st.integers(2, 40))
    target = np.array(draw_from(st.lists(st.booleans(), min_size=n, max_size=n)))
    target[:2] = True, False
    score = np.array(draw_from(st.lists(st.integers(0, 6), min_size=n, max_size=n))) / 7
    weights = np.array(draw_from(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    weights[:2] += 1
    return target, score, weights


@settings(max_examples=40, deadline=None)
@given(scored())
def test_weighted_metrics_are_scikit_learns(case):
    target, score, weights = case
    ranked = Ranked.of(target, score, weights[None])
    expected = average_precision_score(target, score, sample_weight=weights)
    assert metrics.average_precision(ranked)[0] == pytest.approx(expected)
    max_fpr = 0.2  # classes swapped; scikit-learn scales as McClish, which is undone
    scaled = roc_auc_score(~target, -score, max_fpr=max_fpr, sample_weight=weights)
    chance = 0.5 * max_fpr**2
    expected = chance + (max_fpr - chance) * (2 * scaled - 1)
    assert metrics.partial_auc(ranked)[0] == pytest.approx(expected)
    expected = brier_score_loss(target, score, sample_weight=weights)
    assert metrics.brier(target, score, weights[None])[0] == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(scored())
def test_whole_weights_are_repeated_images(case):
    target, score, weights = case
    thresholds = {"specificity_95": 0.5, "sensitivity_95": 1 / 7, "youden": 3 / 7}
    repeated = [np.repeat(values, weights) for values in (target, score)]
    found = metrics.figures(target, score, thresholds, weights[None])
    expected = metrics.figures(*repeated, thresholds, np.ones((1, weights.sum())))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(scored())
def test_equal_weights_give_the_figures_of_the_classifiers_own_evaluation(case):
    target, score, _ = case
    ones = np.ones((1, len(target)))
    ranked = Ranked.of(target, score, ones)
    expected = plain_partial_auc(target.astype(int), score, 0.8)
    assert metrics.partial_auc(ranked)[0] == pytest.approx(expected)
    expected = plain_calibration_error(target, score)
    assert metrics.calibration_error(target, score, ones)[0] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_weighted_rates_are_those_of_the_isic_challenge(seed):
    rng = np.random.default_rng(seed)
    target, score = rng.random(50) < 0.3, rng.random(50)
    weights = rng.integers(1, 5, 50)
    called = score >= 0.5
    cells = {"TP": target & called, "FN": target & ~called, "TN": ~target & ~called}
    cells["FP"] = ~target & called
    cm = pd.Series({name: float(weights[cell].sum()) for name, cell in cells.items()})
    found = metrics.sensitivity(target, score, weights[None], 0.5)[0]
    assert found == pytest.approx(isic.binary_sensitivity(cm))
    found = metrics.specificity(target, score, weights[None], 0.5)[0]
    assert found == pytest.approx(isic.binary_specificity(cm))
    found = metrics.average_precision(Ranked.of(target, score, weights[None]))[0]
    series = [pd.Series(values.astype(float)) for values in (target, score, weights)]
    assert found == pytest.approx(isic.average_precision(*series))


def test_net_benefit_by_hand():
    """Of 10 images 2 of 3 malignant and 1 benign are called at 0.2: 2/10 - 1/10 * 0.2/0.8."""
    target = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], bool)
    score = np.array([0.9, 0.2, 0.1, 0.4, 0, 0, 0, 0, 0, 0])
    found = metrics.net_benefit(target, score, np.ones((1, 10)), 0.2)[0]
    assert found == pytest.approx(0.2 - 0.1 * 0.25)


def test_a_class_without_weight_is_nan():
    target, score = np.array([True, False, True]), np.array([0.2, 0.1, 0.9])
    found = metrics.figures(target, score, None, np.array([[1, 0, 1.0]]))
    by_name = dict(zip([metric.name for metric in metrics.metrics()], found[:, 0], strict=True))
    assert np.isnan(by_name["partial_auc_tpr80"])
    assert np.isnan(by_name["sensitivity_at_youden"])
    assert np.isfinite(by_name["brier"])
