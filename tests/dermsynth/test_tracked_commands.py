"""Every command at W&B: names, groups, typed options, figures, and who made what from what."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb_files import Tracked, offline_files, only_run, tracked

from data.preparation.options import PrepareOptions
from data.prepare import main as prepare_main
from dermsynth.options import replace

ROOT = Path(__file__).parents[2]
EXPERIMENT = {
    "seeds": [0, 1],
    "gan_seeds": [0],
    "classifier": {"backbone": "efficientnet-lite0", "frozen": 11, "size": 32},
    "arms": {"real": {}, "dose3": {"synthetic": 0.3}, "dose5": {"synthetic": 0.5}},
    "comparisons": [["dose3", "real"], ["dose5", "real"]],
}


def command(module: str, *words: object, **env: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=ROOT,
        env=kept | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "W&B" not in done.stdout  # no warning
    assert "not tracked" not in done.stdout
    return done.stdout


def kinds(names: dict) -> set[str]:
    """Kinds of artifacts of ours; W&B makes one of each table besides."""
    return {name.rsplit("-", 1)[0] for name in names if not name.startswith("run-")}


def test_a_dataset_is_a_run_with_its_counts(tmp_path: Path, monkeypatch):
    out = tmp_path / "tiny"
    said = command(
        *("data.prepare", "--patients", 40, "--size", 32, "--out", out, "--tracking", "offline")
    )
    assert "next: python -m data.report" in said
    run = only_run(out)
    assert (run.name, run.group, run.job) == ("tiny", "data-tiny", "data")
    assert (run.config["patients"], run.config["size"], run.config["tables_only"]) == (
        40,
        32,
        False,
    )
    columns, rows = run.table("parts")
    assert columns == ["fold", "images", "target_1", "groups"]
    assert [row[0] for row in rows] == [-1, 0, 1, 2, 3, 4]
    assert sum(row[1] for row in rows) == run.summary["images"]
    assert sum(row[2] for row in rows) == run.summary["target_1"]
    assert kinds(run.made) == {"dataset"}
    assert not run.used

    command("dermsynth", "verify", out)  # what W&B wrote is no damage

    monkeypatch.setenv("WANDB_MODE", "disabled")
    elsewhere = replace(PrepareOptions(), patients=40, size=32, out=tmp_path / "other")
    prepare_main(elsewhere)
    assert not (tmp_path / "other" / "wandb").exists()


def test_a_dataset_in_tensorboard(tmp_path: Path):
    out = tmp_path / "tiny"
    words = ("--patients", 40, "--size", 32, "--out", out, "--tracking", "tensorboard")
    command("data.prepare", *words)
    assert len([*(out / "tensorboard").glob("events.out.tfevents.*")]) == 1
    assert not (out / "wandb").exists()
    command("dermsynth", "verify", out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("all")


@pytest.fixture(scope="module")
def experiment(folder: Path) -> Path:
    file, out = folder / "doses.yaml", folder / "doses"
    file.write_text(yaml.safe_dump(EXPERIMENT))
    data = folder / "phantom"
    command(
        *("data.prepare", "--patients", 150, "--size", 64, "--out", data, "--tracking", "offline")
    )
    command(
        *("experiments.run", file, "--data", data, "--out", out, "--smoke"),
        *("--tracking", "offline", "--device", "cpu"),
    )
    return out


def runs(experiment: Path) -> dict[str, Tracked]:
    found = [
        tracked(path) for path in experiment.rglob("*.wandb") if path.parent.name != "latest-run"
    ]
    return {run.name: run for run in found}


@pytest.mark.slow
def test_an_experiment_is_a_group_whose_runs_are_told_apart(experiment: Path):
    found = runs(experiment)
    doses = {f"doses/fold0/dose{n}-seed{seed}-gan0" for n in (3, 5) for seed in (0, 1)}
    assert set(found) == doses | {
        *("doses", "doses/fold0/real-seed0", "doses/fold0/real-seed1"),
        "doses/gan/default-fold0-seed0",
        "doses/pools/default-fold0-seed0",
        "doses/evaluations/default-fold0-seed0",
    }
    assert {run.group for run in found.values()} == {"doses"}
    jobs = {name: run.job for name, run in found.items()}
    assert [jobs[name] for name in sorted(doses)] == ["train"] * 4
    assert jobs["doses"] == "compare"
    run = found["doses/fold0/dose5-seed1-gan0"]
    assert {"arm:dose5", "seed:1", "gan_seed:0", "fold:0", "experiment:doses"} <= set(run.tags)
    assert (run.config["arm"], run.config["synthetic"], run.config["frozen"]) == ("dose5", 0.5, 11)
    assert all("experiment:doses" in run.tags for run in found.values())


@pytest.mark.slow
def test_curves_pictures_and_tables_of_each_stage(experiment: Path):
    found = runs(experiment)
    run = found["doses/fold0/real-seed0"]
    assert run.metrics["*"] == "epoch"
    assert {"val_auc", "train_loss", "lr"} <= set(run.rows[0])
    for part in ("val", "test"):
        assert f"{part}/auc" in run.summary
        for chart in ("roc", "pr", "confusion"):
            assert run.table(f"{part}/{chart}_table")[1]
    for picture in ("curves", "roc", "pr", "augmented"):
        assert run.media(picture).is_file()
    gan = found["doses/gan/default-fold0-seed0"]
    assert gan.metrics["*"] == "kimg"
    assert {"loss_d", "loss_g", "kimg"} <= gan.keys
    assert gan.media("samples").is_file()
    assert found["doses/pools/default-fold0-seed0"].media("samples").is_file()
    scores = found["doses/evaluations/default-fold0-seed0"]
    assert {"kid", "precision", "recall", "memorisation", "faults"} <= set(scores.summary)
    assert "</html>" in scores.media("evaluation").read_text()


@pytest.mark.slow
def test_the_experiments_own_run_has_the_verdict_and_what_it_rests_on(experiment: Path):
    run = runs(experiment)["doses"]
    columns, rows = run.table("comparisons")
    assert [row[:3] for row in rows] == [["dose3", "real", "test"], ["dose5", "real", "test"]]
    assert run.summary["verdict"] == rows[0][columns.index("verdict")]
    assert run.summary["delta_auc"] == pytest.approx(rows[0][columns.index("delta_auc")])
    assert run.summary["headline"].lower().startswith(run.summary["verdict"])
    columns, trials = run.table("trials")
    assert len(trials) == 6
    lines = run.table("curve/synthetic_table")[1]
    assert len(lines) == 9  # three doses; mean and extremes
    for name in ("differences", "grid/real", "grid/synthetic", "report"):
        assert run.media(name).is_file(), name


@pytest.mark.slow
def test_each_stage_names_what_it_was_made_from(experiment: Path, folder: Path):
    found = runs(experiment)
    dataset = set(only_run(folder / "phantom").made) - {None}
    (dataset,) = (name for name in dataset if name.startswith("dataset"))
    gan, pool = found["doses/gan/default-fold0-seed0"], found["doses/pools/default-fold0-seed0"]
    training = found["doses/fold0/dose3-seed0-gan0"]
    assert set(gan.used) == {dataset}
    assert kinds(gan.made) == {"generator"}
    assert set(pool.used) == set(gan.made)
    assert kinds(pool.made) == {"pool"}
    assert set(training.used) == {dataset, *pool.made}
    assert kinds(training.made) == {"classifier", "predictions"}
    whole = found["doses"]
    predictions = {
        name for run in found.values() for name in run.made if name.startswith("predictions")
    }
    assert set(whole.used) == {dataset, *predictions}
    assert len(predictions) == 6
    (report,) = (one for name, one in whole.made.items() if name.startswith("experiment"))
    assert {entry.path for entry in report.manifest.contents} == {"identity.json", "report.html"}


@pytest.mark.slow
def test_a_model_is_evaluated_and_used(experiment: Path, folder: Path):
    trial, csv = experiment / "trials/fold0/real-seed0", folder / "scores" / "s.csv"
    csv.parent.mkdir()
    evaluation, data = folder / "evaluation", folder / "phantom"
    command(
        *("classifier.evaluate", "--run", trial, "--out", evaluation, "--replicates", 200),
        *("--tracking", "offline"),
    )
    command(
        *("classifier.predict", "--run", trial, "--data", data, "--out", csv),
        *("--tracking", "offline"),
    )
    run, made = only_run(evaluation), runs(experiment)["doses/fold0/real-seed0"].made
    assert (run.name, run.group, run.job) == ("evaluation", "evaluation-real-seed0", "evaluate")
    assert {"test/auc", "test/auc_low", "test/auc_high", "val/brier"} <= set(run.summary)
    columns, rows = run.table("failures/test")
    assert columns == ["image_id", "is", "score", "group", "image"]
    assert {row[1] for row in rows} == {"melanoma", "not melanoma"}
    assert set(run.used) == {name for name in made if not name.startswith("run-")}
    (path,) = offline_files(csv.parent)
    run = tracked(path)
    assert run.name == "scores/real-seed0-on-s"
    assert run.job == "predict"
    assert run.summary["images"] == run.summary["images"] > 0
    assert kinds(run.used) == {"classifier", "dataset"}
    assert kinds(run.made) == {"predictions"}
