"""How torch's threads wait for each other, and whether cores do more apart than together.

    python -m benchmarks.threads

Waiting: the default generator trains with each way of waiting, alone and beside one busy process.
Sharing: each stage of the work in one process with all cores, and in as many processes of one
thread, all at once. Every way is a process of its own that is loaded before; all take turns, so
that other load meets them alike. The figures are images a second.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from benchmarks.stages import STAGES, make_folder
from dermsynth import cli
from dermsynth.files import write_json
from dermsynth.machine import cores
from dermsynth.threads import DECIDED_BY

WAYS: dict[str, dict[str, str]] = {
    "libgomp's own": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000"},
}
PLACES = ("alone", "beside a busy process")


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.threads`."""

    rounds: int = 5  # turns of all ways; the median of each counts
    seconds: float = 3.0  # of work in a turn, at least
    size: int = 128  # side in pixels
    out: Path = Path("benchmarks/results/threads.json")  # where the figures go


def main(options: Options) -> None:
    """Measure, write the figures, print two tables."""
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(prefix="threads-") as name:
        folder = Path(name, "stages")
        make_folder(folder, options.size)
        waiting = measure_waiting(options, folder)
        loads.append(os.getloadavg()[0])
        sharing = {stage: measure_sharing(options, folder, stage) for stage in STAGES}
    loads.append(os.getloadavg()[0])
    figures = {
        **provenance("benchmarks.threads", "torch", "numpy"),
        "cores": cores(),
        "load": [round(load, 1) for load in loads],
        "images_per_second": waiting,
        "times_libgomps_own": ratios(waiting),
        "sharing": sharing,
    }
    write_json(options.out, figures)
    for way, by_place in figures["times_libgomps_own"].items():
        words = [f"{place}: {found['ratio']:.2f}" for place, found in by_place.items()]
        print(f"{way:14} " + ", ".join(words))
    for stage, found in sharing.items():
        print(f"{stage:24} apart {found['apart_times_together']:.2f} times together")


# ---------------------------------------------------------------------------------------- waiting


def measure_waiting(options: Options, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Images a second of the default generator's training by way of waiting and place."""
    rates: dict[str, dict[str, list[float]]] = {way: {p: [] for p in PLACES} for way in WAYS}
    with contextlib.ExitStack() as stack:
        workers = {
            way: stack.enter_context(worker(options, folder, "gan.train", variables))
            for way, variables in WAYS.items()
        }
        for _ in range(options.rounds):
            for place in PLACES:
                with neighbour(place != PLACES[0]):
                    for way, child in workers.items():
                        rates[way][place].append(round(rate([child], options.seconds), 2))
    return rates


def ratios(rates: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Median rate of each way, and the median over turns of its rate by libgomp's own."""
    own = rates["libgomp's own"]
    return {
        way: {
            place: {
                "images_per_second": round(statistics.median(found), 2),
                "ratio": paired_ratio(found, own[place]),
            }
            for place, found in by_place.items()
        }
        for way, by_place in rates.items()
    }


def paired_ratio(rates: Sequence[float], others: Sequence[float]) -> float:
    """Median over turns."""
    return round(statistics.median(a / b for a, b in zip(rates, others, strict=True)), 2)


@contextlib.contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """A process that computes all the time, or none."""
    if not wanted:
        yield
        return
    busy = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


# ---------------------------------------------------------------------------------------- sharing


def measure_sharing(options: Options, folder: Path, stage: str) -> dict[str, Any]:
    """Images a second of a stage in one process of all cores, and in one of one thread a core."""
    count = cores()
    together: list[float] = []
    apart: list[float] = []
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(worker(options, folder, stage, threads=count))
        several = [
            stack.enter_context(worker(options, folder, stage, threads=1)) for _ in range(count)
        ]
        for _ in range(options.rounds):
            together.append(round(rate([one], options.seconds), 2))
            apart.append(round(rate(several, options.seconds), 2))
            print(f"{stage:24} together {together[-1]:8.2f}, apart {apart[-1]:8.2f}", flush=True)
    return {
        "together": together,
        "apart": apart,
        "apart_times_together": paired_ratio(apart, together),
    }


# -------------------------------------------------------------------------------------- processes


@contextlib.contextmanager
def worker(
    options: Options,
    folder: Path,
    stage: str,
    variables: dict[str, str] | None = None,
    threads: int | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A process that is ready to do a stage; without `threads` torch has as many as it takes."""
    decided = DECIDED_BY if variables is not None else ()
    given = {name: value for name, value in os.environ.items() if name not in decided}
    given |= variables or {}
    given |= {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.stages", stage, str(folder), str(options.size)],
        env=given,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        while answer(child)[:1] != ["ready"]:
            pass  # what it says of its data
        yield child
    finally:
        child.stdin.close()  # type: ignore[union-attr]
        child.wait()


def answer(child: subprocess.Popen[str]) -> list[str]:
    """The words of the next line that a process says. Raises RuntimeError where it has ended."""
    line = child.stdout.readline()  # type: ignore[union-attr]
    if not line:
        raise RuntimeError(f"a process of benchmarks.stages ended with status {child.wait()}")
    return line.split()


def rate(children: Sequence[subprocess.Popen[str]], seconds: float) -> float:
    """Images a second of processes that work at the same time, all together."""
    for child in children:
        child.stdin.write(f"{seconds}\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
    total = 0.0
    for child in children:
        images, passed = map(float, answer(child))
        total += images / passed
    return total


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.threads", __doc__)
