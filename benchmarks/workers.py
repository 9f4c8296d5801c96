"""Trainings one after the other against side by side, and an experiment that finds all done.

    python -m benchmarks.workers

On the phantom, the same trainings with each number of workers, in turn: classifiers that share a
frozen trunk, then generators. One worker has all cores, N workers a share of them each. Figures are
seconds from the first task's beginning to the last one's end, loading torch included, and trainings
an hour once every worker has ended its first. After every turn a second experiment with the same
tasks finds all of them.
"""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from classifier.options import TrainOptions as ClassifierOptions
from data.prepare import PrepareOptions, prepare
from data.store import Dataset, load_dataset
from dermsynth import cli
from dermsynth.files import write_json
from dermsynth.machine import cores
from dermsynth.manifest import NAME
from dermsynth.options import ComputeOptions, flat, replace
from experiments.executors.run_tasks import run_tasks
from experiments.options import ExperimentOptions
from experiments.tasks import Task
from gan.options import TrainOptions as GanOptions

BACKBONE = {"backbone": "efficientnet-lite0", "frozen": 11, "lr": 0.001}


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.workers`."""

    workers: tuple[int, ...] = (1, 2)  # numbers of workers, in this order and then backwards
    rounds: int = 2  # turns of all numbers
    classifiers: int = 6  # trainings, a seed each; 0: none
    epochs: int = 3  # of each
    generators: int = 4  # trainings, a seed each; 0: none
    kimg: float = 0.5  # of each
    patients: int = 300  # of the phantom
    size: int = 128  # side of its images, px
    compute: ComputeOptions = field(default_factory=ComputeOptions)
    out: Path = Path("benchmarks/results/workers.json")  # where the figures go


def main(options: Options) -> None:
    """Measure, write the figures, print medians."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        sizes = {"patients": options.patients, "size": options.size}
        prepare(replace(PrepareOptions(), **sizes, out=root / "phantom"))
        dataset = load_dataset(root / "phantom")
        turns: list[dict[str, Any]] = []
        for kind, tasks in task_lists(options, dataset).items():
            for turn in range(options.rounds):
                for workers in options.workers[:: -1 if turn % 2 else 1]:
                    turns.append(measure(options, root, kind, tasks, workers))
                    print(turns[-1], flush=True)
    figures = {
        **provenance("benchmarks.workers", "dermsynth", "torch", "numpy"),
        "images": len(dataset.table),
        "turns": turns,
        "medians": medians(turns),
    }
    write_json(options.out, figures)
    for line in figures["medians"]:
        print(line)


def task_lists(options: Options, dataset: Dataset) -> dict[str, list[Task]]:
    """The trainings of each kind."""
    place = {"data": dataset.path, "tracking": "none", **flat(options.compute)}
    inputs = {"dataset": dataset.as_input}
    classifier = replace(ClassifierOptions(), **BACKBONE, epochs=options.epochs, **place)
    generator = replace(GanOptions(), kimg=options.kimg, evaluations=0, **place)
    counts = {"classifier": options.classifiers, "generator": options.generators}
    base: dict[str, Any] = {"classifier": classifier, "generator": generator}
    return {
        kind: [
            Task(f"{kind}/seed{seed}", kind, (), replace(base[kind], seed=seed), inputs)
            for seed in range(count)
        ]
        for kind, count in counts.items()
        if count
    }


def measure(
    options: Options, root: Path, kind: str, tasks: list[Task], workers: int
) -> dict[str, Any]:
    """Seconds of all tasks, which are more than workers, and of an experiment that finds them."""
    with tempfile.TemporaryDirectory(dir=root) as name:
        given = replace(ExperimentOptions(Path(kind)), workers=workers, **flat(options.compute))
        seconds = {}
        load = os.getloadavg()[0]
        for again in ("seconds", "seconds_found"):
            out = Path(name, again)
            out.mkdir()
            began = time.monotonic()
            if failures := run_tasks(tasks, out, given):
                raise RuntimeError(f"{failures}: {(out / failures[0].log).read_text()}")
            seconds[again] = round(time.monotonic() - began, 2)
        ends = sorted((task.folder(Path(name, "seconds")) / NAME).stat().st_mtime for task in tasks)
    threads = max(1, cores() // workers)
    facts = {"kind": kind, "tasks": len(tasks), "workers": workers, "threads": threads}
    an_hour = 3600 * (len(tasks) - workers) / (ends[-1] - ends[workers - 1])
    return facts | seconds | {"an_hour": round(an_hour, 1), "load_before": round(load, 1)}


def medians(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians by kind and number of workers, and how many times faster than the first number."""
    lines = []
    for kind in dict.fromkeys(turn["kind"] for turn in turns):
        mine = [turn for turn in turns if turn["kind"] == kind]
        first: dict[str, float] = {}
        for workers in dict.fromkeys(turn["workers"] for turn in mine):
            found = {
                name: statistics.median(turn[name] for turn in mine if turn["workers"] == workers)
                for name in ("seconds", "seconds_found", "an_hour")
            }
            first = first or found
            times = {
                "times_as_fast": round(first["seconds"] / found["seconds"], 2),
                "times_as_many_an_hour": round(found["an_hour"] / first["an_hour"], 2),
            }
            lines.append({"kind": kind, "workers": workers, **found, **times})
    return lines


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.workers", __doc__)
