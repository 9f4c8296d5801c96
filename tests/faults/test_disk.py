"""Disks that really are full: a limit on the size of files, and a small tmpfs."""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import COMMANDS, Command
from fault_harness import FAILED, REFUSED, SAME, Table, run

pytestmark = pytest.mark.slow
SIZES_KIB = (1, 8, 40, 200, 1000)


def limit_files(kib: int) -> None:
    """No file of this process grows beyond that: a write raises EFBIG."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, kib * 1024))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_no_file_may_grow(inputs: Path, tmp_path: Path, table: Table, command: Command):
    fault = f"files of limited size: {command.name}"
    for kib in SIZES_KIB:
        work = tmp_path / f"{kib}"
        shutil.copytree(inputs, work)
        outcome = run(command.words, work, before=lambda kib=kib: limit_files(kib))
        if outcome.code == 0:
            table.add(fault, SAME)
        elif outcome.is_one_line:
            again = run(command.again, work)
            if again.code == 2 and "run without --resume" in again.output:
                again = run(command.words, work)
            table.add(fault, REFUSED if again.code == 0 else FAILED, f"{kib} KiB: then {again}")
        else:
            table.add(fault, FAILED, f"{kib} KiB: {outcome}")
    table.check()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 1 MiB; skipped where none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=400", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk can be mounted by root only, where mounting is allowed")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_small_disk(
    inputs: Path, tmp_path: Path, small_disk: Path, table: Table, command: Command
):
    """The command writes to the small disk, with less and less room on it."""
    fault = f"small disk: {command.name}"
    work = tmp_path / "work"
    shutil.copytree(inputs, work)
    line = command.line.replace(f"--out {command.out}", f"--out {small_disk}/out")
    if line == command.line:
        line = f"{command.line} --out {small_disk}/out"
    if command.words[0] == "gan.evaluate":
        pytest.skip("it writes beside the generator")
    for room in (0, 30, 120, 400, 900):
        for left in small_disk.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        (small_disk / "ballast").write_bytes(bytes(max(0, 1000 - room) * 1024))
        outcome = run(line.split(), work)
        if outcome.code == 0:
            table.add(fault, SAME)
        else:
            words = f"{room} KiB free: {outcome}"
            table.add(fault, REFUSED if outcome.is_one_line else FAILED, words)
    table.check()
