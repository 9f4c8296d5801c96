"""Tasks in this process and in workers: order, second tries, what is left out, what stops all."""

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from fake_tasks import FakeTask, run_fake

from dermsynth import progress
from dermsynth.errors import UserError
from dermsynth.options import ComputeOptions
from experiments.executors import local
from experiments.executors.local import LocalWorkers, environment
from experiments.executors.run_tasks import make_executor
from experiments.executors.running import (
    Executor,
    Failure,
    Progress,
    Schedule,
    ThisProcess,
    execute,
)
from experiments.options import ExperimentOptions

CHAIN = [
    FakeTask("a"),
    FakeTask("b"),
    FakeTask("ab", ("a", "b")),
    FakeTask("abc", ("ab", "b")),
]


def calls(out: Path) -> list[str]:
    return (out / "calls").read_text().split()


@pytest.fixture(params=["here", "workers"])
def executor(request: pytest.FixtureRequest, tmp_path: Path) -> Executor:
    if request.param == "here":
        return ThisProcess(tmp_path, run_fake)
    return LocalWorkers(tmp_path, run_fake, 2, features=False)


def test_what_is_needed_comes_first(executor: Executor, tmp_path: Path):
    done: list[str] = []
    failures = execute(CHAIN, executor, on_done=lambda task: done.append(task.name))
    assert failures == []
    assert sorted(calls(tmp_path)) == sorted(done) == ["a", "ab", "abc", "b"]


def test_what_is_settled_is_not_computed(executor: Executor, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).write_text("")
    execute(CHAIN, executor, settled=lambda task: "" if task.name in ("a", "b") else None)
    assert calls(tmp_path) == ["ab", "abc"]


def test_the_bar_moves_while_tasks_run_and_its_rate_is_of_what_was_computed(
    monkeypatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.05)
    schedule, shown = Schedule(CHAIN), Progress(len(CHAIN), 2)
    for task, seconds in zip(CHAIN[:3], (None, None, 9.0), strict=True):  # two were there
        shown.done(task, seconds)
    for _ in range(3):
        time.sleep(0.1)
        shown.show(schedule)
    lines = capsys.readouterr().err.splitlines()[-3:]
    assert all(line.startswith("tasks: 3/4 ") for line in lines)
    assert 0 < float(re.search(r" ([\d.]+)task/s", lines[-1])[1]) <= 1 / 0.3


@pytest.mark.parametrize("what", ["bug", "bad", "exit"])
def test_what_fails_twice_is_left_out_with_what_needs_it(
    executor: Executor, tmp_path: Path, what: str, capsys
):
    tasks = [FakeTask("x", (), what), FakeTask("y", ("x",)), FakeTask("z", ("y",)), *CHAIN]
    failures = {failure.task: failure for failure in execute(tasks, executor)}
    assert set(failures) == {"x", "y", "z"}
    assert Counter(calls(tmp_path)) == {"x": 2, "a": 1, "b": 1, "ab": 1, "abc": 1}
    reasons = {"bug": "ValueError: a bug", "bad": "option bad: expected good", "exit": "SystemExit"}
    assert failures["x"].reason.startswith(reasons[what])
    assert failures["z"] == Failure("z", "logs/x.log", "needs x, which failed")
    assert (tmp_path / failures["x"].log).read_text().count("Traceback") == 2
    assert "x: failed twice, left out" in capsys.readouterr().out


def test_what_fails_once_is_done(executor: Executor, tmp_path: Path):
    assert execute([FakeTask("x", (), "once"), FakeTask("y", ("x",)), *CHAIN], executor) == []
    assert [call for call in calls(tmp_path) if call in "xy"] == ["x", "x", "y"]


def test_a_full_disk_stops_everything(executor: Executor, tmp_path: Path):
    with pytest.raises(OSError, match="No space left"):
        execute([FakeTask("x", (), "full"), FakeTask("y", ("x",))], executor)
    assert calls(tmp_path) == ["x"]


def test_a_task_needs_what_there_is():
    with pytest.raises(ValueError, match="nothing"):
        Schedule([FakeTask("x", ("nothing",))])


def test_what_would_wait_for_a_running_task_comes_later():
    first, second, third = (FakeTask(name, awaits=("fold", 0)) for name in ("a", "b", "c"))
    other, elsewhere = FakeTask("other"), FakeTask("elsewhere", awaits=("fold", 1))
    schedule = Schedule([first, second, third, other, elsewhere])
    assert schedule.next() == first
    assert schedule.next() == other
    assert schedule.next() == elsewhere
    assert schedule.next() == second  # nothing else is left to do
    schedule.done(first)
    assert schedule.next() == third
    assert schedule.next() is None


def test_once_made_it_is_not_waited_for():
    first, second = (FakeTask(name, awaits=("fold", 0)) for name in ("a", "b"))
    schedule = Schedule([first, second, third := FakeTask("c", awaits=("fold", 0)), FakeTask("d")])
    assert schedule.next() == first
    schedule.done(first)
    assert schedule.next() == second
    assert schedule.next() == third  # beside one of its kind, before the last


def test_workers_stay_and_write_logs(tmp_path: Path):
    tasks = [FakeTask(f"t{number}", (), "slow") for number in range(6)]
    execute(tasks, LocalWorkers(tmp_path, run_fake, 2, features=False))
    pids = {int((tmp_path / task.name).read_text().split()[0]) for task in tasks}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert "computes t0\na library prints" in (tmp_path / "logs" / "t0.log").read_text()


@pytest.mark.parametrize("what", ["killed", "killed once"])
def test_a_worker_that_is_killed_is_named_and_the_rest_goes_on(tmp_path: Path, what: str):
    tasks = [FakeTask("x", (), what), *CHAIN]
    failures = execute(tasks, LocalWorkers(tmp_path, run_fake, 2, features=False))
    assert Counter(calls(tmp_path))["x"] == 2
    assert (tmp_path / "abc").exists()
    if what == "killed":
        assert [failure.task for failure in failures] == ["x"]
        assert "killed (SIGKILL)" in failures[0].reason


def test_a_worker_killed_for_memory_names_how_many_would_fit(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(local, "memory_of", lambda pid: 3 * 2**30)
    monkeypatch.setattr(local, "memory_left", lambda: 4 * 2**30)
    tasks = [FakeTask("x", (), "killed"), FakeTask("y", (), "slow")]
    failures = execute(tasks, LocalWorkers(tmp_path, run_fake, 8, features=False))
    assert "took up to 3.0 GiB" in failures[0].reason
    assert "--workers" in failures[0].reason


def test_ctrl_c_lets_workers_write_their_checkpoint(tmp_path: Path):
    workers = LocalWorkers(tmp_path, run_fake, 2, features=False)

    def interrupt() -> None:
        while not (tmp_path / "calls").exists() or len(calls(tmp_path)) < 2:
            time.sleep(0.02)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        execute([FakeTask("x", (), "checkpoint"), FakeTask("y", (), "checkpoint")], workers)
    assert (tmp_path / "x.checkpoint").exists()
    assert (tmp_path / "y.checkpoint").exists()


def test_ctrl_c_in_a_garbage_collection_is_not_lost(tmp_path: Path, monkeypatch):
    """What a callback of the collector raises is only printed; hypothesis has such a callback."""

    def interrupt(phase: str, info: dict[str, int]) -> None:
        gc.callbacks.remove(interrupt)
        os.kill(os.getpid(), signal.SIGINT)

    def collect(pid: int) -> int:
        if (tmp_path / "calls").exists() and not collected:
            collected.append(gc.callbacks.append(interrupt))
            gc.collect()
        return 0

    collected: list[None] = []
    monkeypatch.setattr(local, "memory_of", collect)
    workers = LocalWorkers(tmp_path, run_fake, 1, features=False)
    with pytest.raises(KeyboardInterrupt):
        execute([FakeTask("x", (), "slow"), FakeTask("y", ("x",), "slow")], workers)
    assert collected


RUNNER = """
import sys
from pathlib import Path
from experiments.executors.local import LocalWorkers
from experiments.executors.running import execute
from fake_tasks import FakeTask, run_fake
workers = LocalWorkers(Path(sys.argv[1]), run_fake, 1, features=False)
execute([FakeTask("x", (), "checkpoint")], workers)
"""


def test_workers_end_with_a_runner_that_is_killed(tmp_path: Path):
    places = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], env=places)
    log = tmp_path / "logs" / "x.log"
    while not (log.exists() and "a library" in log.read_text()):
        time.sleep(0.05)
    (worker,) = _children(runner.pid)
    runner.kill()
    runner.wait()
    end = time.monotonic() + 10
    while _is_alive(worker) and time.monotonic() < end:
        time.sleep(0.02)
    assert not _is_alive(worker)


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment(0, 3, [])["OMP_NUM_THREADS"] == "2"
    assert environment(0, 16, [])["OMP_NUM_THREADS"] == "1"
    seen = [environment(number, 4, ["3", "5"])["CUDA_VISIBLE_DEVICES"] for number in range(4)]
    assert seen == ["3", "5", "3", "5"]
    alone = [environment(number, 3, ["1"])["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert alone == ["1", "1", "1"]  # one card is shared
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environment(0, 2, [])["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("cards", "named", "workers", "seen"),
    [
        (4, None, "auto", ["0", "1", "2", "3"]),
        (3, "5,2,7", "auto", ["5", "2", "7"]),  # what the user set is shared out
        (2, None, 5, ["0", "1", "0", "1", "0"]),
        (1, None, 3, ["0", "0", "0"]),
    ],
)
def test_each_worker_sees_one_card(cards, named, workers, seen, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.device_count", lambda: cards)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    executor = make_executor(tmp_path, ExperimentOptions(Path("quick"), workers=workers))
    assert executor.side_by_side == len(seen)
    given = [
        environment(number, len(seen), executor.gpus)["CUDA_VISIBLE_DEVICES"]
        for number in range(len(seen))
    ]
    assert given == seen


@pytest.mark.parametrize(
    ("chips", "named", "workers", "seen"),
    [
        (4, None, "auto", ["0", "1", "2", "3"]),
        (4, "1,3", "auto", ["1", "3"]),  # what the user set is shared out
        (8, None, 2, ["0", "1"]),
    ],
)
def test_each_worker_has_one_chip(chips, named, workers, seen, monkeypatch, tmp_path):
    executor = _on_tpu(chips, named, workers, monkeypatch, tmp_path)
    given = [
        environment(number, executor.side_by_side, executor.gpus, executor.chips)
        for number in range(executor.side_by_side)
    ]
    assert [each["TPU_VISIBLE_CHIPS"] for each in given] == seen
    assert {each["TPU_PROCESS_BOUNDS"] for each in given} == {"1,1,1"}
    assert {each["TPU_CHIPS_PER_PROCESS_BOUNDS"] for each in given} == {"1,1,1"}


def test_a_chip_is_not_shared(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="--workers 5: each has a TPU chip; give --workers 4"):
        _on_tpu(4, None, 5, monkeypatch, tmp_path)
    with pytest.raises(UserError, match=r"--workers 2: .*finds none"):
        _on_tpu(0, None, 2, monkeypatch, tmp_path)
    monkeypatch.setattr("dermsynth.device.tpu_chips", lambda: pytest.fail("nobody asked"))
    assert isinstance(_on_tpu(None, None, 1, monkeypatch, tmp_path), ThisProcess)


def _on_tpu(chips, named, workers, monkeypatch, out):
    """The executor of a machine with so many chips."""
    for name in ("PJRT_DEVICE", "TPU_VISIBLE_CHIPS"):
        monkeypatch.delenv(name, raising=False)
    if named is not None:
        monkeypatch.setenv("TPU_VISIBLE_CHIPS", named)
    if chips is not None:
        monkeypatch.setattr("dermsynth.device.tpu_chips", lambda: chips)
    options = ExperimentOptions(
        Path("quick"), workers=workers, compute=ComputeOptions(device="xla")
    )
    return make_executor(out, options)
