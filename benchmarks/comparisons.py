"""How long the comparisons of an experiment take.

    OMP_NUM_THREADS=1 python -m benchmarks.comparisons

Random scores of 10 arms on a test set of HAM10000's size (10,000 images of 7,500 lesions, 1,100 of
them malignant), 5 classifier seeds and, but for the first arm, 3 generators; every arm against the
first, on one fold and on five.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import provenance
from dermsynth import cli, seeds
from dermsynth.files import write_json
from experiments import statistics
from experiments.statistics.resamples import Resamples
from experiments.statistics.trainings import Images, Trainings, from_cubes

IMAGES, GROUPS, MALIGNANT = 10_000, 7_500, 1_100
SEEDS, GANS = 5, 3


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.comparisons`."""

    arms: int = 10
    replicates: int = 2000  # of the group bootstrap
    out: Path = Path("benchmarks/results/comparisons.json")  # where the figures go


def draw(folds: int, arms: int) -> list[list[Trainings]]:
    """Trainings of every arm but the first beside it, fold by fold."""
    rng = seeds.generator("comparisons", folds)
    compared: list[list[Trainings]] = [[] for _ in range(arms - 1)]
    for _ in range(folds):
        n = IMAGES // folds
        target = np.arange(n) < MALIGNANT // folds
        images = Images.of(target, np.arange(n) * GROUPS // IMAGES, "benchmark")
        common = rng.normal(size=n) + 1.5 * target
        reference = common + 0.3 * rng.normal(size=(1, SEEDS, n))
        for of_arm in compared:
            scores = common + 0.3 * rng.normal(size=(GANS, SEEDS, n))
            of_arm.append(from_cubes(images, scores, reference, "benchmark"))
    return compared


def measure(folds: int, options: Options) -> dict[str, Any]:
    """CPU seconds from scores to rows of comparisons.json, and how many seconds passed."""
    drawn = draw(folds, options.arms)
    resamples = Resamples(options.replicates)
    cpu, wall = time.process_time(), time.monotonic()
    found = [
        statistics.difference(
            statistics.Names(f"arm {at}", "real", "test"), of, True, 0.01, resamples
        )
        for at, of in enumerate(drawn)
    ]
    rows = statistics.finish(found)
    return {
        "folds": folds,
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "seconds": round(time.monotonic() - wall, 1),
        "comparisons": len(rows),
        "trainings": sum(row["n_trainings"] for row in rows),
    }


def main(options: Options) -> None:
    """Measure, print, write the JSON."""
    results = []
    for folds in (1, 5):
        results.append(measure(folds, options))
        print(results[-1], flush=True)
    head = provenance("benchmarks.comparisons", "numpy", "scipy")
    write_json(options.out, head | {"options": cli.as_plain(options), "results": results})


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.comparisons", __doc__)
