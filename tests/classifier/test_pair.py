"""`--beside`: two networks in one run, whose mean score counts."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from classifier.evaluate import EvaluateOptions, evaluate
from classifier.evaluation import calibration, operating_points, tracked
from classifier.export import ExportOptions, export
from classifier.options import TrainOptions, pair
from classifier.predict import PredictOptions, predict
from classifier.run_folder import open_networks, open_run, read_meaning
from classifier.train import train
from classifier.training import outputs
from dermsynth.errors import UserError
from dermsynth.options import ComputeOptions, replace
from dermsynth.verify import verify

CHANGES = ("augment=strong-colour", "tta=clinics")


class Killed(Exception):
    """In place of a signal."""


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)


@pytest.fixture(scope="module")
def settings(tiny, other):
    small = {"backbone": "vanilla-cnn", "weights": "none", "size": 32, "batch": 16, "views": 0}
    cpu = {"device": "cpu", "precision": "fp32", "tracking": "none", "epochs": 2}
    there = {"external": (f"there={other.path}",), "beside": CHANGES}
    return replace(TrainOptions(), data=tiny.path, **small, **cpu, **there)


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    """A finished run of fold 0; tests must not change it."""
    out = tmp_path_factory.mktemp("cls") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "draw_plots", lambda *_: None)
        train(replace(settings, out=out))
    return out


def scores(folder, part=None):
    rows = pd.read_parquet(folder / "predictions.parquet")
    rows = rows if part is None else rows[rows["part"] == part]
    return rows.set_index(["part", "image_id"])


def test_the_second_differs_in_what_is_named_and_in_nothing_else(settings):
    first, second = pair(replace(settings, epochs=3)).values()
    assert first == replace(settings, epochs=3, beside=())
    assert second == replace(first, augment="strong-colour", tta="clinics")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (("augment",), "--beside augment: expected NAME=VALUE"),
        (("fold=1",), "--beside fold=1: expected NAME=VALUE, each name once, of .*augment"),
        (("beside=lr=1",), "--beside beside=lr=1: expected NAME=VALUE"),
        (("lr=0.1", "lr=0.2"), "--beside lr=0.2: expected NAME=VALUE, each name once"),
        (("lr=fast",), "--beside: .*fast"),
        (("lr=11",), "--lr 11.0: expected from 0 to 10|--lr 11"),
        (("epochs=2",), "--beside epochs=2: the first network has that already"),
        (("gamma=3",), "--gamma 3.0: has an effect with --loss focal only"),
    ],
)
def test_bad_differences_are_refused_before_anything_is_trained(given, match, settings, tmp_path):
    with pytest.raises(UserError, match=match):
        train(replace(settings, beside=given, out=tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_scores_are_the_mean_of_both_networks(run):
    both, first, second = scores(run), scores(run / "first"), scores(run / "second")
    assert set(both.index.get_level_values("part")) == {"val", "test", "external/there"}
    for column in ("score", "plain_score"):
        theirs = [(one.get(column, one["score"])).loc[both.index] for one in (first, second)]
        assert not np.allclose(*theirs)
        np.testing.assert_allclose(both[column], np.mean(theirs, axis=0), rtol=1e-12)
    figures = json.loads((run / "metrics.json").read_text())
    for part in figures:
        rows = both.loc[part]
        assert figures[part]["auc"] == pytest.approx(roc_auc_score(rows["target"], rows["score"]))
    val = both.loc["val"]
    found = json.loads((run / "decisions.json").read_text())
    truth, score = val["target"].to_numpy(), val["score"].to_numpy()
    assert found["temperature"] == calibration.fit_temperature(truth, score)
    assert found["thresholds"] == operating_points.choose_thresholds(truth, score)
    assert (run / "plots" / "roc.png").exists()
    assert [check.faults for check in verify(run)] == [[]] * 3


def test_new_images_are_scored_as_the_run_was(run, tiny, tmp_path):
    options = PredictOptions(run, tiny.path, tmp_path / "s.csv", compute=ComputeOptions("cpu"))
    found = predict(options).set_index("image_name")["target"]
    known = scores(run, "test")["score"].droplevel("part")
    np.testing.assert_allclose(found[known.index], known, atol=1e-6)
    calls = pd.read_csv(tmp_path / "s.calls.csv").set_index("image_name")
    at = json.loads((run / "decisions.json").read_text())["thresholds"]["youden"]
    told = read_meaning(open_run(run)).words
    expected = np.where(found >= at, told[1], told[0])
    assert (calls.loc[found.index, "call"] == expected).all()
    plain = predict(PredictOptions(run, tiny.path, tmp_path / "p.csv", tta=1))
    assert not np.allclose(plain.set_index("image_name")["target"], found)


def test_it_is_evaluated_and_cannot_be_exported(run, tmp_path):
    found = evaluate(EvaluateOptions(run=run, out=tmp_path / "e", replicates=200, tracking="none"))
    assert found["parts"]["test"]["auc"]["value"] == pytest.approx(
        roc_auc_score(*(scores(run, "test")[name] for name in ("target", "score")))
    )
    page = (tmp_path / "e" / "evaluation.html").read_text()
    assert "two networks, of which the heat maps show the first" in page
    assert "mean of two networks, one with augment=strong-colour, tta=clinics" in page
    with pytest.raises(UserError, match="give a run of one fold and one network"):
        export(ExportOptions(run, tmp_path / "m.onnx"))


def test_a_stopped_run_goes_on_and_another_network_is_refused(
    run, settings, tmp_path, monkeypatch, capsys
):
    from classifier.training.loop import Loop

    out, step = tmp_path / "run", Loop.step
    calls = []

    def dies(self, number):
        calls.append(number)
        if len(calls) > 8:  # in the second network
            raise Killed
        return step(self, number)

    monkeypatch.setattr(Loop, "step", dies)
    with pytest.raises(Killed):
        train(replace(settings, out=out))
    monkeypatch.setattr(Loop, "step", step)
    assert not (out / "metrics.json").exists()
    train(replace(settings, out=out, resume=True))
    pd.testing.assert_frame_equal(scores(out), scores(run))
    assert "is finished already" in capsys.readouterr().out
    with pytest.raises(UserError, match="beside: was"):
        train(replace(settings, out=out, resume=True, beside=("augment=none",)))
    shutil.rmtree(out / "second")
    shutil.copytree(out / "first", out / "second")
    with pytest.raises(UserError, match="second: is not the run that was trained with"):
        open_networks(open_run(out))


@pytest.mark.slow
def test_all_folds_have_two_networks_each_and_a_stop_says_how_they_go_on(
    settings, run, tmp_path, monkeypatch
):
    from classifier.training.loop import Loop

    step, out = Loop.step, tmp_path / "all"

    def stops(self, number):
        if number == 3:
            self._stop(3)
        return step(self, number)

    monkeypatch.setattr(Loop, "step", stops)
    with pytest.raises(KeyboardInterrupt) as stop:
        train(replace(settings, fold="all", out=out))
    way_on = f"to go on, give the same command with --out {out} --resume"
    assert str(stop.value) == f"stopped at step 3 of 8; {way_on}"
    monkeypatch.setattr(Loop, "step", step)
    metrics = train(replace(settings, fold="all", out=out, resume=True))
    assert list(metrics)[:3] == ["oof", "oof_ranked", "val_mean"]
    assert len(open_networks(open_run(out))) == 6
    pd.testing.assert_frame_equal(scores(out / "fold0"), scores(run))
    pooled, folds = scores(out), [scores(out / f"fold{fold}") for fold in range(3)]
    there = pooled.loc[["external/there"]]
    means = np.mean([fold.loc[there.index, "score"] for fold in folds], axis=0)
    np.testing.assert_allclose(there["score"], means)
    assert [check.faults for check in verify(out)] == [[]] * 10


def test_sweeps_are_told_its_validation_auc(settings, tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(tracked.Report, "summary", lambda _, **values: told.update(values))
    metrics = train(replace(settings, epochs=1, out=tmp_path / "run"))
    assert told["val_auc"] == metrics["val"]["auc"]


@pytest.mark.slow
def test_another_run_in_its_place_has_nothing_of_the_first(settings, tmp_path):
    options = replace(settings, epochs=1, out=tmp_path / "run")
    train(options)
    with pytest.raises(UserError, match="exists already"):
        train(options)
    changed = train(replace(options, seed=7, overwrite=True))
    assert changed == train(replace(options, seed=7, out=tmp_path / "other"))


def test_a_leak_of_either_marks_the_whole(settings, tiny, tmp_path):
    found = train(
        replace(
            settings,
            external=(f"self={tiny.path}",),
            epochs=1,
            allow_leakage=True,
            out=tmp_path / "run",
        )
    )
    assert all("leaky" in figures for figures in found.values())
    assert scores(tmp_path / "run")["leaky"].all()
