"""AUC, DeLong, ROC bands and group variance against independent references."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from MLstatkit import Delong_test
from simulated import draw, sample
from sklearn.metrics import roc_auc_score, roc_curve

from dermsynth.group_bootstrap import clustered, count_pairs, estimates, interval
from experiments import statistics
from experiments.statistics.curves import mean_roc
from experiments.statistics.trainings import Images


@st.composite
def scored(draw_from):
    """Targets of both classes, coarse scores (many ties), whole weights with both classes."""
    n = draw_from(st.integers(2, 40))
    target = np.array(draw_from(st.lists(st.booleans(), min_size=n, max_size=n)))
    target[:2] = True, False
    score = np.array(draw_from(st.lists(st.integers(0, 6), min_size=n, max_size=n))) / 7
    weights = draw_from(st.lists(st.lists(st.integers(0, 3), min_size=n, max_size=n), min_size=1))
    weights = np.array(weights)
    weights[:, :2] += 1
    return target, score, weights


# --- AUC and DeLong -------------------------------------------------------------------------------


def pairs_of(drawn, group=None):
    group = drawn.group if group is None else group
    return count_pairs(drawn.target, group, drawn.a[None])


@given(scored())
def test_auc_equals_scikit_learn_with_ties(case):
    target, score, _ = case
    assert statistics.auc(target, score) == pytest.approx(roc_auc_score(target, score))


@pytest.mark.parametrize("rounding", [1, 8])
@pytest.mark.parametrize("seed", range(5))
def test_delong_equals_mlstatkit(seed, rounding):
    drawn = sample(seed, delta=0.03)
    a, b = drawn.a.round(rounding), drawn.b.round(rounding)
    z, p, *_ = Delong_test(drawn.target, a, b)
    delta, se, own_p = statistics.delong_test(drawn.target, a, b)
    assert own_p == pytest.approx(float(p), abs=1e-9)
    assert -delta / se == pytest.approx(float(z))  # MLstatkit subtracts the other way round


def test_delong_without_difference_or_with_too_few_images():
    target, score = np.array([1, 1, 0, 0]), np.array([0.3, 0.8, 0.4, 0.1])
    assert statistics.delong_test(target, score, score) == (0.0, 0.0, 1.0)
    one = np.array([1, 0, 0, 0])
    delta, se, p = statistics.delong_test(one, score, -score)
    assert se is None
    assert p == 1
    assert delta == pytest.approx(1 / 3 - 2 / 3)


# --- group variance and group bootstrap -----------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_groups_of_one_image_give_delongs_variance(seed):
    drawn = sample(seed)
    value, variance, _ = clustered(pairs_of(drawn, np.arange(len(drawn.target))))
    half = np.full(len(drawn.target), 0.5)  # its AUC has no variance
    expected, se, _ = statistics.delong_test(drawn.target, drawn.a, half)
    assert value == pytest.approx(expected + 0.5)
    assert variance == pytest.approx(se**2, rel=1e-6)


def test_group_variance_is_obuchowskis():
    """His formula, written out, where every group holds both classes (so his I, I01, I10 agree)."""
    rng = np.random.default_rng(1)
    groups, per = 25, 4
    group = np.repeat(np.arange(groups), per)
    target = np.tile([True, False, False, rng.random() < 2], groups)
    score = target + rng.normal(size=groups)[group] + rng.normal(size=groups * per)
    pairs = count_pairs(target, group, score[None])
    theta = roc_auc_score(target, score)
    m, n = target.sum(), (~target).sum()
    v10 = np.array([(score[~target] < s).mean() for s in score[target]])
    v01 = np.array([(score[target] > s).mean() for s in score[~target]])
    x = np.bincount(group[target], v10 - theta)
    y = np.bincount(group[~target], v01 - theta)
    factor = groups / (groups - 1)
    s10, s01, s11 = factor / m * x @ x, factor / n * y @ y, factor * x @ y
    value, variance, _ = clustered(pairs)
    assert value == pytest.approx(theta)
    assert variance == pytest.approx(s10 / m + s01 / n + 2 * s11 / (m * n), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(scored(), st.integers(0, 100))
def test_resampling_groups_equals_weighting_their_images(case, seed):
    """The matrix over groups against scikit-learn on images, mixed groups and ties included."""
    target, score, _ = case
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, len(target))
    group = np.unique(group, return_inverse=True)[1]
    other = rng.integers(0, 4, len(target)).astype(float)
    weights = rng.integers(0, 4, (5, group.max() + 1)).astype(np.float32)
    pairs = count_pairs(target, group, np.stack([score, other]), np.array([2, 1]))
    for row, found in zip(weights, estimates(pairs, weights), strict=True):
        image = row[group]
        if 0 < image[target].sum() < image.sum():
            one, two = (roc_auc_score(target, s, sample_weight=image) for s in (score, other))
            assert found == pytest.approx((2 * one + two) / 3, abs=1e-6)
        else:
            assert np.isnan(found)


def test_more_malignant_groups_widen_less():
    """The expansion for 10 groups is large, for 1,000 none: the level tends to alpha / 2."""
    drawn = np.linspace(-1, 1, 99_999)
    widths = [np.subtract(*interval(drawn, df, 0.05, (-1, 1))[::-1]) for df in (9, 99, 1e6)]
    assert widths[0] > widths[1] > widths[2] == pytest.approx(1.9, abs=1e-3)


# --- single arms ----------------------------------------------------------------------------------


def test_auc_interval_surrounds_the_auc_and_knows_its_limits():
    drawn = sample()
    value, low, high = statistics.auc_interval(drawn.target, drawn.b, drawn.group)
    assert value == pytest.approx(roc_auc_score(drawn.target, drawn.b))
    assert 0 < low < value < high < 1
    value, low, high = statistics.auc_interval(drawn.target, drawn.target * 1.0, drawn.group)
    assert (value, high) == (1, 1)
    assert low == pytest.approx(0.025 ** (1 / 40))


def test_auc_interval_covers():
    """95% nominal; 300 test sets with 3 images a lesion: 92% or less would be 2.5 sd away."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        drawn = draw(rng, 30, "3")
        _, low, high = statistics.auc_interval(drawn.target, drawn.b, drawn.group, replicates=499)
        hits += low <= 0.85 <= high
    assert hits / 300 > 0.92


def test_roc_band_holds_the_curve_and_matches_scikit_learn():
    drawn = sample()
    score = drawn.b.round(1)
    band = statistics.roc_band(drawn.target, score, drawn.group, replicates=200)
    fpr, tpr, _ = roc_curve(drawn.target, score, drop_intermediate=False)
    np.testing.assert_allclose(band["tpr"], np.interp(band["fpr"], fpr, tpr))
    assert band["auc"] == pytest.approx(roc_auc_score(drawn.target, score))
    low, high = np.array(band["low"]), np.array(band["high"])
    assert (low <= high).all()
    assert (low[10:90] < high[10:90]).all()
    assert np.mean((low <= band["tpr"]) & (band["tpr"] <= high)) > 0.95
    assert band["ci_low"] < band["auc"] < band["ci_high"]
    json.dumps(band, allow_nan=False)
    by_group = np.mean(high - low)
    alone = statistics.roc_band(drawn.target, score, np.arange(len(score)), replicates=200)
    assert by_group > 1.1 * np.mean(np.subtract(alone["high"], alone["low"]))


def test_a_mean_roc_curve_is_that_of_single_models_weighted_by_pairs():
    """Not of averaged scores; folds of different size and their own models."""
    one, two = sample(1, 20), sample(2, 40)
    folds = [
        (Images.of(drawn.target, drawn.group, ""), np.stack([drawn.a, drawn.b]))
        for drawn in (one, two)
    ]
    band = mean_roc(folds, replicates=50)
    aucs = [np.mean([roc_auc_score(d.target, score) for score in (d.a, d.b)]) for d in (one, two)]
    pairs = [d.target.sum() * (~d.target).sum() for d in (one, two)]
    assert band["auc"] == pytest.approx(np.average(aucs, weights=pairs))
    assert np.trapezoid(band["tpr"], band["fpr"]) == pytest.approx(band["auc"], abs=0.005)
    assert band["ci_low"] < band["auc"] < band["ci_high"]


def test_roc_band_of_constant_scores_is_the_diagonal():
    drawn = sample()
    band = statistics.roc_band(drawn.target, np.zeros(len(drawn.target)), drawn.group)
    np.testing.assert_allclose(band["tpr"], band["fpr"])
