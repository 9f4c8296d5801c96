"""Seconds from a command to its first training step, as somebody at a terminal sees them.

    python -m benchmarks.startup --data datasets/ham10000

The trainings are started on a terminal of their own; the clock stops when the bar says that images
were learnt from, and the training is told to end. Processor seconds up to then stand beside it.
"""

import fcntl
import os
import pty
import re
import select
import signal
import statistics
import struct
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from dermsynth import cli
from dermsynth.files import write_json

COMMANDS = {
    "gan.train": ("--minutes", "5"),
    "classifier.train --views 0": ("--backbone", "efficientnet-lite0"),
    "classifier.train": (
        "--backbone",
        "efficientnet-lite0",
    ),
}
# the bar of the training with images behind it; the generator's says how many a second
FIRST_STEP = re.compile(r"training: +\d+%\|[^|]*\| [1-9]\d*/|gan: [^\r]* img/s")
PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.startup`."""

    data: Path  # a prepared dataset
    rounds: int = 3  # starts of each command; the median counts
    out: Path = Path("benchmarks/results/startup.json")  # where the figures go


def main(options: Options) -> None:
    """Measure, print, write the JSON."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
    for _ in range(options.rounds):
        for name in COMMANDS:
            found[name].append(first_step(name, options.data))
            print(name, found[name][-1], flush=True)
    medians = {
        name: {key: statistics.median(each[key] for each in starts) for key in starts[0]}
        for name, starts in found.items()
    }
    head: dict[str, Any] = provenance("benchmarks.startup", "torch")
    load = round(os.getloadavg()[0], 1)
    write_json(options.out, head | {"load": load, "starts": found, "medians": medians})
    for name, figures in medians.items():
        print(f"{name:28} {figures['seconds']:.1f} s, {figures['cpu_seconds']:.1f} s of processors")


def first_step(name: str, data: Path) -> dict[str, float]:
    """Seconds until a training's first step has been made."""
    module, *more = name.split()
    with tempfile.TemporaryDirectory() as folder:
        words = [*more, *COMMANDS[name], "--data", str(data), "--tracking", "none"]

        command = [sys.executable, "-m", module, *words, "--out", f"{folder}/run"]
        began = time.perf_counter()
        process, terminal = pty.fork()
        if process == 0:
            os.execv(command[0], command)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        try:
            said = read_until(terminal, FIRST_STEP)
            passed = time.perf_counter() - began
            ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        finally:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            os.close(terminal)
    if not said:
        raise RuntimeError(f"{' '.join(command)}: no step in {PATIENCE:.0f} seconds")
    cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return {"seconds": round(passed, 2), "cpu_seconds": round(cpu, 2)}


def read_until(terminal: int, wanted: re.Pattern[str]) -> bool:
    """Whether what comes out of a terminal matched before it was closed or patience ended."""
    text, end = "", time.perf_counter() + PATIENCE
    while time.perf_counter() < end:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            text += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # closed
            return False
        if wanted.search(text):
            return True
    return False


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.startup", __doc__)
