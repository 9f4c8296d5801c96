"""Tasks of a moment, for tests of what runs them; importable by worker processes and by Ray's."""

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermsynth.errors import UserError
from dermsynth.interrupts import stop_request


@dataclass(frozen=True)
class FakeTask:
    """What it does is in `options`; it writes a file of its name."""

    name: str
    needs: tuple[str, ...] = ()
    options: str = ""
    kind: str = "fake"
    awaits: tuple[Any, ...] | None = None

    def folder(self, out: Path) -> Path:
        """As of a task."""
        return out / self.name


def run_fake(task: FakeTask, out: Path, cache: Any = None) -> None:
    """Write who computed it, after a line in `calls`; or fail as `options` asks."""
    with open(out / "calls", "a") as file:
        file.write(f"{task.name}\n")
    for need in task.needs:
        assert (out / need).exists(), need
    print(f"computes {task.name}")
    os.system("echo a library prints")
    _act(task, out)
    facts = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    (out / task.name).write_text(f"{os.getpid()} {facts} {cache is not None}")


def _act(task: FakeTask, out: Path) -> None:
    first = (out / "calls").read_text().split().count(task.name) == 1
    if task.options == "bad":
        raise UserError("option bad: expected good")
    if task.options == "bug" or (task.options == "once" and first):
        raise ValueError("a\nbug")
    if task.options == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
    if task.options == "exit":
        raise SystemExit(3)
    if task.options == "killed" or (task.options == "killed once" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if task.options == "slow":
        time.sleep(0.3)
    if task.options == "until killed":  # a node, by a test, which says so
        while not (out / "killed").exists():
            time.sleep(0.05)
        time.sleep(0.5)
    if task.options == "checkpoint":
        with stop_request() as stop:
            while not stop.requested:
                time.sleep(0.01)
            time.sleep(0.2)
            (out / f"{task.name}.checkpoint").write_text("")
