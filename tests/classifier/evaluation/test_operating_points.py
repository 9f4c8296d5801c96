"""Operating points against scikit-learn, ISIC's own scoring and the experiments' statistics."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
from sklearn import metrics as sk

from classifier.evaluation.intervals import (
    UNDEFINED,
    Freedom,
    Resampling,
    Scored,
    auc_figure,
    figure,
)
from classifier.evaluation.metrics import measure_scores
from classifier.evaluation.operating_points import (
    Curve,
    at_threshold,
    choose_thresholds,
    notes,
    operating_points,
    ranking_figures,
)
from data.store import MELANOMA, TargetMeaning
from experiments.statistics import auc_interval

RANKED = {
    "average_precision": "average_precision",
    "partial_auc_tpr80": "partial_auc_tpr80",
    "sensitivity_at_95_specificity": "sensitivity_at_95_specificity",
    "specificity_at_95_sensitivity": "specificity_at_95_sensitivity",
}


def draw(n=300, groups=120, share=0.3, seed=0, ties=0.0):
    """Scores of groups of a few images each; every image of a group has its target."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    target = (np.random.default_rng(1).random(groups) < share)[group].astype(int)
    score = 1 / (1 + np.exp(-(rng.normal(0, 1, n) + rng.normal(0, 1, groups)[group] + target)))
    return target, np.round(score, 1) if ties else score, group


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40).filter(
        lambda rows: len({target for target, _ in rows}) == 2
    )
)
@settings(max_examples=40)
def test_every_ranking_figure_is_that_of_metrics_json(rows):
    target, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]) / 8
    scored = Scored.of(target, score, np.arange(len(rows)))
    found = ranking_figures(scored, Resampling(5, 0))
    expected = measure_scores(target.astype(int), score, 0.5)
    for mine, theirs in RANKED.items():
        assert found[mine]["value"] == pytest.approx(expected[theirs], abs=1e-9)
    assert auc_figure(scored, Resampling(5, 0))["value"] == pytest.approx(expected["auc"], abs=1e-9)


def test_group_weights_are_image_weights_of_scikit_learn():
    target, score, group = draw(ties=1)
    rows = Scored.of(target, score, group)
    weights = np.random.default_rng(3).integers(0, 4, (3, rows.n_groups)).astype(float)
    found = Curve.of(rows).figures(weights)
    for each, weight in zip(found, weights, strict=True):
        of = weight[rows.group]
        expected = sk.average_precision_score(target, score, sample_weight=of)
        assert each[0] == pytest.approx(expected, abs=1e-9)
        fpr, tpr, _ = sk.roc_curve(target, score, sample_weight=of, drop_intermediate=False)
        assert each[2] == pytest.approx(tpr[fpr <= 0.05 + 1e-9].max(), abs=1e-9)
        assert each[3] == pytest.approx(1 - fpr[tpr >= 0.95 - 1e-9].min(), abs=1e-9)
        assert each[4] + each[5] - 1 == pytest.approx((tpr - fpr).max(), abs=1e-9)


def test_figures_at_a_threshold_are_scikit_learns():
    target, score, group = draw()
    there = at_threshold(Scored.of(target, score, group), 0.5, Resampling(300, 0))
    called = score >= 0.5
    assert there["sensitivity"]["value"] == pytest.approx(sk.recall_score(target, called))
    assert there["specificity"]["value"] == pytest.approx(
        sk.recall_score(target, called, pos_label=0)
    )
    assert there["balanced_accuracy"]["value"] == pytest.approx(
        sk.balanced_accuracy_score(target, called)
    )
    assert there["called_malignant"]["value"] == pytest.approx(called.mean())


def test_the_scores_of_the_isic_challenge():
    target, score, group = draw(ties=1)
    of = {
        "truth_probabilities": pd.DataFrame({"m": target.astype(float), "b": 1.0 - target}),
        "prediction_probabilities": pd.DataFrame({"m": score, "b": 1 - score}),
        "truth_weights": pd.DataFrame(
            {"score_weight": np.ones(len(target)), "validation_weight": np.ones(len(target))}
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ClassificationScore(**of, target_metric=ClassificationMetric.AUC)
    isic = theirs.per_category.loc["m"] if "m" in theirs.per_category.index else None
    isic = theirs.per_category.iloc[0] if isic is None else isic
    rows = Scored.of(target, score, group)
    found = operating_points(rows, None, Resampling(20, 0))
    assert found["auc"]["value"] == pytest.approx(isic["auc"])
    assert found["average_precision"]["value"] == pytest.approx(isic["ap"])
    there = at_threshold(rows, 0.5 + 1e-9, Resampling(20, 0))  # theirs calls malignant above 0.5
    assert there["sensitivity"]["value"] == pytest.approx(isic["sensitivity"])
    assert there["specificity"]["value"] == pytest.approx(isic["specificity"])
    # Theirs reaches down to the axis; the ISIC 2024 area, and ours, ends at a sensitivity of 0.8.
    fpr, tpr, _ = sk.roc_curve(target, score, drop_intermediate=False)
    at = np.searchsorted(tpr, 0.8)
    start = np.interp(0.8, tpr[at - 1 : at + 1], fpr[at - 1 : at + 1])
    assert found["partial_auc_tpr80"]["value"] == pytest.approx(
        isic["auc_sens_80"] - 0.8 * (1 - start)
    )


def test_the_auc_interval_is_the_experiments():
    target, score, group = draw()
    found = auc_figure(Scored.of(target, score, group), Resampling(500, 7))
    assert tuple(found.values()) == auc_interval(target, score, group, 500, 7)


def test_thresholds_hold_what_they_promise_and_no_more():
    target, score, _ = draw()
    chosen = choose_thresholds(target, score)
    benign, malignant = score[target == 0], score[target == 1]
    assert (benign < chosen["specificity_95"]).mean() >= 0.95
    assert (malignant >= chosen["sensitivity_95"]).mean() >= 0.95
    lower, higher = score[score < chosen["specificity_95"]], score[score > chosen["sensitivity_95"]]
    assert (benign < lower.max()).mean() < 0.95  # the next score down no longer holds it
    assert (malignant >= higher.min()).mean() < 0.95
    at = at_threshold(
        Scored.of(target, score, np.arange(len(score))), chosen["youden"], Resampling(20, 0)
    )
    fpr, tpr, _ = sk.roc_curve(target, score)
    youden = at["sensitivity"]["value"] + at["specificity"]["value"] - 1
    assert youden == pytest.approx((tpr - fpr).max())


def test_a_threshold_that_nothing_reaches_is_a_number():
    """Half of the benign images share the highest score: 95% specificity calls none malignant."""
    target, score = np.array([0, 0, 1, 1]), np.array([0.2, 1.0, 1.0, 1.0])
    chosen = choose_thresholds(target, score)
    assert 1.0 < chosen["specificity_95"] < 1.001
    assert at_threshold(
        Scored.of(target, score, target), chosen["specificity_95"], Resampling(20, 0)
    )["sensitivity"]["value"] == pytest.approx(0)


def test_one_class_leaves_figures_undefined_and_says_so():
    target, score = np.zeros(8, int), np.linspace(0.1, 0.8, 8)
    rows = Scored.of(target, score, np.arange(8))
    assert choose_thresholds(target, score) is None
    found = operating_points(rows, {"youden": 0.5}, Resampling(200, 0))
    names = ("auc", *RANKED, "balanced_accuracy")
    assert all(found[name] == UNDEFINED for name in names)
    assert found["own_youden"] == {"sensitivity": UNDEFINED, "specificity": UNDEFINED}
    there = found["at_validation_thresholds"]["youden"]
    assert there["sensitivity"] == UNDEFINED
    assert there["specificity"]["value"] == 0.5
    assert "All images are not malignant" in notes(rows, TargetMeaning())[0]
    assert operating_points(rows, None, Resampling(200, 0))["at_validation_thresholds"] is None


def test_copies_of_an_image_tell_nothing_new():
    """Four copies of every image in its group: the same figures, the same intervals."""
    target, score, group = draw(n=120)
    once = Scored.of(target, score, group)
    copies = Scored.of(*(np.repeat(each, 4) for each in (target, score, group)))
    alone = Scored.of(*(np.repeat(each, 4) for each in (target, score)), np.arange(480))
    found = [
        at_threshold(rows, 0.5, Resampling(400, 0))["sensitivity"] for rows in (once, copies, alone)
    ]
    assert found[0] == found[1]
    width = [each["high"] - each["low"] for each in found]
    assert width[2] < 0.7 * width[1]  # taking copies for independent would claim twice the data


def test_the_interval_of_a_perfect_figure_is_the_exact_binomial_one():
    target = np.repeat([1, 0], [12, 30])
    rows = Scored.of(target, target * 0.5 + 0.2, np.arange(42) // 2)
    there = at_threshold(rows, 0.5, Resampling(300, 0))
    assert there["sensitivity"]["low"] == pytest.approx(0.025 ** (1 / 6))
    assert there["specificity"]["low"] == pytest.approx(0.025 ** (1 / 15))
    assert auc_figure(rows, Resampling(300, 0))["low"] == pytest.approx(0.025 ** (1 / 6))
    assert (
        ranking_figures(rows, Resampling(300, 0))["average_precision"]["low"] is None
    )  # not known
    missed = at_threshold(rows, 0.9, Resampling(300, 0))["sensitivity"]
    assert (missed["value"], missed["high"]) == (0, pytest.approx(1 - 0.025 ** (1 / 6)))


def test_one_group_knows_nothing():
    rows = Scored.of([1, 1, 1, 0, 0], [0.9, 0.2, 0.8, 0.1, 0.3], [0, 0, 0, 1, 2])
    found = at_threshold(rows, 0.5, Resampling(300, 0))["sensitivity"]
    assert found == {"value": pytest.approx(2 / 3), "low": 0.0, "high": 1.0}
    assert Freedom.of(rows).malignant == 0
    assert "1 patients or lesions with images that are melanoma" in notes(rows, MELANOMA)[0]


def test_a_figure_without_resamples_is_as_wide_as_it_can_be():
    assert figure(0.4, np.full(10, np.nan), 5, (0.0, 1.0), 3) == {
        "value": 0.4,
        "low": 0.0,
        "high": 1.0,
    }
    assert figure(float("nan"), np.zeros(3), 5, (0.0, 1.0), 3) == UNDEFINED


def test_sensitivity_intervals_hold_the_truth_about_as_often_as_promised():
    """25 malignant lesions of 3 images that are called alike more often than not."""
    held, rng = 0, np.random.default_rng(0)
    for _ in range(120):
        lesion = rng.normal(0, 1, 25).repeat(3)
        score = lesion + rng.normal(0, 0.5, 75)  # truth: P(score >= -0.94) = 0.80
        rows = Scored.of(np.ones(75), score, np.arange(75) // 3)
        found = at_threshold(rows, -0.941, Resampling(400, 0))["sensitivity"]
        held += found["low"] <= 0.80 <= found["high"]
    assert 0.90 <= held / 120 <= 0.99
