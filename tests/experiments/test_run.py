"""The runner on a tiny phantom: what it writes, what it repeats after a kill, what it refuses."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from classifier.options import TrainOptions
from classifier.train import train
from classifier.trained import load_folds
from data.pool import load_pool
from data.prepare import PrepareOptions, prepare
from data.store import load_dataset, write_dataset
from dermsynth.cli import from_mapping
from dermsynth.device import resolve
from dermsynth.errors import UserError
from dermsynth.options import replace
from dermsynth.verify import verify
from experiments.compared import check_alike
from experiments.config import Arm, Source, Split, Trial
from experiments.options import ExperimentOptions
from experiments.page import write_report
from experiments.run import run_experiment
from experiments.synthetic_scores import shortcuts
from experiments.tasks import audit_pool_name
from gan.options import TrainOptions as GanOptions

CLASSIFIER = {
    "backbone": "efficientnet-lite0",
    "weights": "none",
    "frozen": 5,
    "epochs": 1,
    "size": 32,
    "views": 2,
    "smoke": True,
}
EXPERIMENT = {
    "seeds": [0, 1],
    "gan_seeds": [0],
    "gan": {"kimg": 0.032, "batch": 8},
    "classifier": CLASSIFIER,
    "arms": {
        "real": {},
        "real_oversampled": {"oversample": 0.3},
        "synthetic": {"synthetic": 0.3},
    },
    "comparisons": [["synthetic", "real"], ["synthetic", "real_oversampled"]],
    "bootstrap": 1000,
}
FIELDS = {
    *("arm", "reference", "test_set", "auc_arm", "auc_reference", "delta_auc", "ci_low", "ci_high"),
    *("p_delong", "p", "p_holm", "mde", "verdict"),
}


@pytest.fixture(scope="module", autouse=True)
def short_evaluations() -> Iterator[None]:
    """Its networks learn enough elsewhere, where plots are looked at, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classifier.training.outputs.draw_plots", lambda *_: None)
        patch.setattr("gan.evaluation.audit.STEPS", 10)
        patch.setattr("gan.scorer.SCORED", 32)
        patch.setattr("gan.evaluation.diagnosis_network.EPOCHS", 1)
        patch.setattr("gan.evaluation.diagnosis_network.LEAST_STEPS", 5)
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "phantom"
    prepare(replace(PrepareOptions(), patients=80, prevalence=0.3, size=64, out=out))
    return out


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> ExperimentOptions:
    """An experiment with a real generator, run once for the tests below."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    options = ExperimentOptions(folder / "e.yaml", data=dataset)
    options = replace(options, out=folder / "out", device="cpu", tracking="none")
    run_experiment(options)
    return options


def resumed(options: ExperimentOptions, **changes: object) -> ExperimentOptions:
    return replace(options, **{"resume": True, **changes})


def results(out: Path) -> tuple[list[dict], pd.DataFrame]:
    comparisons = json.loads((out / "comparisons.json").read_text())
    return comparisons, pd.read_parquet(out / "trials.parquet")


def test_everything_a_reader_needs_is_there(finished: ExperimentOptions):
    comparisons, trials = results(finished.run.out)
    assert [(row["arm"], row["reference"]) for row in comparisons] == [
        tuple(pair) for pair in EXPERIMENT["comparisons"]
    ]
    assert all(row.keys() >= FIELDS for row in comparisons)
    assert len(trials) == 6
    assert set(trials["status"]) == {"done"}
    assert trials.set_index("arm").loc["real", "gan_seed"].isna().all()
    predictions = pd.read_parquet(finished.run.out / "predictions.parquet")
    scored = predictions.groupby(["arm", "seed"])["image_id"].agg(lambda ids: tuple(sorted(ids)))
    assert len(set(scored)) == 1  # every trial was tested on the same images
    page = (finished.run.out / "report.html").read_text()
    assert "</html>" in page
    plan = json.loads((finished.run.out / "plan.json").read_text())
    assert plan["design_sha256"] in page
    assert plan["made"] in page
    assert {path.name for path in (finished.run.out / "grids").iterdir()} == {
        "real.png",
        "synthetic.png",
    }


def test_arms_train_for_the_same_number_of_steps(finished: ExperimentOptions):
    steps = {
        json.loads((folder / "run.json").read_text())["steps"]
        for folder in (finished.run.out / "trials" / "fold0").iterdir()
    }
    assert len(steps) == 1


def test_only_what_is_missing_is_done_again_and_gives_the_same(finished: ExperimentOptions):
    before, trials = results(finished.run.out)
    folders = sorted((finished.run.out / "trials" / "fold0").iterdir())
    shutil.rmtree(folders[0])
    times = {path: path.stat().st_mtime_ns for path in finished.run.out.rglob("model.safetensors")}
    run_experiment(resumed(finished))
    after, trials_after = results(finished.run.out)
    assert after == before
    pd.testing.assert_frame_equal(
        trials.drop(columns="seconds"), trials_after.drop(columns="seconds")
    )
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_changed_experiment_is_not_resumed(finished: ExperimentOptions, tmp_path: Path):
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"margin": 0.02}))
    with pytest.raises(UserError, match=r"margin: was 0.01, now 0.02"):
        run_experiment(resumed(finished, experiment=tmp_path / "e.yaml"))


def test_a_moved_experiment_goes_on_and_its_report_is_written_again(
    finished: ExperimentOptions, tmp_path: Path
):
    before = results(finished.run.out)[0]
    shutil.copytree(finished.run.out, tmp_path / "moved")
    shutil.copytree(finished.data, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "moved" / "trials" / "fold0" / "real-seed0")
    run_experiment(resumed(finished, out=tmp_path / "moved", data=tmp_path / "elsewhere"))
    assert results(tmp_path / "moved")[0] == before
    (tmp_path / "moved" / "report.html").unlink()
    write_report(tmp_path / "moved")
    assert all(not check.faults for check in verify(tmp_path / "moved"))


def test_labels_that_change_between_two_trials_are_refused(
    finished: ExperimentOptions, tmp_path: Path
):
    shutil.copytree(finished.run.out, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "trials" / "fold0" / "synthetic-seed0-gan0")
    data = load_dataset(finished.data)
    inverted = data.table.assign(target=1 - data.table["target"])
    write_dataset(tmp_path / "d", np.asarray(data.images), inverted, {})
    with pytest.raises(UserError, match="dataset: other targets"):
        run_experiment(resumed(finished, out=tmp_path / "out", data=tmp_path / "d"))


def test_a_trial_of_another_dataset_is_not_taken_for_one_of_this(
    finished: ExperimentOptions, tmp_path: Path
):
    shutil.copytree(finished.run.out, tmp_path / "out")
    data = load_dataset(finished.data)
    inverted = data.table.assign(target=1 - data.table["target"])
    other = write_dataset(tmp_path / "d", np.asarray(data.images), inverted, {})
    trial = tmp_path / "out" / "trials" / "fold0" / "real-seed0"
    shutil.rmtree(trial)
    train(replace(TrainOptions(), **CLASSIFIER, data=other.path, out=trial, tracking="none"))
    with pytest.raises(UserError, match=r"real-seed0: .*dataset: other targets"):
        run_experiment(resumed(finished, out=tmp_path / "out"))


@pytest.mark.parametrize("column", ["target", "group", "image_id"])
def test_trials_of_other_images_are_not_compared(column: str):
    rows = {"arm": "real", "fold": 0, "seed": 0, "gan_seed": pd.NA, "test_set": "test"}
    images = pd.DataFrame({"image_id": ["a", "b"], "target": [0, 1], "group": ["1", "2"]})
    other = images.assign(**{column: images[column].to_numpy()[::-1]})
    other = other if column != "image_id" else images.assign(image_id=["a", "c"])
    both = pd.concat([images.assign(**rows), other.assign(**rows | {"arm": "synthetic"})])
    with pytest.raises(UserError, match=f"not tested on the same test: other {column}"):
        check_alike(both.reset_index(drop=True))


def test_a_taken_folder_is_refused(finished: ExperimentOptions):
    with pytest.raises(UserError, match="--overwrite"):
        run_experiment(resumed(finished, resume=False))


def test_an_unknown_name_names_the_nearest_experiment(tmp_path: Path):
    with pytest.raises(UserError, match="quik: did you mean quick"):
        run_experiment(ExperimentOptions(Path("quik"), data=tmp_path))


ROTATED = EXPERIMENT | {
    "folds": "rotate",
    "seeds": [0],
    "gan": EXPERIMENT["gan"] | {"classes": "target"},
    "arms": {
        "real": {},
        "few": {"malignant_share": 0.5},
        "twice": {"synthetic": "2x"},
        "synthetic_only": {"synthetic": "1x", "synthetic_only": True},
        "both": {"synthetic": 0.3, "both_classes": True},
    },
    "comparisons": [["twice", "real"], ["synthetic_only", "real"], ["both", "real"]],
}


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment that tests on three folds in turn."""
    folder = tmp_path_factory.mktemp("rotated")
    options = replace(PrepareOptions(), patients=90, prevalence=0.35, size=32)
    prepare(replace(options, folds=3, test_fraction=0, out=folder / "phantom"))
    (folder / "e.yaml").write_text(yaml.safe_dump(ROTATED))
    options = ExperimentOptions(folder / "e.yaml", data=folder / "phantom")
    run_experiment(replace(options, out=folder / "out", device="cpu", tracking="none"))
    return folder / "out"


@pytest.mark.slow
def test_rotation_tests_every_image_once_by_models_that_never_saw_it(rotated: Path):
    table = load_dataset(rotated.parent / "phantom").table.set_index("image_id")
    predictions = pd.read_parquet(rotated / "predictions.parquet")
    tested = predictions[(predictions["test_set"] == "test") & (predictions["arm"] == "real")]
    assert sorted(tested["image_id"]) == sorted(table.index)
    assert (tested["fold"].to_numpy() == table.loc[tested["image_id"], "fold"].to_numpy()).all()
    chosen_on = predictions[(predictions["test_set"] == "val") & (predictions["arm"] == "real")]
    folds = table.loc[chosen_on["image_id"], "fold"].to_numpy()
    assert (folds == (chosen_on["fold"] + 1) % 3).all()
    for path in sorted(rotated.glob("gan/*/generator.json")):
        record = json.loads(path.read_text())
        assert set(table.loc[record["training_ids"], "fold"]) == {
            fold for fold in range(3) if fold not in (record["fold"], record["test_fold"])
        }


@pytest.mark.slow
def test_arms_hold_the_images_that_their_names_say(rotated: Path):
    counts = {
        arm: json.loads((rotated / f"trials/fold0/{name}/run.json").read_text())["training_images"]
        for arm, name in {
            **{name: f"{name}-seed0" for name in ("real", "few")},
            **{name: f"{name}-seed0-gan0" for name in ("twice", "synthetic_only", "both")},
        }.items()
    }
    real = counts["real"]
    benign, malignant = real["real_benign"], real["real_malignant"]
    assert counts["twice"] == real | {"synthetic_malignant": 2 * malignant}
    assert counts["synthetic_only"] == real | {
        "real_malignant": 0,
        "synthetic_malignant": malignant,
    }
    both = counts["both"]
    assert both["synthetic_malignant"] + both["synthetic_benign"] == round(
        0.3 / 0.7 * (benign + malignant)
    )
    share = both["synthetic_malignant"] / (both["synthetic_malignant"] + both["synthetic_benign"])
    assert share == pytest.approx(malignant / (benign + malignant), abs=0.02)
    assert 0.35 < counts["few"]["real_malignant"] / malignant < 0.65
    steps = {
        json.loads((folder / "run.json").read_text())["steps"]
        for folder in (rotated / "trials" / "fold0").iterdir()
        if not folder.name.startswith("few")
    }
    assert len(steps) == 1


def test_a_classifier_of_real_images_says_how_malignant_the_pool_looks(finished: ExperimentOptions):
    out = finished.run.out
    record = json.loads((out / "experiment.json").read_text())
    (one,) = record["labels"]  # of the first seed alone: one pool
    assert (one["arm"], one["reference"]) == ("synthetic", "real")
    run = out / "trials" / "fold0" / "real-seed0"
    (model,) = load_folds(run)
    scores = pd.read_parquet(run / "predictions.parquet").query("part == 'test'")
    assert one["auc_real"] == pytest.approx(roc_auc_score(scores["target"], scores["score"]))
    pool = np.asarray(load_pool(out / "pools" / "default-fold0-seed0").images[:])
    assert one["n_synthetic"] == len(pool) < 200
    size = model.networks[0].model.spec.at_once  # it hardly learned: ties that rounding decides
    batches = [pool[at : at + size] for at in range(0, len(pool), size)]
    made = np.concatenate([model.scores(b, resolve("cpu", "fp32"), "tested") for b in batches])
    benign = scores.loc[scores["target"] == 0, "score"]
    expected = roc_auc_score([1] * len(made) + [0] * len(benign), [*made, *benign])
    assert one["auc"] == pytest.approx(expected)
    assert "Do they look like melanoma?" in (out / "report.html").read_text()


def test_how_much_melanoma_each_arm_expects_is_in_the_record(finished: ExperimentOptions):
    out = finished.run.out
    record = json.loads((out / "experiment.json").read_text())
    found = {(one["arm"], one["test_set"]): one for one in record["expectations"]}
    assert {arm for arm, _ in found} == EXPERIMENT["arms"].keys()
    for arm in ("real", "real_oversampled", "synthetic"):
        runs = [run for run in (out / "trials" / "fold0").iterdir() if f"{arm}-seed" in run.name]
        parts = [pd.read_parquet(run / "predictions.parquet") for run in runs]
        tested = pd.concat(parts).query("part == 'test'")
        assert found[arm, "test"]["expected"] == pytest.approx(tested["score"].mean())
        assert found[arm, "test"]["observed"] == pytest.approx(tested["target"].mean())
    real, twice, made = (found[arm, "test"]["trained_on"] for arm in EXPERIMENT["arms"])
    n_train = record["counts"]["train"]
    share = n_train["malignant"] / (n_train["malignant"] + n_train["benign"])
    assert real == pytest.approx(share)
    assert twice == pytest.approx(made)  # as many melanomas
    assert made == pytest.approx(1 - (1 - 0.3) * (1 - share), abs=0.01)
    assert "Do they count as real ones?" in (out / "report.html").read_text()


@pytest.mark.slow
def test_benign_images_of_the_generator_are_scored_for_a_shortcut(rotated: Path):
    shortcuts = json.loads((rotated / "experiment.json").read_text())["shortcuts"]
    asked = {(one["arm"], one["fold"]) for one in shortcuts}
    assert asked == {(arm, fold) for arm in ("twice", "synthetic_only") for fold in range(3)}
    assert {one["reference"] for one in shortcuts} == {"real"}
    assert all(0 <= one["auc"] <= 1 and 0 <= one["auc_reference"] <= 1 for one in shortcuts)


@pytest.mark.slow
def test_without_the_benign_pool_there_is_a_result_all_the_same(tmp_path: Path):
    options = from_mapping(GanOptions, {"classes": "target"}, "gan")
    arm = Arm("synthetic", Source("gan", "default", options), TrainOptions())
    trial = Trial(arm, Split(1, 0), 0, 0)
    assert audit_pool_name(trial) == "pools/default-fold0-seed0-benign-audit"
    assert shortcuts(tmp_path, [], [trial], pd.DataFrame(), resolve("cpu", "fp32")) == []


@pytest.mark.slow
def test_the_plan_was_made_before_and_stands_in_the_report(rotated: Path):
    plan = json.loads((rotated / "plan.json").read_text())
    assert plan["cost"]["n_trainings"] == len(pd.read_parquet(rotated / "trials.parquet")) == 15
    assert plan["cost"]["n_generators"] == 3
    assert plan["visible"] is None  # one classifier seed: no verdict
    page = (rotated / "report.html").read_text()
    assert plan["design_sha256"][:16] in page
    assert plan["made"] in page
    assert f"<dd>{plan['made'][:16].replace('T', ' ')} UTC</dd>" in page


def test_the_record_has_parts_rates_mistakes_and_what_made_the_images(
    finished: ExperimentOptions, dataset: Path
):
    out = finished.run.out
    assert out is not None
    record = json.loads((out / "experiment.json").read_text())
    first = json.loads((out / "comparisons.json").read_text())[0]
    assert first["made_by"].startswith("one generator trained here, ")
    assert first["reference_made_by"] == ""
    table = load_dataset(dataset).table
    tested = table[table["fold"] == -1]
    assert record["parts"]["test"]["images"] == first["n"] == len(tested)
    assert record["parts"]["test"]["patients"] == tested["patient_id"].nunique()
    asked = {(one["arm"], one["threshold"]) for one in record["operating"]}
    assert len(asked) == len(record["operating"]) == 3 * 3
    for one in record["mistakes"]:
        assert one["image_id"] in set(tested["image_id"])
        assert (out / one["file"]).exists()


def test_a_plan_stops_before_anything_is_trained_and_is_kept(
    finished: ExperimentOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    run_experiment(resumed(finished, out=out, resume=False, plan=True))
    assert "a true difference of" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"manifest.json", "plan.json"}
    before = (out / "plan.json").read_bytes()
    run_experiment(resumed(finished, out=out, plan=True))
    pilot = finished.run.out
    with pytest.raises(UserError, match=r"--pilot .*: .*plan.json has this design's plan already"):
        run_experiment(resumed(finished, out=out, plan=True, pilot=pilot))
    assert (out / "plan.json").read_bytes() == before
    other = tmp_path / "other"
    for resume in (False, True):
        run_experiment(resumed(finished, out=other, resume=resume, plan=True, pilot=pilot))
    assert "variances of" in json.loads((other / "plan.json").read_text())["visible"]["source"]
