"""Options of `python -m experiments.run`, apart so that help and configuration stay quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dermsynth.cli import Repeatable
from dermsynth.options import HOLDS_PATH, Between, ComputeOptions, RunOptions

Workers = Annotated[int, Between(1, 1024)] | Literal["auto"]


@dataclass(frozen=True)
class ExperimentOptions:
    """Options of `python -m experiments.run`."""

    experiment: tyro.conf.Positional[Path]  # the experiment's YAML file, or the name of ours: quick
    data: Path | None = None  # a prepared dataset (default: the phantom, prepared on the way)
    external: Annotated[Repeatable, HOLDS_PATH] = ()  # NAME=DATASET, another clinic to test on, too
    workers: Workers = 1  # trainings side by side; auto: one a GPU or TPU chip, else a core
    executor: Literal["local", "ray"] = "local"  # ray: the nodes of a Ray cluster (docs/guides)
    smoke: bool = False  # try an experiment out: least training, random weights, two folds at most
    plan: bool = False  # say what it costs and can see, write that down, and stop
    pilot: Path | None = None  # an experiment whose variances the plan goes by; none: assumptions
    address: str | None = None  # HOST:PORT of its head; none: RAY_ADDRESS, or the one here
    run: RunOptions = field(default_factory=RunOptions)
    compute: ComputeOptions = field(default_factory=ComputeOptions)
