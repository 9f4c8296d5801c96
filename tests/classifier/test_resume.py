"""Runs that are stopped, moved, killed at their end, finished and asked for more."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from classifier import records
from classifier.evaluation import calibration, operating_points
from classifier.options import TrainOptions, command
from classifier.run_folder import open_run
from classifier.train import train
from classifier.training import outputs, several
from classifier.training.loop import Loop
from data import prepare
from data.pool import write_pool
from data.provenance import Provenance
from data.store import write_dataset
from dermsynth import cli, manifest
from dermsynth.errors import UserError
from dermsynth.options import replace
from dermsynth.verify import verify

SMALL = {"backbone": "vanilla-cnn", "weights": "none", "size": 32, "batch": 16, "views": 0}
CPU = {"device": "cpu", "precision": "fp32", "tracking": "none"}


class Killed(BaseException):
    """Nothing in the program catches it."""


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)
    monkeypatch.setattr(several, "draw_fold_plots", lambda *_: None)


@pytest.fixture
def data(tiny, tmp_path):
    return Path(shutil.copytree(tiny.path, tmp_path / "d"))


@pytest.fixture
def options(data, tmp_path):
    return replace(TrainOptions(), data=data, epochs=2, out=tmp_path / "run", **SMALL, **CPU)


@pytest.fixture
def stopped(options, monkeypatch):
    """A run that was killed in its second epoch."""
    step = Loop.step

    def dies(self, number):
        if number == self.per_epoch:
            raise Killed
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", dies)
        with pytest.raises(Killed):
            train(options)
    return replace(options, resume=True)


def identity(out):
    made = manifest.read_manifest(out, "")
    return made.id if made.finished else None


def left(out):
    """What a run left in its folder and beside it that is not its own."""
    hidden = [path.name for path in (*out.glob(".*"), *out.parent.glob(f".{out.name}*"))]
    return hidden + [path.name for path in out.glob("checkpoint")]


def test_another_dataset_in_the_same_place_is_refused_by_name(stopped, tiny):
    """Seen: 59 of 95 test images had been trained on before the dataset was prepared anew."""
    table, images = tiny.table, np.asarray(tiny.images)
    changed = {
        "folds": table.assign(fold=np.roll(table["fold"], 4)),
        "targets": table.assign(target=1 - table["target"]),
        "groups": table.assign(group="one"),
    }
    for name, other in changed.items():
        write_dataset(stopped.task.data, images, other, {}, overwrite=True)
        with pytest.raises(UserError, match=rf"dataset: other {name}\)"):
            train(stopped)
    inverted = write_dataset(stopped.task.data, 255 - images, table, {}, overwrite=True)
    with pytest.raises(UserError, match=r"dataset: other images\)"):
        train(stopped)
    assert identity(stopped.run.out) is None
    write_dataset(inverted.path, images, table, {}, overwrite=True)
    train(stopped)


def test_runs_and_datasets_may_move_and_be_named_otherwise(stopped, tmp_path, monkeypatch):
    whole = train(replace(stopped, resume=False, out=tmp_path / "whole"))
    moved, data = tmp_path / "moved", tmp_path / "data2"
    stopped.run.out.rename(moved)
    stopped.task.data.rename(data)
    with pytest.raises(UserError, match=r"began with the dataset at .*say with --data"):
        train(replace(stopped, data=None, out=moved))
    for number, (there, out) in enumerate(
        [
            (data, moved),
            (Path("data2"), Path("x/../again1")),
            (tmp_path / "x" / ".." / "data2", Path("again2")),
        ]
    ):
        if number:
            shutil.copytree(tmp_path / "copy", tmp_path / f"again{number}")
        else:
            shutil.copytree(moved, tmp_path / "copy")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "x").mkdir(exist_ok=True)
        assert train(replace(stopped, data=there, out=out, device="auto")) == whole
        assert identity(out) == identity(tmp_path / "whole")


def test_its_own_config_file_resumes_a_run(stopped):
    config = stopped.run.out / "config.yaml"
    saved = yaml.safe_load(config.read_text())
    assert (saved["resume"], saved["overwrite"]) == (False, False)
    words = ["--config", str(config), "--resume"]
    train(cli.parse(TrainOptions, words, "classifier.train", ""))
    assert identity(stopped.run.out)
    assert left(stopped.run.out) == []


@pytest.mark.slow
def test_a_kill_at_any_step_of_the_end_changes_nothing(stopped, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    shutil.copytree(stopped.run.out, kept)
    train(replace(stopped, out=kept))
    whole = {path.name: path.read_bytes() for path in kept.iterdir() if path.is_file()}
    start, real = tmp_path / "start", os.replace
    shutil.copytree(stopped.run.out, start)
    for number in range(1, 30):
        shutil.rmtree(stopped.run.out)
        shutil.copytree(start, stopped.run.out)
        count = iter(range(1, 1000))

        def dies(source, target, count=count, number=number):
            if next(count) == number:
                raise Killed
            real(source, target)

        monkeypatch.setattr(os, "replace", dies)
        try:
            train(stopped)
        except Killed:
            monkeypatch.setattr(os, "replace", real)
            train(stopped)
        else:
            break
        assert left(stopped.run.out) == []
        for name in ("metrics.jsonl", "metrics.json", "model.safetensors", "model.json"):
            assert (stopped.run.out / name).read_bytes() == whole[name], (number, name)
        assert identity(stopped.run.out) == identity(kept)
        assert verify(stopped.run.out)[0].faults == []
    assert number > 8
    monkeypatch.setattr(os, "replace", real)
    (stopped.run.out / "checkpoint").mkdir()  # killed before it was removed
    train(stopped)
    assert left(stopped.run.out) == []


@pytest.mark.slow
def test_a_second_process_is_refused(stopped):
    seen = []
    step = Loop.step

    def meanwhile(self, number):
        if not seen:
            plain = replace(stopped, resume=False)
            seen.extend(elsewhere(plain, more) for more in ("--resume", "--overwrite"))
        return step(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "step", meanwhile)
        train(stopped)
    for ended in seen:
        assert ended.returncode == 2
        assert "is at work there" in ended.stderr
    assert left(stopped.run.out) == []


def elsewhere(options, more):
    """The command in a process of its own."""
    words = [sys.executable, *shlex.split(command(options))[1:], more]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


# --- finished runs -------------------------------------------------------------------------------


def test_a_finished_run_says_what_differs(options):
    metrics, before = train(options), identity(options.run.out)
    again = replace(options, resume=True)
    assert train(again) == metrics
    with pytest.raises(UserError, match=r"is finished(.|\n)*lr: was 0.001, now 0.5"):
        train(replace(again, lr=0.5, epochs=9))
    with pytest.raises(UserError, match=r"is finished(.|\n)*epochs: was 2, now 1"):
        train(replace(again, epochs=1))
    with pytest.raises(UserError, match="with --schedule one-cycle the learning rate of every"):
        train(replace(again, epochs=5))
    assert identity(options.run.out) == before


@pytest.mark.parametrize(
    "schedule",
    [
        {"schedule": "constant"},
        {"schedule": "plateau", "plateau_patience": 0},
        pytest.param({"schedule": "exponential", "decay": 0.5}, marks=pytest.mark.slow),
    ],
    ids=lambda schedule: schedule["schedule"],
)
def test_a_finished_run_goes_on_for_more_epochs(options, schedule, tmp_path, monkeypatch):
    options = replace(options, **schedule)
    whole = train(replace(options, epochs=4, out=tmp_path / "whole"))
    train(options)
    before = identity(options.run.out)
    more = replace(options, epochs=4, resume=True)
    step = Loop.step

    def dies(self, number):
        if number == self.per_epoch * 3:
            raise Killed
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", dies)
        with pytest.raises(Killed):
            train(more)
    assert identity(options.run.out) == before  # what is there stays until the longer run is
    assert train(more) == whole
    assert identity(options.run.out) == identity(tmp_path / "whole")
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (options.run.out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(tmp_path.glob(".*"))
    (kept,) = (options.run.out / "checkpoint").iterdir()
    assert kept.name == "newest.safetensors"
    shutil.rmtree(options.run.out / "checkpoint")
    with pytest.raises(UserError, match="no checkpoint to go on from"):
        train(replace(more, epochs=5))


def test_all_folds_resume_and_keep_together(options, data, tmp_path):
    options = replace(options, fold="all", epochs=1, schedule="constant")
    metrics = train(options)
    assert train(replace(options, resume=True)) == metrics
    with pytest.raises(UserError, match="no checkpoint to go on from"):
        train(replace(options, resume=True, epochs=2))
    out = tmp_path / "moved"
    options.run.out.rename(out)
    assert [check.faults for check in verify(out)] == [[]] * 4
    assert not list(out.rglob("checkpoint"))
    train(replace(options, fold=1, seed=4, out=tmp_path / "stranger"))
    shutil.rmtree(out / "fold1")
    (tmp_path / "stranger").rename(out / "fold1")
    from classifier.trained import load_folds

    with pytest.raises(UserError, match="fold1: is not the run that was trained with"):
        load_folds(out)


# --- what a run holds ----------------------------------------------------------------------------


def test_model_json_holds_what_its_user_needs(options):
    train(options)
    sealed = open_run(options.run.out)
    about = sealed.record("model.json", records.ModelRecord, records.VERSION)
    rows = sealed.table("predictions.parquet", ["part", "target", "score"])
    val = rows[rows["part"] == "val"]
    target, score = val["target"].to_numpy(), val["score"].to_numpy()
    assert about.temperature == calibration.fit_temperature(target, score)
    chosen = operating_points.choose_thresholds(target, score)
    assert about.thresholds.model_dump() == chosen
    assert (about.mean, about.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert set(sealed.manifest.parts) == {"weights", "model", "predictions", "from dataset"}
    changed = json.loads((options.run.out / "model.json").read_text()) | {"schema_version": 9}
    (options.run.out / "model.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"model\.json: it is not what was written"):
        sealed.record("model.json", records.ModelRecord, records.VERSION)


def test_weights_of_a_file_are_an_input(options, tmp_path):
    train(replace(options, epochs=1, out=tmp_path / "first"))
    file = tmp_path / "w.safetensors"
    shutil.copyfile(tmp_path / "first" / "model.safetensors", file)
    options = replace(options, weights=str(file))
    train(options)
    assert "weights" in manifest.read_manifest(options.run.out, "").inputs
    moved = file.rename(tmp_path / "moved.safetensors")
    again = replace(options, resume=True, weights=str(moved))
    train(again)  # the same content at another place
    train(replace(options, weights="none", epochs=1, out=tmp_path / "second", seed=9))
    shutil.copyfile(tmp_path / "second" / "model.safetensors", moved)
    with pytest.raises(UserError, match="weights: other file"):
        train(again)


# --- refused before anything is made -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"weights": "absent.pth"}, "no such file"),
        ({"weights": "damaged.pth"}, "damaged"),
        ({"synthetic": "0.3", "pool": Path("nowhere")}, "no synthetic pool there"),
        ({"synthetic": "0.3", "generator": Path("nowhere")}, "no finished generator there"),
        ({"external": ("far=nowhere",)}, "no prepared dataset there"),
        ({"external": ("../far=nowhere",)}, "expected a name of at most 64 letters"),
        ({"out": Path("taken")}, "exists already"),
        ({"fold": "all", "weights": "absent.pth"}, "no such file"),
    ],
)
def test_refused_before_a_phantom_is_drawn(options, changes, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.pth").write_bytes(b"x")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    monkeypatch.setattr(prepare, "prepare", None)
    with pytest.raises(UserError, match=match):
        train(replace(options, data=None, **changes))
    assert not options.run.out.exists()


def test_a_late_fold_is_refused_before_the_first_is_trained(options, tiny, tmp_path):
    """A pool that leaks on the second fold stops all of them."""
    images = np.asarray(tiny.images[:40])
    small = write_pool(
        tmp_path / "pool", images[:12], Provenance(kind="declared", statement="drawn")
    ).path
    table = tiny.table.copy()
    fold0 = table["fold"] == 0
    table.loc[fold0, "target"] = (np.arange(fold0.sum()) < 20).astype(int)
    data = write_dataset(tmp_path / "uneven", np.asarray(tiny.images), table, {}).path
    with pytest.raises(UserError, match="holds 12 images"):
        train(replace(options, data=data, fold="all", synthetic="0.2", pool=small))
    assert not options.run.out.exists()


def test_the_way_out_is_a_command_that_works(options, monkeypatch, capsys, tmp_path):
    options = replace(
        TrainOptions(), data=options.task.data, epochs=1, batch=16, size=32, out=tmp_path / "b3"
    )
    options = replace(options, **CPU)

    def no_network(*_):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(UserError) as error:
        train(options)
    line = str(error.value).partition("already: ")[2]
    assert "--backbone efficientnet-lite0 --frozen 11" in line
    assert line == command(replace(options, backbone="efficientnet-lite0", frozen=11))
    words = line.split()[3:]
    assert train(cli.parse(TrainOptions, words, "classifier.train", ""))
