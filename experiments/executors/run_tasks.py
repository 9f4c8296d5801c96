"""From a list of tasks and the options to finished folders, wherever they are computed."""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dermsynth.errors import UserError
from dermsynth.machine import cores
from dermsynth.options import refuse_idle
from experiments.executors.found import take_note, take_over
from experiments.executors.local import FEATURES, LocalWorkers, visible_chips, visible_gpus
from experiments.executors.running import Executor, Failure, ThisProcess, execute
from experiments.options import ExperimentOptions
from experiments.tasks import Task, is_done, run_task


def check_place(options: ExperimentOptions) -> None:
    """Raise UserError for options of one executor beside the other."""
    is_ray = options.executor == "ray"
    refuse_idle(
        options,
        {"workers": (not is_ray, "--executor local"), "address": (is_ray, "--executor ray")},
    )


def run_tasks(tasks: Sequence[Task], out: Path, options: ExperimentOptions) -> list[Failure]:
    """Compute what is neither done nor found beside `out`; returns what could not be.

    The experiment's folder `out` is locked by the caller. Raises UserError where Ray is not to be
    had and where a folder was made from other inputs, OSError where the disk is full, and
    KeyboardInterrupt; then all goes on from where it was.
    """
    shutil.rmtree(out / FEATURES, ignore_errors=True)  # maybe of another machine or version
    try:
        executor = make_executor(out, options)
        return execute(tasks, executor, partial(settle, out), lambda task: take_note(task, out))
    finally:
        shutil.rmtree(out / FEATURES, ignore_errors=True)


def make_executor(out: Path, options: ExperimentOptions) -> Executor:
    """The one that the options ask for."""
    check_place(options)
    if options.executor == "ray":
        from experiments.executors.ray_cluster import RayCluster  # here: Ray is an extra

        return RayCluster(out, run_once, options.address, options.compute.device)
    place, workers = options.compute.device, options.workers
    gpus = visible_gpus() if place in ("auto", "cuda") else []
    chips = visible_chips() if place == "xla" and workers != 1 else []
    count = (len(gpus) or len(chips) or cores()) if workers == "auto" else workers
    if count > 1:
        _check_chips(options, len(chips))
    if count == 1:
        from classifier.training.trunk_cache import FeatureCache

        return ThisProcess(out, run_once, FeatureCache())
    return LocalWorkers(out, run_once, count, gpus, chips=chips)


def _check_chips(options: ExperimentOptions, chips: int) -> None:
    """Raise UserError where several workers would want the same TPU chip."""
    place, said = options.compute.device, f"--workers {options.workers}"
    if place == "tpu":
        raise UserError(f"{said}: by way of torch_tpu one process has all chips; leave it out")
    if place != "xla" or os.environ.get("PJRT_DEVICE") == "CPU":
        return
    if not chips:
        raise UserError(f"{said}: each has a TPU chip, and torch_xla finds none; leave it out")
    if options.workers != "auto" and options.workers > chips:
        raise UserError(f"{said}: each has a TPU chip; give --workers {chips}, there are no more")


def run_once(task: Task, out: Path, cache: object = None) -> None:
    """As `run_task`, unless it is done by now, by a node that was taken for lost."""
    if not is_done(task, out):
        run_task(task, out, cache)  # type: ignore[arg-type]


def settle(out: Path, task: Task) -> str | None:
    """Why nothing is left to do for a task, in words to be said; None: it is to be computed."""
    if is_done(task, out):
        return ""
    source = take_over(task, out)
    return None if source is None else f"{task.name}: found in {source}"
