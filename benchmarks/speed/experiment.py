"""The trainings of an experiment, beside a shell loop over the same trainings.

All train the same classifiers on the same images. The loop starts a process a training and shares
nothing; an experiment trains in one process, or in several side by side, and computes what the
frozen part gives of an image once for all of them.
"""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.speed import made_up
from benchmarks.speed.place import Pieces, Place
from benchmarks.speed.timing import Way, comparison, in_turn, run, significant
from classifier.options import TrainOptions
from data.store import load_dataset
from dermsynth.machine import cores
from dermsynth.options import flag, replace
from experiments.executors.run_tasks import run_tasks
from experiments.options import ExperimentOptions
from experiments.tasks import Task

BACKBONE = {"backbone": "efficientnet-lite0", "frozen": 11, "weights": "none"}


def measure(place: Place) -> Pieces:
    """A comparison of whole experiments, and their cost by trainings and by processes."""
    size, count, seeds = place.pick(64, 128, 128), place.pick(60, 600, 2000), place.pick(2, 4, 6)
    data = made_up.dataset(place.scratch / "experiment", count, size)
    made = Experiment(place, data, size, epochs=place.pick(1, 3, 3))
    several = max(2, min(cores(), 8))
    ways = [
        Way("ours, one process", lambda: made.run(seeds, 1), True),
        Way(f"ours, {several} processes", lambda: made.run(seeds, several), True),
        Way("ours, nothing kept (--views 0)", lambda: made.run(seeds, 1, views=0), True),
        Way("shell loop over classifier.train", lambda: made.loop(seeds)),
        Way("shell loop, nothing kept (--views 0)", lambda: made.loop(seeds, views=0)),
    ]
    times = in_turn(ways, place.pick(1, 2, 2), place.device, warm_ups=0)
    images = f"{count} images of {size} px"
    what = f"{seeds} trainings, lite0, 11 blocks frozen, {images}"
    yield {"comparisons": [comparison(what, seeds, "trainings", times)]}
    numbers = place.pick((1, 2), (1, 2, 4, 8), (1, 2, 4, 8))
    rows = [cost(place, n, lambda n=n: made.run(n, 1)) for n in numbers]
    what = f"trainings in one process, {images}"
    yield {"curves": [{"what": what, "over": "classifier seeds", "points": rows}]}
    most = place.pick(2, max(4, 2 * cores()), 2 * cores())  # to where there is no more to gain
    numbers, trainings = [n for n in (1, 2, 4, 8, 16) if n <= most], place.pick(2, 4, 16)
    rows = [cost(place, n, lambda n=n: made.run(trainings, n)) for n in numbers]
    what = f"{trainings} trainings, {images}"
    yield {"curves": [{"what": what, "over": "processes (--workers)", "points": rows}]}


def cost(place: Place, at: int, work: Callable[[], object]) -> dict[str, float]:
    """A point of a curve, timed once."""
    (took,) = in_turn([Way("", work)], 1, place.device, 0)
    seconds, cpu = took.seconds[0], took.cpu_seconds[0]
    return {"at": at, "seconds": significant(seconds), "cpu_seconds": significant(cpu)}


class Experiment:
    """Trainings that differ in their seeds."""

    def __init__(self, place: Place, data: Path, size: int, epochs: int) -> None:
        self.place, self.runs = place, 0
        self.dataset = load_dataset(data)
        self.options = replace(
            TrainOptions(),
            **BACKBONE,
            data=data,
            size=size,
            epochs=epochs,
            device=place.device.type,
            tracking="none",
        )

    def fresh_folder(self) -> Path:
        """One that nothing is found in, nor beside it."""
        self.runs += 1
        folder = self.place.scratch / f"run-{self.runs}" / "experiment"
        folder.mkdir(parents=True)
        return folder

    def run(self, seeds: int, workers: int, views: int = 8) -> None:
        """Train as an experiment does."""
        inputs = {"dataset": self.dataset.as_input}
        tasks = [
            Task(
                f"classifier/seed{seed}",
                "classifier",
                (),
                replace(self.options, seed=seed, views=views),
                inputs,
            )
            for seed in range(seeds)
        ]
        device = self.place.device.type
        options = replace(ExperimentOptions(Path("speed")), workers=workers, device=device)
        out = self.fresh_folder()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            failures = run_tasks(tasks, out, options)
        if failures:
            raise RuntimeError(f"{failures}: {(out / failures[0].log).read_text()}")

    def loop(self, seeds: int, views: int = 8) -> None:
        """Train as a shell loop does."""
        out = self.fresh_folder()
        given = {
            name: getattr(self.options.model, name) for name in ("backbone", "frozen", "weights")
        }
        given |= {"data": self.dataset.path, "size": self.dataset.size, "views": views}
        given |= {"epochs": self.options.steps.epochs, "tracking": "none"}
        given |= {"device": self.place.device.type}
        words = " ".join(f"{flag(name)} {value}" for name, value in given.items())
        for seed in range(seeds):
            once = f"-m classifier.train {words} --seed {seed} --out {out / str(seed)}"
            run([sys.executable, *shlex.split(once)])
