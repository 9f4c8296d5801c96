"""Every recipe runs end to end, in small."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from classifier.options import RECIPES, TrainOptions
from classifier.predict import PredictOptions, predict
from classifier.train import train
from classifier.training import outputs
from data.store import write_dataset
from dermsynth import cli
from dermsynth.options import ComputeOptions

FILES = sorted(RECIPES.glob("*.yaml"))
NAMES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


@pytest.fixture(scope="module")
def lesions(tmp_path_factory, make_table, make_images):
    """84 images of seven diagnoses in two folds and a test part, with age, sex and site."""
    diagnosis = np.array(NAMES * 12, object)
    targets = (diagnosis == "mel").astype(int)
    folds = np.repeat(np.arange(12) % 3 - 1, 7)
    rng = np.random.default_rng(0)
    table = make_table(targets, folds).assign(
        diagnosis=diagnosis,
        group=[f"g{at}" for at in range(84)],
        age=rng.integers(20, 90, 84).astype(float),
        sex=rng.choice(["male", "female"], 84),
        site=rng.choice(["back", "face"], 84),
    )
    out = tmp_path_factory.mktemp("data") / "lesions"
    return write_dataset(out, make_images(targets, 64), table, {})


def smoke(recipe, lesions, out, *more):
    argv = ["--config", str(recipe), "--data", str(lesions.path), "--out", str(out)]
    argv += ["--smoke", "--tracking", "none", "--device", "cpu", *more]
    return cli.parse(TrainOptions, argv, "classifier.train", "")


SLOW = (
    # large networks
    "b3-meta-cutmix",
    "b6-1024",
    "b6-tta-meta-ensemble",
    "ham7-densenet",
    "ham7-vgg",
    "ham7-vgg-aux",
    # `default` trains the first two, `frozen18` is as plain as the last
    "other-clinics",
    "own-clinic",
    "ham7-scratch",
)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
        for path in FILES
    ],
)
def test_a_recipe_from_training_to_scores(recipe, lesions, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)
    run = tmp_path / "run"
    metrics = train(smoke(recipe, lesions, run))
    assert metrics["test"]["auc"] is not None
    rows = pd.read_parquet(run / "predictions.parquet")
    options = yaml.safe_load((run / "config.yaml").read_text())
    if options["fold"] == "all":
        assert list(metrics)[:3] == ["oof", "oof_ranked", "val_mean"]
        assert sorted(rows.loc[rows["part"] == "oof", "image_id"]) == sorted(
            lesions.table.loc[lesions.table["fold"] >= 0, "image_id"]
        )
    if options["target"] == "diagnosis":
        classes = rows[[f"score_{name}" for name in NAMES]].to_numpy()
        np.testing.assert_allclose(classes.sum(1), 1)
        np.testing.assert_allclose(rows["score_mel"], rows["score"])
    written = predict(
        PredictOptions(run, lesions.path, tmp_path / "s.csv", compute=ComputeOptions("cpu"))
    )
    known = rows[rows["part"] == "test"].set_index("image_id")["score"]
    found = written.set_index("image_name")["target"][known.index]
    if options["tta"] == 1:
        np.testing.assert_allclose(found, known, atol=2e-3)


@pytest.mark.parametrize("recipe", FILES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_is_and_how_to_run_it(recipe):
    lines = recipe.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines if line.startswith("#")]
    assert f"#   python -m classifier.train --config {recipe.stem} " in "\n".join(header)
    cli.parse(TrainOptions, ["--config", str(recipe)], "classifier.train", "")


@pytest.mark.parametrize("recipe", FILES, ids=lambda path: path.stem)
def test_no_recipe_evens_classes_out_and_weighs_them_then(recipe):
    options = cli.parse(TrainOptions, ["--config", str(recipe)], "classifier.train", "")
    sampled, weights = options.training_set, options.objective.class_weights
    assert weights == "none" or not sampled.upsample or sampled.upsample_to < 1


def test_cross_validation_goes_on_where_it_stopped(lesions, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)
    common = ("--fold", "all", "--backbone", "vanilla-cnn", "--weights", "none")
    recipe = RECIPES / "ham7-scratch.yaml"
    whole = train(smoke(recipe, lesions, tmp_path / "whole", *common))
    step = outputs.write_outputs

    def dies(setup, *rest):
        if setup.fold == 1:
            raise KeyboardInterrupt
        return step(setup, *rest)

    from classifier.training import run as module

    monkeypatch.setattr(module, "write_outputs", dies)
    with pytest.raises(KeyboardInterrupt):
        train(smoke(recipe, lesions, tmp_path / "run", *common))
    assert not (tmp_path / "run" / "metrics.json").exists()
    monkeypatch.setattr(module, "write_outputs", step)
    again = train(smoke(recipe, lesions, tmp_path / "run", *common, "--resume"))
    assert "fold0 is finished already" in capsys.readouterr().out
    assert again == whole == json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert sorted(p.name for p in (tmp_path / "run" / "plots").iterdir()) == ["pr.png", "roc.png"]
