"""Figures of several diagnoses against scikit-learn and ISIC's own scoring."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
from scipy.special import softmax
from scipy.stats import norm
from sklearn import metrics as sk

from classifier.evaluation.intervals import Resampling
from classifier.evaluation.metrics import measure, measure_parts
from classifier.evaluation.multiclass import (
    ScoredClasses,
    class_intervals,
    class_numbers,
    equal_prior,
    measure_classes,
)
from dermsynth.errors import UserError

NAMES = ["mel", "nv", "bcc", "akiec"]


def draw(n=240, seed=0, names=NAMES):
    rng = np.random.default_rng(seed)
    share = np.array([0.2, 0.5, 0.2, 0.1][: len(names)])
    truth = rng.choice(len(names), n, p=share / share.sum())
    p = softmax(rng.normal(0, 1, (n, len(names))) + 1.2 * np.eye(len(names))[truth], 1)
    return truth, np.array(names, object)[truth], p


def test_every_figure_is_scikit_learns():
    truth, diagnosis, p = draw()
    found = measure_classes(diagnosis, p, NAMES)
    assert found["macro_auc"] == pytest.approx(
        sk.roc_auc_score(truth, p, multi_class="ovr", average="macro")
    )
    assert found["macro_average_precision"] == pytest.approx(
        sk.average_precision_score(np.eye(4)[truth], p, average="macro")
    )
    assert found["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(truth, p.argmax(1))
    )
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, p.argmax(1)))
    np.testing.assert_array_equal(
        found["confusion"]["counts"], sk.confusion_matrix(truth, p.argmax(1))
    )
    np.testing.assert_allclose(
        found["confusion"]["rates"], sk.confusion_matrix(truth, p.argmax(1), normalize="true")
    )
    recall = sk.recall_score(truth, p.argmax(1), average=None)
    assert [one["recall"] for one in found["classes"].values()] == pytest.approx(list(recall))
    assert sum(one["n"] for one in found["classes"].values()) == found["n"] == 240
    assert found["absent"] == []
    assert found["left_out"] == {}
    json.dumps(found, allow_nan=False)


def test_the_scores_of_the_isic_challenge():
    truth, diagnosis, p = draw()
    weights = pd.DataFrame({"score_weight": np.ones(240), "validation_weight": np.ones(240)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        isic = ClassificationScore(
            pd.DataFrame(np.eye(4)[truth], columns=NAMES),
            pd.DataFrame(p, columns=NAMES),
            weights,
            ClassificationMetric.BALANCED_ACCURACY,
        )
    found = measure_classes(diagnosis, p, NAMES)
    assert found["balanced_accuracy"] == pytest.approx(isic.overall)
    assert found["macro_auc"] == pytest.approx(isic.macro_average["auc"])
    assert found["macro_average_precision"] == pytest.approx(isic.macro_average["ap"])
    aucs = [one["auc"] for one in found["classes"].values()]
    assert aucs == pytest.approx(isic.per_category["auc"].tolist())


def test_an_absent_class_is_none_named_and_out_of_the_means():
    truth, diagnosis, p = draw()
    present = truth != 2
    truth, diagnosis, p = truth[present], diagnosis[present], p[present]
    found = measure_classes(diagnosis, p, NAMES)
    assert found["absent"] == ["bcc"]
    assert found["classes"]["bcc"] == {
        "n": 0,
        "auc": None,
        "average_precision": None,
        "recall": None,
    }
    assert found["confusion"]["rates"][2] is None
    assert found["confusion"]["counts"][2] == [0, 0, 0, 0]
    assert np.sum(found["confusion"]["counts"], 0)[2] > 0  # still predicted at times
    aucs = [sk.roc_auc_score(truth == at, p[:, at]) for at in (0, 1, 3)]
    assert found["macro_auc"] == pytest.approx(np.mean(aucs))
    recall = [(p[truth == at].argmax(1) == at).mean() for at in (0, 1, 3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recall))


def test_one_class_alone_has_no_auc_but_a_recall():
    _, _, p = draw(20)
    found = measure_classes(["nv"] * 20, p, NAMES)
    assert found["macro_auc"] is None
    assert found["classes"]["nv"]["auc"] is None
    assert found["balanced_accuracy"] == found["accuracy"] == (p.argmax(1) == 1).mean()
    assert found["absent"] == ["mel", "bcc", "akiec"]


def test_a_diagnosis_that_is_no_class_is_left_out_and_counted():
    _, diagnosis, p = draw(50)
    more = np.append(diagnosis, ["scc", None, "scc"])
    all_p = np.vstack([p, np.full((3, 4), 0.25)])
    found = measure_classes(more, all_p, NAMES)
    assert found.pop("left_out") == {"None": 1, "scc": 2}
    expected = measure_classes(diagnosis, p, NAMES)
    expected.pop("left_out")
    assert found == expected
    nothing = measure_classes(["scc"], all_p[-1:], NAMES)
    assert (nothing["n"], nothing["accuracy"], nothing["macro_auc"]) == (0, None, None)


def intervals(truth, p, group):
    return class_intervals(ScoredClasses(NAMES, truth, p, group), Resampling(300, 0))


def test_intervals_of_copies_are_those_of_their_originals():
    truth, _, p = draw(120)
    once = intervals(truth, p, np.arange(120))
    copies = intervals(truth.repeat(3), p.repeat(3, axis=0), np.arange(120).repeat(3))
    assert once["balanced_accuracy"] == pytest.approx(copies["balanced_accuracy"])
    assert once["accuracy"]["value"] == pytest.approx((p.argmax(1) == truth).mean())
    found = measure_classes(np.array(NAMES, object)[truth], p, NAMES)
    for name in NAMES:
        assert once["auc"][name]["value"] == pytest.approx(found["classes"][name]["auc"])
        assert once["auc"][name]["low"] < once["auc"][name]["value"] < once["auc"][name]["high"]
    balanced = once["balanced_accuracy"]
    assert balanced["value"] == pytest.approx(found["balanced_accuracy"])
    assert balanced["low"] < balanced["value"] < balanced["high"]


def test_a_rare_class_that_never_varies_does_not_blow_up_the_balanced_accuracy():
    """Four lesions of a class, always missed: the spread is that of the classes that vary."""
    truth, _, p = draw(300, names=NAMES[:3])
    p = np.column_stack([p, np.zeros(300)])
    p = np.vstack([p, np.tile([0.0, 0.9, 0.1, 0.0], (4, 1))])
    truth = np.append(truth, [3] * 4)
    found = intervals(truth, p, np.arange(304))["balanced_accuracy"]
    assert 0.02 < found["high"] - found["low"] < 0.3
    one = intervals(truth[:301], p[:301], np.arange(301))["balanced_accuracy"]
    assert (one["low"], one["high"]) == (0, 1)  # of a class with one lesion nothing is known


def test_at_equal_prior_the_likelihoods_alone_decide():
    """Of normal classes with means 0, 2, 4 the borders are 1 and 3, however rare a class is."""
    rng = np.random.default_rng(0)
    prior, means = np.array([0.9, 0.08, 0.02]), np.array([0.0, 2.0, 4.0])
    truth = rng.choice(3, 20_000, p=prior)
    x = rng.normal(means[truth], 1)
    joint = prior * norm.pdf(x[:, None], means, 1)
    p = joint / joint.sum(1, keepdims=True)
    even = equal_prior(p, prior)
    np.testing.assert_allclose(even.sum(1), 1)
    np.testing.assert_array_equal(even.argmax(1), np.digitize(x, [1, 3]))
    np.testing.assert_allclose(equal_prior(p, np.full(3, 1 / 3)), p)
    assert equal_prior(np.array([[0.3, 0.7, 0.0]]), np.array([0.5, 0.5, 0.0])).tolist() == [
        [0.3, 0.7, 0.0]
    ]  # a class that is never thought of

    def rows(which, part):
        scores = {f"score_{name}": p[which, at] for at, name in enumerate(NAMES[:3])}
        known = {"diagnosis": np.array(NAMES)[truth[which]], "target": truth[which] == 2}
        return pd.DataFrame({**known, "score": p[which, 2], **scores, "part": part})

    common, rare = np.arange(20_000), np.flatnonzero(truth > 0)
    both = pd.concat([rows(common, "val"), rows(rare, "test")], ignore_index=True)
    found = measure_parts(both.astype({"target": int}), ("val", "test"))
    for part, which in (("val", common), ("test", rare)):  # both by validation's frequencies
        there = {"average": "macro", "labels": np.unique(truth[which])}
        recall = sk.recall_score(truth[which], np.digitize(x[which], [1, 3]), **there)
        got = found[part]["class_balanced_accuracy_equal_prior"]
        assert got == pytest.approx(recall, abs=0.01)
    val = found["val"]
    assert val["class_balanced_accuracy_equal_prior"] > val["class_balanced_accuracy"] + 0.1
    alone = measure(both[both["part"] == "test"].astype({"target": int}), 0.5)
    got = found["test"]["class_balanced_accuracy_equal_prior"]
    assert alone["class_balanced_accuracy_equal_prior"] != got


def test_bad_probabilities_are_named():
    _, diagnosis, p = draw(10)

    def refused(match, probabilities, names=NAMES):
        with pytest.raises(UserError, match=match):
            measure_classes(diagnosis, probabilities, names)

    refused(r"\[10, 3\].*expected \[10, 4\]", p[:, :3])
    refused("1 image .*row 4", np.where(np.arange(10)[:, None] == 4, np.nan, p))
    refused("row 2: 0.5, 0.5, 0.5, 0.5", np.where(np.arange(10)[:, None] == 2, 0.5, p))
    refused("10 images", -p)
    refused("a name is there twice", p, ["mel", "nv", "nv", "bcc"])
    assert class_numbers(np.array(["bcc", "mel"]), NAMES).tolist() == [2, 0]
