"""One run from its options to its folder; several of them: classifier.training.several.

Of several processes rank 0 does all of this; the others take part in each training that it begins
(classifier.training.follow).
"""

import contextlib
from pathlib import Path
from typing import Any

from classifier.evaluation.metrics import Metrics
from classifier.options import TrainOptions
from classifier.run_folder import CHECKPOINT, FOLDS, KIND, PAIR
from classifier.training.follow import Begun, follow, run_loop
from classifier.training.loop import Loop
from classifier.training.outputs import describe, epoch_line, metrics_table, write_outputs
from classifier.training.references import compare_parts, likeness_lines
from classifier.training.resume import (
    ELSEWHERE,
    carry_over,
    drop_checkpoint,
    earlier,
    goes_on,
    may_change,
    with_choices,
)
from classifier.training.schedule import best_epoch
from classifier.training.setup import build_model, resolve, settle
from classifier.training.several import finished_before, train_several
from classifier.training.tracked_outputs import about_run, track_outputs
from classifier.training.trunk_cache import FeatureCache
from dermsynth import checkpoint, device
from dermsynth.cli import save_options
from dermsynth.distributed import Processes, check_shares, join_processes
from dermsynth.folders import run_folder
from dermsynth.locks import locked
from dermsynth.manifest import Manifest, check_same
from dermsynth.options import as_plain, replace
from dermsynth.tracking import Tracker


def train(
    options: TrainOptions, cache: FeatureCache | None = None
) -> tuple[Path, dict[str, Metrics]]:
    """The run's folder, and what `classifier.train.train` returns."""
    processes, alone = join_processes(options.compute.device), cache is None
    cache = cache or FeatureCache(options.compute.cache_gib)
    if not processes.is_rank0:
        return follow(processes, cache)
    if processes.count > 1:
        steps = settle(options).steps
        check_shares(steps.batch, steps.accumulate, processes)
    return processes.rank0_gives(_train(options, cache, alone, processes))


def _train(
    options: TrainOptions, cache: FeatureCache, alone: bool, processes: Processes
) -> tuple[Path, dict[str, Metrics]]:
    out = options.run.out
    # what is there already is looked at and written under one lock
    with locked(out) if out is not None and out.exists() else contextlib.nullcontext():
        kind = FOLDS if options.task.fold == "all" else PAIR if options.choice.beside else KIND
        if kind == KIND:
            return _train_one(options, cache, alone, processes)
        return train_several(options, kind, lambda part: _train(part, cache, False, processes)[1])


def _train_one(
    options: TrainOptions, cache: FeatureCache, alone: bool, processes: Processes
) -> tuple[Path, dict[str, Metrics]]:
    """One model. `alone`: no fold of several and no trial of an experiment."""
    compute = device.resolve(options.compute.device, options.compute.precision)
    shorter: Manifest | None = None  # a finished run that goes on for more epochs
    if options.run.resume and (before := earlier(options)).finished:
        if not goes_on(settle(options), before, alone):
            metrics = finished_before(options)
            assert options.run.out is not None
            drop_checkpoint(options.run.out, before.options.get("schedule"), alone)  # killed then
            return options.run.out, metrics
        shorter = before  # what it came to stays until the longer one is finished
        options = replace(with_choices(options, before), resume=False, overwrite=True)
    setup = resolve(options)
    model, words = build_model(setup)
    if shorter is not None:
        check_same(shorter.inputs, setup.inputs, f"--resume {setup.out}", ELSEWHERE)
    with run_folder(
        *(setup.out, KIND, as_plain(setup.kept), setup.inputs),
        *(options.run.resume, options.run.overwrite, may_change(setup.options)),
    ) as run:
        if shorter is not None:
            carry_over(run.out, run.path)
        save_options(setup.kept, run.path)
        print(describe(setup))
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        named = f"{setup.options.model.backbone}, {words}"
        print(f"model      {named}; {trained / 1e6:.2f} M parameters train")
        shared = f", {processes.count} processes" if processes.count > 1 else ""
        print(f"computes   {compute}{shared}; writes {run.path}")
        began_with = model.weights_sha256()
        saved = checkpoint.load(run.path / CHECKPOINT)  # where it is damaged, one process says so
        processes.rank0_gives(Begun(setup.options, run.path))
        loop = Loop(setup, model, compute, cache, run.path, processes)
        facts = {"weights_sha256": began_with, "computed_on": f"{compute}{shared}"}
        step = loop.restore(saved) if saved else None
        metrics, parts = _train_and_test(loop, step, run.path, facts)
        run.finish(parts)
        drop_checkpoint(run.out, setup.options.steps.schedule, alone)
    print(metrics_table(metrics, setup.leak))
    return setup.out, metrics


def _train_and_test(
    loop: Loop, resume_step: int | None, folder: Path, facts: dict[str, Any]
) -> tuple[dict[str, Metrics], dict[str, str]]:
    """Metrics, and hashes of what the run is; everything is written but the manifest."""
    setup, options = loop.setup, loop.setup.options
    with Tracker(folder, options.run.tracking, about_run(setup), resume_step) as tracker:
        predictions = run_loop(loop, resume_step or 0, tracker)
        best = best_epoch(loop.history, options.choice.monitor)
        facts = facts | {
            "best_epoch": best,
            "best_epoch_figures": loop.history[best - 1],
            "epochs": len(loop.history),
            "steps": len(loop.history) * loop.per_epoch,
            "training_seconds": round(loop.seconds, 1),
        }
        reference, likeness = compare_parts(setup, loop.trunk, loop.compute)
        facts["likeness"] = likeness
        outputs = (predictions, loop.history, facts, reference)
        metrics, parts = write_outputs(setup, folder, loop.model, *outputs)
        print("\n".join([epoch_line(loop.history, best), *likeness_lines(reference, likeness)]))
        figures = {
            f"{part}/{name}": value
            for part, by_name in metrics.items()
            for name, value in by_name.items()
            if value is not None
        }
        end = loop.total + 1  # behind all steps: what is resumed drops this row and writes it anew
        tracker.final(end, **figures)
        for name in ("curves", "roc", "pr", "augmented"):
            if (
                path := folder / "plots" / f"{name}.png"
            ).exists():  # no sheet of images as they are
                tracker.image(end, name, path, of_lesions=name == "augmented")
        track_outputs(tracker, setup, predictions, parts)
    return metrics, parts
