"""What a run says of itself: training beside validation, single views, the target's words."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from classifier.evaluate import EvaluateOptions, evaluate
from classifier.evaluation import page_figures
from classifier.options import TrainOptions
from classifier.records import MetricsRecord, ModelRecord, RunRecord
from classifier.run_folder import open_run, read_facts, read_meaning
from classifier.train import train
from classifier.trained import load_trained
from classifier.training import augmented_sheet, outputs, setup
from classifier.training.loop import Loop
from data.store import MELANOMA, TargetMeaning, write_dataset
from dermsynth.device import resolve
from dermsynth.manifest import read_manifest
from dermsynth.options import replace

SMALL = {"backbone": "vanilla-cnn", "weights": "none", "size": 32, "batch": 16, "views": 0}
CPU = {"device": "cpu", "precision": "fp32", "tracking": "none"}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)


@pytest.fixture
def options(tiny, tmp_path):
    return replace(TrainOptions(), data=tiny.path, epochs=1, out=tmp_path / "run", **SMALL, **CPU)


@pytest.fixture
def called(tmp_path, make_table, make_images):
    """A dataset whose target is called so; names begin with a letter of their own."""

    def called(name, meaning):
        targets = np.arange(120) % 4 == 0
        table = make_table(targets.astype(int), np.repeat(np.arange(30) % 4 - 1, 4), ord(name[0]))
        images = make_images(targets, 32, ord(name[0]))
        info = {"target": meaning}
        return write_dataset(tmp_path / name, images, table, info).path

    return called


def test_training_figures_are_those_of_the_steps(options, monkeypatch):
    """Of the scores that the losses of an epoch were computed from, mixed images left out."""
    seen, forward = [], Loop.forward

    def watch(self, batch):
        logits = forward(self, batch)
        seen.append((logits.detach(), batch.targets))
        return logits

    monkeypatch.setattr(Loop, "forward", watch)
    train(replace(options, cutmix=0.5))
    logits, targets = (torch.cat(each).numpy() for each in zip(*seen, strict=True))
    pure = np.isin(targets, (0, 1)).all(1)
    assert 0.3 < pure.mean() < 0.9
    found = read_facts(open_run(options.run.out)).best_epoch_figures
    assert found["train_auc"] == pytest.approx(roc_auc_score(targets[pure], logits[pure]))
    right = (logits[pure] >= 0) == (targets[pure] == 1)
    assert found["train_accuracy"] == pytest.approx(right.mean())


def test_the_sheet_shows_what_is_trained_on(options, tiny, monkeypatch):
    """The stored images first, at the network's size; then versions, none like another."""
    shown = []
    mosaic = augmented_sheet._mosaic
    monkeypatch.setattr(augmented_sheet, "_mosaic", lambda *a: shown.append(a) or mosaic(*a))
    train(replace(options, augment="siim-b3", cutmix=0.3))
    pixels, words, title = shown[0]
    assert pixels.shape == (6, 7, 32, 32, 3)
    assert words == ["malignant"] * 3 + ["not malignant"] * 3
    assert title == "stored, then as trained on: siim-b3, CutMix 0.3"
    known = {image.tobytes() for image in tiny.images[tiny.rows("train", 0)]}
    assert all(row[0].tobytes() in known for row in pixels)
    assert all(len({version.tobytes() for version in row}) == 7 for row in pixels)


def test_weights_of_classes_are_told_and_where_they_change_nothing(options):
    def told(**changes):
        given = replace(options, class_weights="balanced", cap=20, **changes)
        lines = outputs.describe(setup.look_up(given)).splitlines()
        return next(line for line in lines if line.startswith("weights"))

    # 20 and 14 images; 20 and 16; 20 and 20
    assert told() == "weights    not malignant 0.85, malignant 1.21"
    assert told(upsample=True, upsample_to=0.8) == "weights    not malignant 0.90, malignant 1.12"
    even = "weights    not malignant 1.00, malignant 1.00, all alike: they change nothing"
    assert told(upsample=True) == even


def test_no_sheet_where_images_stay_as_they_are(options):
    train(replace(options, augment="none"))
    assert not (options.run.out / "plots" / "augmented.png").exists()


def test_single_views_beside_the_mean_of_views(options, tiny, capsys):
    plain = train(replace(options, out=options.run.out.parent / "plain"))
    metrics = train(replace(options, tta=4, augment="rotate"))
    assert "AUC, 1v" in capsys.readouterr().out
    table = pd.read_parquet(options.run.out / "predictions.parquet")
    for part in ("val", "test"):
        rows = table[table["part"] == part]
        assert (rows["score"] != rows["plain_score"]).all()
        expected = roc_auc_score(rows["target"], rows["plain_score"])
        assert metrics[part]["auc_single_view"] == pytest.approx(expected)
        assert "auc_single_view" not in plain[part]
    trained = load_trained(options.run.out)
    images = tiny.images[tiny.rows("test", 0)]
    scores = trained.scores(images, resolve("cpu", "fp32"), tta=1)
    np.testing.assert_allclose(table.loc[table["part"] == "test", "plain_score"], scores, atol=1e-6)


def test_folds_average_single_views_too(options):
    metrics = train(replace(options, fold="all", tta=2))
    folds = [
        pd.read_parquet(options.run.out / f"fold{fold}" / "predictions.parquet").query(
            "part == 'test'"
        )
        for fold in range(3)
    ]
    mean = np.mean([rows["plain_score"] for rows in folds], axis=0)
    expected = roc_auc_score(folds[0]["target"], mean)
    assert metrics["test"]["auc_single_view"] == pytest.approx(expected)
    assert metrics["oof"]["auc_single_view"] is not None
    assert "auc_single_view" not in metrics["oof_ranked"]
    assert metrics["oof_ranked"]["accuracy"] is None


def test_what_the_target_is_called(options, called, monkeypatch, capsys):
    """The words of the dataset come with the model; an external set of another meaning is told."""
    monkeypatch.setattr(page_figures, "_finish", lambda *_: "data:,")
    monkeypatch.setattr(page_figures, "sheet", lambda *_: None)
    out, far = options.run.out, called("far", TargetMeaning())
    train(replace(options, data=called("moles", MELANOMA), external=(f"far={far}",)))
    told = capsys.readouterr().out
    assert "training   42 not melanoma + 14 melanoma real" in told
    assert "differs    far: its target 1 is malignant, that of training melanoma" in told
    assert "benign" not in told
    assert load_trained(out).target.meaning == MELANOMA == read_meaning(open_run(out))
    found = evaluate(EvaluateOptions(run=out, replicates=200))
    assert found["target"] == {"one": "melanoma", "zero": "not melanoma"}
    differs = "Its target 1 is malignant, that of the model melanoma: what is called melanoma here"
    assert found["parts"]["external/far"]["notes"][0].startswith(differs)
    assert not any(differs in note for note in found["parts"]["test"]["notes"])
    page = (out / "evaluation" / "evaluation.html").read_text()
    assert "<h3>Not melanoma, scored highest</h3>" in page
    assert "benign" not in page.lower().replace("real_benign", "").replace("synthetic_benign", "")
    assert "evidence for melanoma lies" in page
    assert "melanoma / n" in capsys.readouterr().out


def test_records_of_earlier_versions_are_read(options, called, seal_run, monkeypatch):
    """Without the words, the figures of the chosen epoch, accuracy and log loss."""
    monkeypatch.setattr(page_figures, "_finish", lambda *_: "data:,")
    monkeypatch.setattr(page_figures, "sheet", lambda *_: None)
    train(replace(options, data=called("moles", MELANOMA)))
    out = options.run.out
    model = json.loads((out / "model.json").read_text())
    del model["target"]["meaning"]
    meaning = ModelRecord.model_validate_json(json.dumps(model)).target.meaning
    assert meaning.words == ("not malignant", "malignant")
    before = read_manifest(out, "")
    (out / "model.json").write_text(json.dumps(model))
    seal_run(out, before.kind, before.inputs, before.options)
    assert read_meaning(open_run(out)) is None
    found = evaluate(EvaluateOptions(run=out, replicates=200))
    assert found["target"]["one"] == "melanoma"  # as its dataset says
    facts = json.loads((out / "run.json").read_text())
    del facts["best_epoch_figures"]
    assert RunRecord.model_validate_json(json.dumps(facts)).best_epoch_figures == {}
    metrics = json.loads((out / "metrics.json").read_text())
    for part in metrics.values():
        del part["accuracy"], part["accuracy_at_threshold"], part["log_loss"]
    old = MetricsRecord.model_validate_json(json.dumps(metrics)).root
    assert "-" in outputs.metrics_table(old, None)
