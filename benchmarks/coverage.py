"""How often comparisons are wrong when the truth is known, by simulation.

    OMP_NUM_THREADS=1 python -m benchmarks.coverage

Three tables: verdicts in worlds whose trainings vary; power at the stated smallest visible
difference; intervals for two models on grouped images. What is in the file already, from the same
options, is not measured again, so that a run that was stopped goes on.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import coverage_intervals, coverage_verdicts
from benchmarks.provenance import provenance, read_result
from dermsynth import cli
from dermsynth.files import write_json

Cell = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.coverage`."""

    sets: int = 2000  # simulated test sets a cell
    bootstrap: int = 399  # resamples a test set
    only: str = ""  # one table: verdicts, power or intervals
    out: Path = Path("benchmarks/results/coverage.json")  # where the rates go


def cells(options: Options) -> Iterator[tuple[str, Cell, Callable[[], Cell]]]:
    """Table, what identifies a cell, and what measures it."""
    for world, share in coverage_verdicts.worlds():
        sets = round(options.sets * share)
        setting = asdict(world) | {"sets": sets, "bootstrap": options.bootstrap}
        yield (
            "verdicts",
            setting,
            partial(coverage_verdicts.measure_verdicts, world, sets, options.bootstrap),
        )
    for world in coverage_verdicts.power_worlds():
        sets = options.sets // 4
        setting = asdict(world) | {"sets": sets, "bootstrap": options.bootstrap}
        yield (
            "power",
            setting,
            partial(coverage_verdicts.measure_power, world, sets, options.bootstrap),
        )
    for design in coverage_intervals.designs():
        setting = asdict(design) | {"sets": options.sets, "bootstrap": 999}
        yield (
            "intervals",
            setting,
            partial(coverage_intervals.measure, design, options.sets, 999),
        )


def main(options: Options) -> None:
    """Measure what is missing, print as it goes, write the JSON after every cell."""
    content: dict[str, Any] = provenance("benchmarks.coverage", "numpy", "scipy")
    tables: dict[str, list[Cell]] = {"verdicts": [], "power": [], "intervals": []}
    if options.out.exists():
        tables |= read_result(options.out)["tables"]
    for table, setting, measure in cells(options):
        there = any(row["setting"] == setting for row in tables[table])
        if there or options.only not in ("", table):
            continue
        started = time.process_time()
        rates = measure()
        seconds = round(time.process_time() - started, 1)
        tables[table].append({"setting": setting, "rates": rates, "cpu_seconds": seconds})
        print(f"{seconds:5.0f} s  {table}  {setting}\n         {rates}", flush=True)
        write_json(options.out, content | {"tables": tables})


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.coverage", __doc__)
