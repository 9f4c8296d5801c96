"""Peak memory of whole commands: the largest resident set of the process that computes.

    python -m benchmarks.memory --data datasets/ham10000

Each command runs in a process of its own; the system says how much it had at most. Pages of a
memory-mapped dataset that were read count too, although the system may take them back.
"""

import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from benchmarks.speed.timing import run
from dermsynth import cli
from dermsynth.files import write_json

LITE = "classifier.train --backbone efficientnet-lite0"
COMMANDS = {
    "gan.train": "gan.train --kimg 0.5 --evaluations 0",
    "classifier.train, frozen part kept": f"{LITE} --epochs {{epochs}}",
    "classifier.train, fresh views": f"{LITE} --views 0 --epochs 1",
}


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.memory`."""

    data: Path  # a prepared dataset, such as HAM10000
    epochs: int = 5  # with the frozen part kept: each epoch keeps another view
    only: str = ""  # the commands whose names begin so
    out: Path = Path("benchmarks/results/memory.json")  # where the figures go


def main(options: Options) -> None:
    """Measure, write after every command, print."""
    rows: list[dict[str, Any]] = []
    for name, words in COMMANDS.items():
        if not name.startswith(options.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            given = shlex.split(words.format(epochs=options.epochs))
            given += ["--data", str(options.data), "--tracking", "none"]
            took = run([sys.executable, "-m", *given, "--out", f"{folder}/run"])
        row = {"what": name, "command": words.format(epochs=options.epochs)}
        row |= {"peak_mib": round(took.peak_mib), "seconds": round(took.seconds, 1)}
        rows.append(row | {"cpu_seconds": round(took.cpu_seconds, 1)})
        print(f"{name:36} {took.peak_mib / 1024:.2f} GiB, {took.cpu_seconds:.0f} CPU s", flush=True)
        write_json(options.out, provenance("benchmarks.memory", "torch") | {"commands": rows})


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.memory", __doc__)
