"""How torch's threads wait for each other, alone and beside a neighbour that takes a core.

    python -m benchmarks.threads

The default generator trains with each way of waiting, each in a process of its own; all ways take
turns, alone and then beside one busy process, so that other load meets them alike. The figures are
images a second.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.provenance import provenance
from dermsynth import cli
from dermsynth.files import write_json
from dermsynth.threads import DECIDED_BY

WAYS: dict[str, dict[str, str]] = {
    "libgomp's own": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000"},
}
PLACES = ("alone", "beside a busy process")

# for every line of seconds: trains that long and answers with images and seconds
TRAINING = """
import dataclasses, sys, time
import torch
from dermsynth.device import resolve
from gan.networks import make_config
from gan.trainer import Trainer

arch, size, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
config = dataclasses.replace(make_config(arch, size), batch=batch)
trainer = Trainer(arch, config, 0, resolve("cpu", "auto", cpu_auto="bf16"))
images = torch.randint(0, 256, (trainer.images_a_step, size, size, 3), dtype=torch.uint8)
trainer.step(images)
print("ready", torch.get_num_threads(), flush=True)
for line in sys.stdin:
    begin, before = time.monotonic(), trainer.steps
    while time.monotonic() - begin < float(line):
        trainer.step(images)
    images_seen = (trainer.steps - before) * trainer.images_a_step
    print(images_seen, time.monotonic() - begin, flush=True)
"""


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.threads`."""

    rounds: int = 5  # turns of all ways; the median of each counts
    seconds: float = 1.5  # of training in a turn, at least
    arch: str = "lesiongan"
    size: int = 32  # side in pixels
    batch: int = 8  # images a step
    out: Path = Path("benchmarks/results/threads.json")  # where the figures go


def main(options: Options) -> None:
    """Measure, write the figures, print a table."""
    children, threads = {}, set()
    for way, variables in WAYS.items():  # one after the other, each with all cores
        children[way] = begin(options, variables)
        threads.add(int(answer(children[way])[1]))
    rates: dict[str, dict[str, list[float]]] = {way: {p: [] for p in PLACES} for way in WAYS}
    loads = [os.getloadavg()[0]]
    for _ in range(options.rounds):
        for place in PLACES:
            with neighbour(place != PLACES[0]):
                for way, child in children.items():
                    rates[way][place].append(round(rate(child, options.seconds), 2))
                    print(f"{place:22} {way:14} {rates[way][place][-1]:8.2f} images/s", flush=True)
        loads.append(os.getloadavg()[0])
    for child in children.values():
        child.stdin.close()
        child.wait()
    figures = {
        **provenance("benchmarks.threads", "torch", "numpy"),
        "threads": sorted(threads),
        "load": [round(load, 1) for load in loads],
        "images_per_second": rates,
        "times_libgomps_own": ratios(rates),
    }
    write_json(options.out, figures)
    print(json.dumps(figures["times_libgomps_own"], indent=1))


def begin(options: Options, variables: dict[str, str]) -> subprocess.Popen[str]:
    """A process that trains when it is told to."""
    kept = {name: value for name, value in os.environ.items() if name not in DECIDED_BY}
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, options.arch, str(options.size), str(options.batch)],
        env=kept | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(child: subprocess.Popen[str]) -> list[str]:
    """The words of the next line that a process says. Raises RuntimeError where it has ended."""
    words = child.stdout.readline().split()  # type: ignore[union-attr]
    if not words:
        raise RuntimeError(f"a training ended with status {child.wait()}")
    return words


def rate(child: subprocess.Popen[str], seconds: float) -> float:
    """Images a second."""
    child.stdin.write(f"{seconds}\n")  # type: ignore[union-attr]
    child.stdin.flush()  # type: ignore[union-attr]
    images, passed = map(float, answer(child))
    return images / passed


def ratios(rates: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Median rate of each way, and the median over turns of its rate by libgomp's own."""
    own = rates["libgomp's own"]
    return {
        way: {
            place: {
                "images_per_second": round(statistics.median(found), 2),
                "ratio": round(
                    statistics.median(a / b for a, b in zip(found, own[place], strict=True)), 2
                ),
            }
            for place, found in by_place.items()
        }
        for way, by_place in rates.items()
    }


@contextmanager
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


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.threads", __doc__)
