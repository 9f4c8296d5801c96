"""Options of `python -m experiments.run`, apart so that help and configuration stay quick."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from dermsynth.options import ComputeOptions, RunOptions


@dataclass(frozen=True)
class ExperimentOptions:
    """Options of `python -m experiments.run`."""

    experiment: tyro.conf.Positional[Path]  # the experiment's YAML file, or the name of ours: quick
    data: Path | None = None  # a prepared dataset (default: the phantom, prepared on the way)
    run: RunOptions = field(default_factory=RunOptions)
    compute: ComputeOptions = field(default_factory=ComputeOptions)
