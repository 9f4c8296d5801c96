import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from classifier.evaluation.cross_validation import pool, pooled_metrics
from classifier.evaluation.metrics import best_threshold, measure_scores
from dermsynth.errors import UserError


def _part(part, ids, targets, scores, fold):
    columns = {"image_id": ids, "group": [f"g{name}" for name in ids], "fold": fold, "part": part}
    return pd.DataFrame(columns | {"target": targets, "score": scores})


@pytest.fixture
def frames():
    """Three folds of 40 validation images, 30 test images, 20 of another clinic."""
    rng = np.random.default_rng(0)
    test, clinic = rng.integers(0, 2, 30), rng.integers(0, 2, 20)
    found = []
    for fold in range(3):
        val = rng.integers(0, 2, 40)
        ids = [f"f{fold}-{i}" for i in range(40)]
        found.append(
            pd.concat(
                [
                    # each fold is calibrated otherwise: the same order within, other scores
                    _part("val", ids, val, (0.6 * val + rng.random(40)) / 1.6 / 10**fold, fold),
                    _part("test", [f"t{i}" for i in range(30)], test, rng.random(30), -1),
                    _part("external/clinic", [f"c{i}" for i in range(20)], clinic, 0.5, 0),
                ],
                ignore_index=True,
            ).assign(diagnosis="nv")
        )
    return found


def _metrics(frame):
    val = frame[frame["part"] == "val"]
    targets, scores = val["target"].to_numpy(), val["score"].to_numpy()
    return {"val": measure_scores(targets, scores, best_threshold(targets, scores))}


def test_every_validation_image_comes_once_with_its_own_score_and_rank(frames):
    oof = pool(frames).query("part == 'oof'").set_index("image_id")
    assert len(oof) == 120
    assert oof.index.is_unique
    for fold, frame in enumerate(frames):
        val = frame[frame["part"] == "val"].set_index("image_id")
        assert (oof.loc[val.index, "score"] == val["score"]).all()
        assert (oof.loc[val.index, "target"] == val["target"]).all()
        assert (oof.loc[val.index, "fold"] == fold).all()
        np.testing.assert_allclose(oof.loc[val.index, "rank"], rankdata(val["score"]) / 40)


def test_other_parts_are_the_mean_whatever_the_order_of_rows(frames):
    """Of every score column; the mean of the ranks, too, not the rank of the mean."""
    frames = [
        frame.assign(score_mel=frame["score"] ** 2).sample(frac=1, random_state=number)
        for number, frame in enumerate(frames)
    ]
    pooled = pool(frames)
    test = pooled[pooled["part"] == "test"].set_index("image_id")
    own = [frame[frame["part"] == "test"].set_index("image_id").loc[test.index] for frame in frames]
    for column in ("score", "score_mel"):
        np.testing.assert_allclose(test[column], np.mean([of[column] for of in own], axis=0))
    ranks = np.mean([rankdata(of["score"]) / 30 for of in own], axis=0)
    np.testing.assert_allclose(test["rank"], ranks)
    clinic = pooled[pooled["part"] == "external/clinic"]
    assert len(clinic) == 20
    assert (clinic["rank"] == 10.5 / 20).all()  # one score for all: the middle rank
    assert (clinic["diagnosis"] == "nv").all()


def test_figures_are_those_of_scikit_learn(frames):
    pooled = pool(frames)
    found = pooled_metrics(pooled, [_metrics(frame) for frame in frames])
    oof, test = pooled[pooled["part"] == "oof"], pooled[pooled["part"] == "test"]
    assert found["oof"]["auc"] == pytest.approx(roc_auc_score(oof["target"], oof["score"]))
    ranked = found["oof_ranked"]
    assert ranked["auc"] == pytest.approx(roc_auc_score(oof["target"], oof["rank"]))
    expected = average_precision_score(oof["target"], oof["rank"])
    assert ranked["average_precision"] == pytest.approx(expected)
    assert ranked["brier"] is None
    assert ranked["ece"] is None
    assert ranked["auc"] > found["oof"]["auc"] + 0.1  # other calibrations spoil the raw scores
    fpr, tpr, thresholds = roc_curve(oof["target"], oof["score"])
    assert found["oof"]["threshold"] == thresholds[np.argmax(tpr - fpr)]
    assert found["test"]["threshold"] == found["oof"]["threshold"]
    assert found["test"]["auc"] == pytest.approx(roc_auc_score(test["target"], test["score"]))
    own = []
    for frame in frames:
        val = frame[frame["part"] == "val"]
        own.append(roc_auc_score(val["target"], val["score"]))
    assert found["val_mean"]["auc"] == pytest.approx(np.mean(own))
    assert found["val_mean"]["auc_std"] == pytest.approx(np.std(own, ddof=1))
    assert found["val_mean"]["folds"] == 3
    assert set(found) == {"oof", "oof_ranked", "val_mean", "test", "external/clinic"}


def test_one_class_has_no_auc(frames):
    benign = [frame.assign(target=0) for frame in frames]
    nothing = {"val": measure_scores(np.zeros(40, int), np.linspace(0, 1, 40), 0.5)}
    found = pooled_metrics(pool(benign), [nothing] * 3)
    assert {of["auc"] for of in found.values()} == {None}
    assert found["val_mean"]["auc_std"] is None
    assert found["oof"]["threshold"] is None
    assert found["test"]["balanced_accuracy"] is None
    assert found["oof"]["brier"] is not None
    no_test = [frame[frame["part"] == "val"] for frame in frames]
    found = pooled_metrics(pool(no_test), [_metrics(frame) for frame in frames])
    assert found["test"]["auc"] is None
    assert found["test"]["n"] == 0
    assert found["oof"]["auc"] > 0.5


def test_one_fold_has_no_spread(frames):
    found = pooled_metrics(pool(frames[:1]), [_metrics(frames[0])])
    assert found["val_mean"]["auc"] == pytest.approx(found["oof"]["auc"])
    assert found["val_mean"]["auc_std"] is None


def test_a_leaky_fold_marks_everything(frames):
    frames[1] = frames[1].assign(leaky=True)
    metrics = [_metrics(frame) for frame in frames]
    metrics[1]["val"]["leaky"] = "the pool saw f1-3"
    pooled = pool(frames)
    assert pooled["leaky"].all()
    found = pooled_metrics(pooled, metrics)
    assert {of["leaky"] for of in found.values()} == {"the pool saw f1-3"}


def _replace(frame, row, **values):
    frame = frame.copy()
    for column, value in values.items():
        frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: [f[0], f[1], f[1]], "fold 1 comes twice"),
        (lambda f: [f[0], _replace(f[1], 3, image_id="f0-7")], "overlap: 1 image.*f0-7"),
        (lambda f: [f[0], _replace(f[1], 3, image_id="f1-4")], "fold 1, part val.*twice: f1-4"),
        (lambda f: [f[0], _replace(f[1], 41, image_id="t0")], "fold 1, part test.*twice: t0"),
        (lambda f: [f[0], _replace(f[1], 41, image_id="x")], "part test: fold 1.*other.*t1, x"),
        (lambda f: [f[0], f[1].query("part != 'test'")], "part test: fold 1 and fold 0.*t0, t1"),
        (lambda f: [f[0].query("part != 'test'"), f[1]], "part test: fold 1 and fold 0.*t0, t1"),
        (lambda f: [f[0], _replace(f[1], 45, target=9)], "other targets: t5"),
        (lambda f: [f[0], _replace(f[1], 2, score=np.nan)], "fold 1: 1 scores are not.*f1-2"),
        (lambda f: [f[0], _replace(f[1], 2, fold=0)], "folds 1, 0|folds 0, 1"),
        (lambda f: [f[0], f[1].query("part != 'val'")], "predictions 1.*found none"),
        (lambda f: [f[0], f[1].drop(columns="score")], "predictions 1: no column score"),
        (lambda f: [f[0], f[1].assign(score_mel=0.5)], "only one has the column score_mel"),
        (lambda _: [], "no folds"),
    ],
)
def test_what_cannot_be_pooled_is_named(frames, damage, words):
    with pytest.raises(UserError, match=words):
        pool(damage(frames))
