"""Commands are killed, stopped or starved of disk at every step, and go on to the same result."""

import shutil
import signal
from pathlib import Path

import pytest
from commands import COMMANDS, Command
from fault_harness import (
    FAILED,
    REFUSED,
    SAME,
    Outcome,
    Table,
    full_disk_at,
    identity,
    kill_at,
    run,
    sampled,
    stop_at,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def work(inputs: Path, tmp_path: Path) -> Path:
    shutil.copytree(inputs, tmp_path / "work", symlinks=True)
    return tmp_path / "work"


def result(work: Path, command: Command) -> object:
    """What a command came to, whatever the time of day."""
    path = work / command.out
    if path.is_dir():
        return identity(path)
    return path.read_bytes() if path.exists() else None


def clear(work: Path, inputs: Path) -> None:
    """The working directory as it was."""
    shutil.rmtree(work)
    shutil.copytree(inputs, work, symlinks=True)


def left_over(work: Path) -> list[str]:
    """Half-written files. (A lock that nobody holds is no obstacle, and goes at the next entry.)"""
    return [
        str(path.relative_to(work))
        for path in work.rglob(".*")
        if path.name.endswith((".partial", ".unfinished", ".old", ".complete", ".key"))
    ]


def undisturbed(work: Path, command: Command) -> tuple[object, int]:
    outcome = run(command.words, work)
    assert outcome.code == 0, str(outcome)
    expected = result(work, command)
    assert expected is not None
    return expected, outcome.steps


def judge(
    work: Path,
    command: Command,
    fault: str,
    at: int,
    first: Outcome,
    expected: object,
    table: Table,
) -> None:
    """Run the command again until it is done, and compare."""
    where = f"{command.name}, step {at}"
    if "Traceback" in first.output:
        table.add(fault, FAILED, f"{where}: traceback: {first}")
        return
    outcome = run(command.again, work)
    if outcome.code == 2 and "run without --resume" in outcome.output:
        outcome = run(command.words, work)
    if outcome.code == 2 and "exists already" in outcome.output and not command.resumes:
        outcome.code = 0  # the kill came after its last step
    if outcome.code != 0:
        table.add(fault, FAILED, f"{where}: first {first}\nthen {outcome}")
    elif (found := result(work, command)) != expected:
        table.add(fault, FAILED, f"{where}: another result: {found}, expected {expected}; {first}")
    elif left := left_over(work):
        table.add(fault, FAILED, f"{where}: left {left}")
    else:
        table.add(fault, REFUSED if first.code == 2 else SAME)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_kill_at_any_step(inputs: Path, work: Path, table: Table, command: Command):
    expected, steps = undisturbed(work, command)
    for at in sampled(steps):
        clear(work, inputs)
        first = run(command.words, work, kill_at(at))
        judge(work, command, f"killed: {command.name}", at, first, expected, table)
    table.check()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_full_disk_from_any_step_on(inputs: Path, work: Path, table: Table, command: Command):
    expected, steps = undisturbed(work, command)
    fault = f"disk full: {command.name}"
    for at in sampled(steps):
        clear(work, inputs)
        first = run(command.words, work, full_disk_at(at))
        if first.code not in (0, 2) or (first.code == 2 and not first.is_one_line):
            table.add(fault, FAILED, f"step {at}: {first}")
            continue
        judge(work, command, fault, at, first, expected, table)
    table.check()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_signal_at_any_step_ends_it(
    inputs: Path, work: Path, table: Table, command: Command, which: int
):
    expected, steps = undisturbed(work, command)
    fault = f"{signal.Signals(which).name}: {command.name}"
    for at in sampled(steps):
        clear(work, inputs)
        first = run(command.words, work, stop_at(at, which))
        if first.code not in (130, 143) and result(work, command) != expected:
            table.add(fault, FAILED, f"step {at}: the signal was lost: {first}")
            continue
        judge(work, command, fault, at, first, expected, table)
    table.check()
