"""`--resume`: choices of the first start are taken up again; what a finished run may still do."""

import os
import shutil
from pathlib import Path
from typing import Any

from classifier.model.weights import weights_input
from classifier.options import TrainOptions
from classifier.run_folder import CHECKPOINT, KIND, OF_IMAGES
from data.pool import KIND as POOL
from data.pool import load_pool
from data.store import KIND as DATASET
from data.store import load_table
from dermsynth import checkpoint
from dermsynth.errors import UserError
from dermsynth.folders import NEVER_COMPARED, changes, resumable
from dermsynth.locks import locked
from dermsynth.manifest import Input, Manifest, as_input, check_same, is_finished, read_manifest
from dermsynth.options import as_plain, replace

# Paths: what lies there is compared by its content id. Memory for kept features changes no result.
MAY_CHANGE = ("data", "pool", "benign_pool", "generator", "external", "cache_gib")
# Schedules whose rates do not depend on the number of epochs: such a run can go on for more.
OPEN_ENDED = ("constant", "plateau", "exponential")
CARRIED = ("metrics.jsonl", "wandb-id.txt", "wandb-images.jsonl")  # into a longer run
ELSEWHERE = "start a new run in another --out"


def may_change(options: TrainOptions) -> tuple[str, ...]:
    """Options that need not be as they were."""
    named = options.model.weights not in ("imagenet", "none")  # a file, compared by its content
    return (*MAY_CHANGE, "weights") if named else MAY_CHANGE


def earlier(options: TrainOptions) -> Manifest:
    """The manifest of the run that `--resume` means. Raises UserError where there is none."""
    out = options.run.out
    if out is None:
        raise UserError("--resume: give the run's folder with --out")
    path = resumable(out)
    before = read_manifest(path, ELSEWHERE)
    if before.kind not in OF_IMAGES:
        raise UserError(f"--resume: {path} is a {before.kind}, not a classifier's run")
    return before


def with_choices(options: TrainOptions, before: Manifest) -> TrainOptions:
    """The options with the choices that the first start made by itself: dataset, pool, generator.

    Raises UserError where one is no longer where it was and no option says where it is.
    """
    out, given = options.run.out, options.training_set
    data, pool, generator = (before.options.get(key) for key in ("data", "pool", "generator"))
    chosen: dict[str, Any] = {}
    if options.task.data is None:
        chosen["data"] = _there(data, DATASET, out, "--data")
    if given.pool is None and pool is not None:
        chosen["pool"] = _there(pool, POOL, out, "--pool")
    if given.pool or pool:
        chosen["generator"] = None
    elif given.generator is None and generator is not None:
        chosen["generator"] = Path(str(generator))
    return replace(options, **chosen)


def _there(recorded: object, kind: str, out: Path | None, option: str) -> Path:
    path = Path(str(recorded))
    if not is_finished(path, kind):
        raise UserError(
            f"--resume {out}: it began with the {kind} at {path}, which is not there any more; "
            f"say with {option} where it is now"
        )
    return path


def goes_on(options: TrainOptions, before: Manifest, alone: bool) -> bool:
    """Whether a finished run is to be trained for more epochs; False: nothing is asked of it.

    Raises UserError where something else than that differs, and where that has no meaning.

    Parameters
    ----------
    options : settled (classifier.training.setup.settle)
    before : the run's manifest
    alone : no fold of several and no trial, of which no checkpoint is kept
    """
    out, plain, old = options.run.out, as_plain(options), before.options
    assert out is not None
    skipped = (*NEVER_COMPARED, *may_change(options))
    differ = {
        name: f"\n  {line}" for name, line in changes(before, plain).items() if name not in skipped
    }
    more = list(differ) == ["epochs"] and plain["epochs"] > int(str(old["epochs"]))
    if differ and not more:
        lines = "".join(differ.values())
        raise UserError(f"--resume {out}: is finished; {ELSEWHERE} for what differs{lines}")
    named = named_inputs(options)
    known = {
        name: source
        for name, source in before.inputs.items()
        if name in named or name.startswith("external/") or name == "weights"
    }
    check_same(known, named, f"--resume {out}", ELSEWHERE)
    if not more:
        return False
    epochs = f"--epochs {plain['epochs']}: {out} is finished after {old['epochs']}, and"
    if (schedule := options.steps.schedule) not in OPEN_ENDED:
        raise UserError(
            f"{epochs} with --schedule {schedule} the learning rate of every step depends on the "
            f"number of epochs, so it cannot go on; {ELSEWHERE}"
        )
    if before.kind != KIND or not alone or not (out / CHECKPOINT).is_dir():
        raise UserError(
            f"{epochs} of a fold of several, of a trial and where it was removed there is no "
            f"checkpoint to go on from; {ELSEWHERE}"
        )
    return True


def named_inputs(options: TrainOptions) -> dict[str, Input]:
    """What the options name and what is there, by its identity."""
    named: dict[str, Input] = {}
    data, training_set = options.task.data, options.training_set
    if data is not None and is_finished(data, DATASET):
        named["dataset"] = as_input(load_table(data)[2], data)
    if training_set.pool is not None and is_finished(training_set.pool, POOL):
        named["pool"] = load_pool(training_set.pool).as_input
    if training_set.benign_pool is not None and is_finished(training_set.benign_pool, POOL):
        named["benign pool"] = load_pool(training_set.benign_pool).as_input
    for text in training_set.external:
        name, _, folder = text.partition("=")
        named[f"external/{name}"] = as_input(load_table(Path(folder))[2], Path(folder))
    if (weights := weights_input(options.model.weights)) is not None:
        named["weights"] = weights
    return named


def carry_over(old: Path, new: Path) -> None:
    """Copy what a longer run goes on from. The checkpoint comes last: without it, it starts anew.

    So a kill in between costs time and nothing else.
    """
    for name in CARRIED:
        if (old / name).is_file():
            shutil.copyfile(old / name, new / name)
    (new / CHECKPOINT).mkdir()
    partial = new / CHECKPOINT / ".copy.partial"
    shutil.copyfile(old / CHECKPOINT / checkpoint.NEWEST, partial)
    os.replace(partial, new / CHECKPOINT / checkpoint.NEWEST)


def drop_checkpoint(out: Path, schedule: object, alone: bool) -> None:
    """Remove what a finished run has no more use for: its checkpoint, unless it could go on."""
    with locked(out):
        if schedule in OPEN_ENDED and alone:
            (out / CHECKPOINT / checkpoint.PREVIOUS).unlink(missing_ok=True)
        else:
            shutil.rmtree(out / CHECKPOINT, ignore_errors=True)
