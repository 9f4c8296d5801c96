import json

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.naive_bayes import GaussianNB

from classifier.metadata import MetadataOptions, train
from classifier.training.metadata_models import fit
from data.store import EXTRA, seal_dataset
from dermsynth import cli, files
from dermsynth.errors import UserError
from dermsynth.options import replace
from dermsynth.verify import verify

TABLE_ONLY = {"options": {"tables_only": True}}  # of dataset.json


@pytest.fixture
def people(make_table):
    """400 rows in three folds and a test part; older men have more melanoma."""
    rng = np.random.default_rng(0)
    age, male = rng.integers(2, 18, 400) * 5.0, rng.random(400) < 0.5
    malignant = rng.random(400) < 1 / (1 + np.exp(3 - age / 25 - male))
    table = make_table(malignant.astype(int), rng.integers(-1, 3, 400))
    age[rng.random(400) < 0.1] = np.nan
    sex, site = np.where(male, "male", "female"), rng.choice(["torso", "head/neck"], 400)
    return table.assign(age=age, sex=sex, site=site, diagnosis=None)


@pytest.fixture
def save(tmp_path):
    def save(table, name="people"):
        folder = tmp_path / name
        folder.mkdir()
        seal_dataset(folder, table, TABLE_ONLY)
        return folder

    return save


@pytest.fixture
def run(save, tmp_path):
    """Train on a table; the run's predictions."""
    count = iter(range(100))

    def run(table, **options):
        number = next(count)
        out = tmp_path / f"run{number}"
        train(replace(MetadataOptions(save(table, f"data{number}")), out=out, **options))
        return pd.read_parquet(out / "predictions.parquet")

    return run


PARTS = {"training": "train", "validation": "val"}
MODELS = {
    "logistic": LogisticRegression(class_weight="balanced", max_iter=1000),
    "naive-bayes": GaussianNB(),
    "forest": RandomForestClassifier(1000, max_depth=2, class_weight="balanced", random_state=3),
    "boosting": HistGradientBoostingClassifier(class_weight="balanced", random_state=3),
}


def test_a_fold_gets_the_scores_of_scikit_learn_alone(people, run):
    known, val = people["fold"].isin([0, 2]), people["fold"] == 1
    age = people["age"].fillna(people.loc[known, "age"].mean())
    of_known = age[known]
    columns = [(age - of_known.mean()) / of_known.std(ddof=0)]
    columns += [people["sex"] == name for name in ("female", "male")]
    columns += [people["site"] == name for name in ("head/neck", "torso")]
    features = np.column_stack(columns).astype(np.float32).astype(float)
    for name, model in MODELS.items():
        found = run(people, model=name, fold="1", seed=3).query("part == 'val'")
        model.fit(features[known], people.loc[known, "target"])
        assert found["image_id"].tolist() == people.loc[val, "image_id"].tolist()
        expected = model.predict_proba(features[val])[:, 1]
        np.testing.assert_allclose(found["score"], expected, atol=2e-5, err_msg=name)


def test_validation_rows_influence_nothing_that_was_fitted(people, run):
    """Whatever they hold, the test part gets the same scores, bit by bit."""
    val = people["fold"] == 0
    wild = people.copy()
    wild.loc[val, ["age", "sex", "site", "target"]] = [1e4, "neither", "moon", 1]
    trained = people.copy()
    trained.loc[people["fold"] == 1, "age"] = 30.0
    for name in ("logistic", "naive-bayes", "boosting"):
        one, other, changed = (
            run(table, model=name, fold="0").query("part == 'test'")["score"].to_numpy()
            for table in (people, wild, trained)
        )
        assert (one == other).all()
        assert (one != changed).any()
    rows, other = people[~val], wild[~val]
    assert (fit(rows, "logistic")[1].coef_ == fit(other, "logistic")[1].coef_).all()


def test_all_folds_are_the_single_folds_pooled(people, run):
    everything = run(people, model="logistic")
    singles = [run(people, model="logistic", fold=str(fold)) for fold in range(3)]
    val = pd.concat([one[one["part"] == "val"] for one in singles]).set_index("image_id")["score"]
    oof = everything[everything["part"] == "oof"].set_index("image_id")["score"]
    assert sorted(oof.index) == sorted(people.loc[people["fold"] >= 0, "image_id"])
    assert (oof == val[oof.index]).all()
    tests = [one.query("part == 'test'")["score"].to_numpy() for one in singles]
    found = everything[everything["part"] == "test"]
    np.testing.assert_allclose(found["score"], np.mean(tests, axis=0))
    assert found["image_id"].tolist() == people.loc[people["fold"] == -1, "image_id"].tolist()


def test_what_a_run_writes(people, save, tmp_path, capsys):
    data, out = save(people), tmp_path / "run"
    returned = train(replace(MetadataOptions(data), out=out))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == returned
    assert list(metrics) == ["oof", "oof_ranked", "val_mean", "test"]
    predictions = pd.read_parquet(out / "predictions.parquet")
    for part in ("oof", "test"):
        rows = predictions[predictions["part"] == part]
        assert metrics[part]["auc"] == pytest.approx(roc_auc_score(rows["target"], rows["score"]))
        precision = average_precision_score(rows["target"], rows["score"])
        assert metrics[part]["average_precision"] == pytest.approx(precision)
    assert metrics["oof"]["auc"] > 0.65  # that much is planted
    facts = json.loads((out / "run.json").read_text())
    assert facts["folds_hash"] == json.loads((data / "dataset.json").read_text())["folds_hash"]
    assert facts["leaky"] is None
    of_folds = [facts["fold_metrics"][str(fold)]["val"]["auc"] for fold in range(3)]
    assert metrics["val_mean"]["auc"] == pytest.approx(np.mean(of_folds))
    said = capsys.readouterr().out
    of_training = [facts["fold_metrics"][str(fold)]["train"]["auc"] for fold in range(3)]
    shown = [*of_folds, *of_training, metrics["oof"]["auc"], metrics["test"]["auc"]]
    assert all(f"{auc:.4f}" in said for auc in shown)
    again = cli.parse(
        MetadataOptions,
        ["--config", str(out / "config.yaml"), "--out", str(tmp_path / "again")],
        "",
        "",
    )
    train(again)
    same = pd.read_parquet(tmp_path / "again" / "predictions.parquet")
    pd.testing.assert_frame_equal(same, predictions)


def test_training_beside_validation(people, run, tmp_path, capsys):
    """Told on the screen and in run.json alone; no other file has what a model was fitted on."""
    predictions = run(people, model="boosting", fold="1")
    assert set(predictions["part"]) == {"val", "test"}
    assert list(json.loads((tmp_path / "run0" / "metrics.json").read_text())) == ["val", "test"]
    known = people["fold"].isin([0, 2])
    rows = people[known].reset_index(drop=True)
    encoder, model = fit(rows, "boosting")
    scores = model.predict_proba(encoder.transform(rows).astype(float))[:, 1]
    facts = json.loads((tmp_path / "run0" / "run.json").read_text())["fold_metrics"]["1"]
    assert facts["train"]["auc"] == pytest.approx(roc_auc_score(rows["target"], scores))
    assert facts["train"]["auc"] > facts["val"]["auc"] + 0.03
    lines = capsys.readouterr().out.splitlines()
    told = [line.split()[2:4] for line in lines if line.startswith("fold 1")]
    assert told == [[name, f"{facts[part]['auc']:.4f}"] for name, part in PARTS.items()]


def test_external_rows_are_trained_on_and_never_scored(people, run):
    people.loc[:99, "fold"] = EXTRA
    found = run(people)
    assert not set(found["image_id"]) & set(people.loc[:99, "image_id"])
    without = run(people[people["fold"] != EXTRA])
    assert (without["score"].to_numpy() != found["score"].to_numpy()).any()


def test_parts_that_lack_a_class_or_everything(people, run, tmp_path, capsys):
    people.loc[people["fold"] == 0, "target"] = 0
    found = run(people[people["fold"] != -1])
    assert set(found["part"]) == {"oof"}
    metrics = json.loads((tmp_path / "run0" / "metrics.json").read_text())
    assert metrics["test"]["auc"] is None
    assert metrics["val_mean"]["auc"] is None
    assert metrics["oof"]["auc"] is not None
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("fold 0, val")).split()[3] == "-"
    run(people, fold="0")
    metrics = json.loads((tmp_path / "run1" / "metrics.json").read_text())
    assert metrics["val"]["auc"] is None
    assert metrics["test"]["auc"] is not None
    assert metrics["test"]["threshold"] is None


def test_bad_input_is_told_and_nothing_is_written(people, save, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    options = replace(MetadataOptions(save(people)), out=out)

    def refused(match, **changes):
        with pytest.raises(UserError, match=match):
            train(replace(options, **changes))
        assert not out.exists()

    blank = people.assign(age=np.nan, sex=None, site=None)
    refused("age, sex and site of all .* fold 0 are missing", data=save(blank, "blank"))
    refused("no prepared dataset there", data=tmp_path / "no")
    refused("--fold 3: expected all or one of the folds of .*0, 1, 2", fold="3")
    refused("--fold -1: expected", fold="-1")
    benign = people.assign(target=(people["fold"] == 0).astype(int))
    refused(
        "all images of the training part of fold 0 are not malignant", data=save(benign, "benign")
    )
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=f"--out {out}"):
            train(replace(options, overwrite=overwrite))
    assert (out / "mine.txt").read_text() == "mine"
    monkeypatch.setattr("sys.argv", ["metadata", "--data", str(options.data), "--model", "svm"])
    with pytest.raises(SystemExit) as stop:
        cli.run(MetadataOptions, train, "classifier.metadata", "")
    assert stop.value.code == 2


def test_a_kill_while_writing_keeps_the_run_that_was_there(people, save, tmp_path, monkeypatch):
    options = replace(MetadataOptions(save(people)), out=tmp_path / "run")
    train(options)
    before = (options.output.out / "metrics.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        train(replace(options, overwrite=True, seed=1))
    assert (options.output.out / "metrics.json").read_bytes() == before
    assert verify(options.output.out)[0].faults == []
    assert not list(tmp_path.glob(".*"))
