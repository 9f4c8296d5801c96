"""What a plan says of minutes: measured here, not taken from another machine."""

from collections import Counter
from pathlib import Path

import pytest

from data.prepare import PrepareOptions, prepare
from data.store import load_dataset
from dermsynth.cli import from_mapping
from dermsynth.options import ComputeOptions, replace
from experiments import cost
from experiments.checks import find_splits
from experiments.config import CONFIGS, all_trials, read_experiment
from experiments.options import ExperimentOptions
from experiments.tasks import EVALUATION, GENERATOR, Task, task_list
from gan.options import EvaluateOptions
from gan.options import TrainOptions as GanOptions
from gan.trainer import Trainer


@pytest.mark.parametrize("classes", ["none", "target"])
def test_generators_take_what_their_steps_take_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: str
):
    prepare(replace(PrepareOptions(), patients=60, prevalence=0.4, size=32, out=tmp_path / "d"))
    now, steps = [0.0], []

    def step(trainer: Trainer, real, labels) -> None:
        assert (labels is None) == (classes == "none")
        now[0] += 9.0 if not steps else 3.0  # seconds; the first one loads what is slow to load
        steps.append(len(real))

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(cost.time, "monotonic", lambda: now[0])
    asked = [
        from_mapping(GanOptions, {"batch": 8, "classes": classes, **budget}, "gan")
        for budget in ({"kimg": 2, "seed": 0}, {"kimg": 4, "seed": 1}, {"minutes": 5})
    ]
    options = replace(ExperimentOptions(Path("quick")), device="cpu")
    minutes = cost._generator_minutes(load_dataset(tmp_path / "d"), asked, options)
    assert steps == [8, 8]  # one kind of generator
    assert minutes == pytest.approx((2000 + 4000) / 8 * 3 / 60 + 5)


def test_a_network_that_judges_is_counted_once_a_fold_and_share(tmp_path: Path):
    prepare(replace(PrepareOptions(), patients=60, size=32, out=tmp_path / "d"))
    asked = [(0, None, 1.0), (0, None, 1.0), (1, None, 1.0), (1, None, 0.5)]
    tasks = [
        Task(f"gan/{n}", GENERATOR, (), GanOptions(), awaits=each) for n, each in enumerate(asked)
    ]
    pool = Task("e", EVALUATION, (), replace(EvaluateOptions(), fold=0))
    options = replace(ExperimentOptions(Path("quick")), device="cpu")
    one = cost.NETWORK_MINUTES * 3200 / 20_000  # a hundred steps of 32, the least
    for given, networks in ((tasks, 3), (tasks[:2], 1), ([*tasks[:2], pool], 1), ([pool], 1)):
        minutes = cost._network_minutes(load_dataset(tmp_path / "d"), given, options)
        assert minutes == pytest.approx(networks * one, abs=0.05)
    on_a_gpu = replace(options, device="cuda")
    assert cost._network_minutes(load_dataset(tmp_path / "d"), tasks, on_a_gpu) == 0


def test_generators_of_a_fold_and_share_await_the_same_network(tmp_path: Path):
    prepare(replace(PrepareOptions(), patients=60, size=32, test_fraction=0, out=tmp_path / "d"))
    dataset = load_dataset(tmp_path / "d")
    experiment, arms = read_experiment(CONFIGS / "learning-curve.yaml")
    trials = all_trials(experiment, arms, find_splits(experiment, dataset))
    tasks = task_list(trials, dataset, ComputeOptions(), "none")
    awaited = Counter(task.awaits for task in tasks if task.awaits is not None)
    assert set(awaited.values()) == {3}  # generators
    assert {(fold, share) for _, fold, share in awaited} == {
        (fold, share) for fold in (0, 1) for share in (0.25, 0.5, 1.0)
    }
    assert {task.kind for task in tasks if task.awaits is not None} == {GENERATOR}
