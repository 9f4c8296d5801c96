"""The loop of a training to its predictions, and what processes other than rank 0 do of a run."""

import contextlib
import os
import traceback
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from classifier.evaluation.metrics import Metrics
from classifier.options import TrainOptions
from classifier.run_folder import CHECKPOINT
from classifier.training.loop import Loop, out_of_memory
from classifier.training.setup import build_model, resolve
from classifier.training.trunk_cache import FeatureCache
from dermsynth import checkpoint, device
from dermsynth.distributed import Processes
from dermsynth.errors import UserError
from dermsynth.options import replace
from dermsynth.tracking import Tracker


@dataclass(frozen=True)
class Begun:
    """A training that rank 0 begins."""

    options: TrainOptions  # resolved
    folder: Path  # where it is written until it is finished


def follow(processes: Processes, cache: FeatureCache) -> tuple[Path, dict[str, Metrics]]:
    """Take part in the trainings that rank 0 begins; returns what it returns.

    What rank 0 checks and makes is there by then, and what it prints is not printed again.
    """
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        while isinstance(told := processes.rank0_gives(None), Begun):
            compute = told.options.compute
            # its folder is there by now, and named in the options is all that rank 0 chose
            setup = resolve(replace(told.options, resume=True))
            model, _ = build_model(setup)
            here = device.resolve(compute.device, compute.precision)
            loop = Loop(setup, model, here, cache, told.folder, processes)
            saved = checkpoint.load(told.folder / CHECKPOINT)
            run_loop(loop, loop.restore(saved) if saved else 0, None)
    return told  # type: ignore[return-value]


def run_loop(loop: Loop, step: int, tracker: Tracker | None) -> pd.DataFrame:
    """Train from a step on; then what the best model predicts, rows of predictions.parquet.

    Raises UserError where memory is too small, with what would fit. `tracker` is rank 0's.
    """
    try:
        loop.run(step, tracker)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the step's memory
        steps, count = loop.options.steps, loop.processes.count
        # others wait for this one in the step, so that none can be tried
        fits = loop.largest_batch() if count == 1 else steps.batch // steps.accumulate // count // 2
        way_out = "lower --size or take a smaller --backbone"
        if fits:
            parts = -(-steps.batch // (fits * count))
            way_out = f"--accumulate {parts} computes {fits} images at a time, with the same steps"
        raise UserError(
            f"out of memory at --batch {steps.batch}, --size {loop.options.model.size}: {way_out}"
        ) from None
    loop.model.load_state_dict(loop.best)
    return loop.scorer.predictions()
