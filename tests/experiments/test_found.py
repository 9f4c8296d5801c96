"""What another experiment has computed is taken over where nothing that counts differs."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from classifier.options import TrainOptions
from data.phantom.config import PhantomPoolOptions
from data.prepare import PrepareOptions, prepare
from data.store import load_dataset
from dermsynth.errors import UserError
from dermsynth.manifest import read_manifest
from dermsynth.options import replace
from dermsynth.verify import verify
from experiments.executors import found
from experiments.executors.found import take_note, take_over, task_key
from experiments.executors.run_tasks import check_place, run_tasks
from experiments.options import ExperimentOptions
from experiments.tasks import Task

CLASSIFIER = {
    **{"backbone": "efficientnet-lite0", "weights": "none", "frozen": 5, "epochs": 1, "size": 32},
    **{"views": 1, "device": "cpu", "tracking": "none"},
}


def tasks_on(data: Path, **changes: object) -> list[Task]:
    """A pool of the phantom's sampler, and a training with it."""
    dataset = load_dataset(data)
    pool = replace(PhantomPoolOptions(), count=40, size=32)
    options = replace(TrainOptions(), **CLASSIFIER | {"data": data, "synthetic": "0.3"} | changes)
    inputs = {"dataset": dataset.as_input}
    return [
        Task("pools/oracle", "pool", (), pool),
        Task(
            *("trials/arm-seed0", "classifier", ("pools/oracle",), options),
            *(inputs, {"pool": "pools/oracle"}),
        ),
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "phantom"
    prepare(replace(PrepareOptions(), patients=40, prevalence=0.3, size=32, folds=3, out=out))
    return out


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that computed both tasks."""
    out = tmp_path_factory.mktemp("experiments") / "first"
    run(tasks_on(data), out)
    return out


def run(tasks: list[Task], out: Path) -> None:
    out.mkdir(exist_ok=True)
    assert run_tasks(tasks, out, replace(ExperimentOptions(Path("e")), device="cpu")) == []


def test_a_second_experiment_finds_everything(
    first: Path, data: Path, tmp_path: Path, monkeypatch, capsys
):
    shutil.copytree(first, tmp_path / "first")
    shutil.copytree(data, tmp_path / "moved")
    monkeypatch.setattr("experiments.executors.run_tasks.run_task", None)
    tasks = tasks_on(tmp_path / "moved", tracking="offline", cache_gib=1.0)
    run([dataclasses.replace(task, name=f"{task.name}") for task in tasks], tmp_path / "second")
    assert (
        f"trials/arm-seed0: found in {tmp_path}/first/trials/arm-seed0" in capsys.readouterr().out
    )
    for task in tasks:
        same = [read_manifest(task.folder(out), "").id for out in (first, tmp_path / "second")]
        assert same[0] == same[1]
    assert not any(check.faults for check in verify(tmp_path / "second"))
    shutil.rmtree(tmp_path / "first")  # a third one finds what the second has found
    run(tasks, tmp_path / "third")


@pytest.mark.slow
def test_workers_come_to_the_same(data: Path, first: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    other = dataclasses.replace(tasks_on(data, seed=1)[1], name="trials/arm-seed1")
    tasks = [*tasks_on(data), other]
    for name, workers in {"a": 1, "b": 2}.items():  # apart: nothing is found
        out = tmp_path / name / "out"
        out.mkdir(parents=True)
        options = replace(ExperimentOptions(Path("e")), device="cpu", workers=workers)
        assert run_tasks(tasks, out, options) == []
        assert not (out / ".features").exists()
    here, workers = (
        [read_manifest(task.folder(tmp_path / name / "out"), "").id for task in tasks]
        for name in "ab"
    )
    assert here == workers


def test_what_was_found_is_not_changed_with_its_copy(first: Path, data: Path):
    second = first.parent / "second"
    run(tasks_on(data), second)
    mine, other = (out / "trials/arm-seed0/metrics.json" for out in (second, first))
    assert mine.samefile(other)
    shutil.rmtree(second)
    assert not any(check.faults for check in verify(first))


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"lr": 0.002}, {"fold": 1}, {"precision": "bf16"}, {"epochs": 2}]
)
def test_another_option_is_another_key(data: Path, first: Path, changes: dict[str, object]):
    before, now = tasks_on(data)[1], tasks_on(data, **changes)[1]
    assert task_key(now, first) != task_key(before, first)


def test_other_inputs_or_another_program_are_another_key(data: Path, first: Path, monkeypatch):
    _, task = tasks_on(data)
    before = task_key(task, first)
    other = {"dataset": task.inputs["dataset"].model_copy(update={"id": "0" * 64})}
    assert task_key(dataclasses.replace(task, inputs=other), first) != before
    elsewhere = dataclasses.replace(task, name="trials/other", needs=())
    assert task_key(elsewhere, first) == before  # what it is called does not count
    monkeypatch.setattr(found, "program", lambda: {"version": "9"})
    assert task_key(task, first) != before


@pytest.mark.parametrize("damage", ["file", "manifest", "gone", "another", "note", "outside"])
def test_what_is_damaged_is_computed_again(first: Path, data: Path, tmp_path: Path, damage: str):
    copy, out = tmp_path / "first", tmp_path / "second"
    shutil.copytree(first, copy)
    out.mkdir()
    task = tasks_on(data)[0]
    folder = task.folder(copy)
    (note,) = (copy / ".tasks").glob(f"{task_key(task, copy)}.json")
    if damage == "file":
        (folder / "pool.json").write_text((folder / "pool.json").read_text() + " ")
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{}")
    elif damage == "gone":
        shutil.rmtree(folder)
    elif damage == "another":
        note.write_text(json.dumps({"folder": "pools/oracle", "id": "1" * 64}))
    elif damage == "outside":
        shutil.move(folder, tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        note.write_text("no JSON")
    assert take_over(task, out) is None
    assert not task.folder(out).exists()


def test_what_was_begun_is_gone_on_with(first: Path, data: Path, tmp_path: Path):
    shutil.copytree(first, tmp_path / "first")
    task = tasks_on(data)[0]
    task.folder(tmp_path / "second").mkdir(parents=True)
    assert take_over(task, tmp_path / "second") is None


def test_a_note_is_of_a_finished_folder(data: Path, tmp_path: Path):
    with pytest.raises(UserError, match="missing"):
        take_note(tasks_on(data)[0], tmp_path)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"workers": 2, "executor": "ray"}, "--workers 2: has an effect with --executor local"),
        ({"address": "head:6379"}, "--address head:6379: has an effect with --executor ray"),
    ],
)
def test_an_option_of_the_other_executor_is_refused(given: dict[str, object], match: str):
    with pytest.raises(UserError, match=match):
        check_place(replace(ExperimentOptions(Path("e")), **given))
