"""Of several processes that torchrun started one speaks."""

import sys
from dataclasses import dataclass

import pytest

from dermsynth.cli import run
from dermsynth.distributed import Processes, join_processes
from dermsynth.errors import OtherProcessError, UserError
from dermsynth.ranks import is_rank0, ranks


@dataclass(frozen=True)
class Options:
    """No option."""

    number: int = 0  # any


@pytest.fixture
def started(monkeypatch):
    """As process `rank` of `count` on this machine."""

    def start(rank, count=4):
        for name, value in (("RANK", rank), ("WORLD_SIZE", count), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(count))
        monkeypatch.setattr(sys, "argv", ["command"])

    return start


def ended(capsys, main, module="gan.train"):
    with pytest.raises(SystemExit) as stop:
        run(Options, main, module, "What it does.")
    return stop.value.code, capsys.readouterr().err


def raising(error):
    def main(options):
        raise error

    return main


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # as some schedulers do
    monkeypatch.delenv("RANK", raising=False)
    assert ranks() == (0, 1)
    assert join_processes("auto") == Processes()


@pytest.mark.parametrize("error", [UserError("bad"), KeyboardInterrupt(), OtherProcessError()])
def test_what_all_know_is_said_by_rank_0(error, started, capsys):
    started(2)
    code, said = ended(capsys, raising(error))
    assert not is_rank0()
    assert code == {UserError: 2, KeyboardInterrupt: 130, OtherProcessError: 1}[type(error)]
    assert said == ""
    started(0)
    assert ended(capsys, raising(error))[0] == code
    # what another one said is not known here
    code, said = ended(capsys, raising(OtherProcessError()))
    assert "another process of this run has ended" in said


def test_what_one_process_alone_knows_is_said(started, capsys, monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    started(2)
    assert "error: bad" in ended(capsys, raising(UserError("bad")))[1]


def test_a_command_of_one_process_is_not_started_four_times(started, capsys):
    started(0)
    code, said = ended(capsys, lambda options: None, "data.prepare")
    assert code == 2
    assert "start it with python" in said


def test_more_processes_than_gpus_are_refused(started, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    started(0)
    with pytest.raises(UserError, match="--nproc-per-node 2, or the command --device cpu"):
        join_processes("auto")
    with pytest.raises(UserError, match="--device tpu: one training computes on one chip"):
        join_processes("tpu")
