"""Temperature, calibration figures and reliability bins: known answers and references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from classifier.evaluation.calibration import (
    LEAST,
    MOST,
    bins,
    calibration,
    class_calibration,
    fit_class_temperature,
    fit_temperature,
    scale,
    scale_classes,
)
from classifier.evaluation.intervals import UNDEFINED, Resampling, Scored
from classifier.evaluation.metrics import calibration_error
from classifier.evaluation.multiclass import ScoredClasses


def draw(n, sharpness, seed=0):
    """Targets drawn from true probabilities, and scores whose logits are `sharpness` too large."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-1, 1.5, n)
    return (rng.random(n) < expit(true)).astype(int), expit(true * sharpness)


@pytest.mark.parametrize("sharpness", [0.5, 1, 2.5])
def test_the_temperature_undoes_what_was_done(sharpness):
    target, score = draw(20_000, sharpness)
    temperature = fit_temperature(target, score)
    assert temperature == pytest.approx(sharpness, rel=0.06)
    best = minimize(
        lambda power: log_loss(target, expit(logit(score) / np.exp(power[0]))), 0.0, tol=1e-10
    )
    assert temperature == pytest.approx(np.exp(best.x[0]), rel=1e-3)


def test_the_class_temperature_undoes_what_was_done():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (8000, 4))
    p = softmax(logits, 1)
    truth = (p.cumsum(1) < rng.random((8000, 1))).sum(1)
    sharp = softmax(3 * logits, 1)
    temperature = fit_class_temperature(truth, sharp)
    assert temperature == pytest.approx(3, rel=0.06)
    mended = scale_classes(sharp, temperature)
    np.testing.assert_allclose(mended, softmax(3 * logits / temperature, 1), atol=1e-9)
    assert (mended.argmax(1) == sharp.argmax(1)).all()
    found = class_calibration(
        ScoredClasses(range(4), truth, sharp, np.arange(8000)), temperature, Resampling(200, 0)
    )
    assert found["before"]["log_loss"]["value"] == pytest.approx(log_loss(truth, sharp))
    assert found["after"]["log_loss"]["value"] == pytest.approx(log_loss(truth, mended))
    assert found["after"]["ece"]["value"] < 0.03 < found["before"]["ece"]["value"]
    assert found["change"]["brier"]["high"] < 0
    brier = ((sharp - np.eye(4)[truth]) ** 2).sum(1).mean()
    assert found["before"]["brier"]["value"] == pytest.approx(brier)


@given(
    st.lists(st.integers(1, 999), min_size=4, max_size=60),
    st.floats(0.2, 20),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_the_temperature_leaves_the_auc_as_it_is(scores, temperature, seed):
    score = np.array(scores) / 1000
    target = np.random.default_rng(seed).permutation(np.arange(len(scores)) % 2)
    mended = scale(score, temperature)
    assert roc_auc_score(target, mended) == roc_auc_score(target, score)


def test_certain_scores_stay_certain():
    assert scale(np.array([0.0, 0.5, 1.0]), 3).tolist() == [0, 0.5, 1]
    target, score = draw(500, 1)
    score[:4] = [0, 1, 0, 1]
    target[:4] = [1, 0, 0, 1]  # two of them certain and wrong
    assert 1 < fit_temperature(target, score) < MOST
    found = calibration(Scored.of(target, score, np.arange(500)), 2.0, Resampling(200, 0))
    assert np.isfinite(found["before"]["log_loss"]["value"])


def test_one_class_has_no_temperature_and_separated_ones_the_least():
    assert fit_temperature(np.ones(5), np.full(5, 0.7)) is None
    assert fit_class_temperature(np.zeros(5, int), np.full((5, 2), 0.5)) is None
    target = np.arange(40) % 2
    assert fit_temperature(target, 0.3 + 0.4 * target) == pytest.approx(LEAST, rel=0.01)
    assert fit_temperature(target, 0.7 - 0.4 * target) == pytest.approx(MOST, rel=0.01)
    found = calibration(
        Scored.of(np.ones(5), np.full(5, 0.7), np.arange(5)), None, Resampling(200, 0)
    )
    assert found["after"]["brier"] == found["change"]["ece"] == UNDEFINED
    assert list(found["bins"]) == ["before"]
    assert found["before"]["brier"]["value"] == pytest.approx(0.09)


def test_figures_are_those_of_scikit_learn_and_metrics_json():
    target, score = draw(400, 2)
    found = calibration(Scored.of(target, score, np.arange(400) // 2), 2.0, Resampling(400, 0))
    for name, of in (("before", score), ("after", scale(score, 2))):
        assert found[name]["log_loss"]["value"] == pytest.approx(log_loss(target, of))
        assert found[name]["brier"]["value"] == pytest.approx(brier_score_loss(target, of))
        assert found[name]["ece"]["value"] == pytest.approx(calibration_error(target, of))
    for key in ("log_loss", "brier"):
        before, after, change = (found[name][key] for name in ("before", "after", "change"))
        assert change["value"] == pytest.approx(after["value"] - before["value"])
        assert before["low"] < before["value"] < before["high"]
        # paired: much narrower than either figure
        assert change["high"] - change["low"] < 0.6 * (before["high"] - before["low"])


def test_ece_intervals_hold_the_truth_that_noise_hides():
    """Calibrated scores have an ECE of 0; that of 200 images is about 0.07 by noise alone."""
    held, raw, noise = 0, 0.0, 0.0
    for seed in range(100):
        target, score = draw(200, 1, seed)
        found = calibration(Scored.of(target, score, np.arange(200)), None, Resampling(200, 0))[
            "before"
        ]
        held += found["ece"]["low"] == 0
        raw += found["ece"]["value"] / 100
        noise += found["ece_of_noise"] / 100
    assert raw > 0.05
    assert noise == pytest.approx(raw, rel=0.1)
    assert held >= 90


def test_bins_count_every_image_once_and_have_wilson_intervals():
    target, score = draw(300, 2)
    score[0] = 1.0  # belongs into the last bin
    found = bins(target, score)
    assert sum(one["n"] for one in found) == 300
    assert found[-1]["high"] == 1
    for one in found:
        last = one["high"] == 1
        chosen = (score >= one["low"]) & ((score < one["high"]) | last)
        assert one["n"] == chosen.sum()
        assert one["observed"] == pytest.approx(target[chosen].mean())
        assert one["predicted"] == pytest.approx(score[chosen].mean())
        p, n, z = one["observed"], one["n"], 1.959964  # Wilson (1927), written out
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        assert one["wilson_low"] == pytest.approx(centre - half, abs=1e-6)
        assert one["wilson_high"] == pytest.approx(centre + half, abs=1e-6)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),  # by another implementation, statsmodels
    [(0, 10, 0.0, 0.27753279986288926), (3, 7, 0.15821985525146964, 0.7495416354723428)],
)
def test_wilson_intervals_have_known_ends_and_none_observed_is_no_certainty(hits, n, low, high):
    line = bins((np.arange(n) < hits).astype(int), np.full(n, 0.5))[0]
    assert (line["observed"], line["n"]) == (hits / n, n)
    assert line["wilson_low"] == pytest.approx(low, abs=1e-12)
    assert line["wilson_high"] == pytest.approx(high, abs=1e-12)
