"""One run from its options to its folder, and a run a fold for `--fold all`.

Of several processes rank 0 does all of this; the others take part in each training that it begins
(classifier.training.follow).
"""

import contextlib
from pathlib import Path
from typing import Any

from classifier.evaluation.cross_validation import pool, pooled_metrics
from classifier.evaluation.metrics import Metrics
from classifier.evaluation.plots import draw_fold_plots, title_of
from classifier.evaluation.tracked import track_whole
from classifier.options import TrainOptions
from classifier.records import MetricsRecord
from classifier.run_folder import (
    CHECKPOINT,
    FOLDS,
    KIND,
    METRICS,
    PREDICTIONS,
    open_run,
    read_metrics,
    read_predictions,
)
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
    named_inputs,
    with_choices,
)
from classifier.training.schedule import best_epoch
from classifier.training.setup import build_model, look_up, resolve, settle
from classifier.training.tracked_outputs import about_run, track_outputs
from classifier.training.trunk_cache import FeatureCache
from data.prepare import default_dataset
from data.store import load_table
from dermsynth import checkpoint, device
from dermsynth.cli import save_options
from dermsynth.distributed import Processes, check_shares, join_processes
from dermsynth.files import free_name, sha256, write_bytes
from dermsynth.folders import RunFolder, can_resume, check_replaceable, run_folder
from dermsynth.locks import locked
from dermsynth.manifest import Manifest, check_same, is_finished
from dermsynth.options import as_plain, replace
from dermsynth.records import write_record
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
        if options.task.fold == "all":
            return _train_folds(options, cache, processes)
        return _train_fold(options, cache, alone, processes)


def _train_fold(
    options: TrainOptions, cache: FeatureCache, alone: bool, processes: Processes
) -> tuple[Path, dict[str, Metrics]]:
    """One model. `alone`: no fold of several and no trial of an experiment."""
    compute = device.resolve(options.compute.device, options.compute.precision)
    shorter: Manifest | None = None  # a finished run that goes on for more epochs
    if options.run.resume and (before := earlier(options)).finished:
        if not goes_on(settle(options), before, alone):
            return _finished(options, before, alone)
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


def _finished(
    options: TrainOptions, before: Manifest, alone: bool
) -> tuple[Path, dict[str, Metrics]]:
    out = options.run.out
    assert out is not None
    print(f"{out} is finished already")
    if before.kind == KIND:
        drop_checkpoint(out, before.options.get("schedule"), alone)  # where it was killed then
    return out, read_metrics(open_run(out))  # type: ignore[return-value]


# --- all folds -----------------------------------------------------------------------------------


def _train_folds(
    options: TrainOptions, cache: FeatureCache, processes: Processes
) -> tuple[Path, dict[str, Metrics]]:
    """Every fold's run in OUT/fold0 and so on, their pooled predictions and metrics in OUT.

    With --resume the folds that are finished stay, and the one that was stopped goes on.
    """
    if options.run.resume:
        if (before := earlier(options)).finished:
            goes_on(settle(options), before, alone=False)
            return _finished(options, before, alone=False)
        options = with_choices(options, before)
    elif options.run.out is not None:
        check_replaceable(options.run.out, FOLDS, options.run.overwrite)
    options = settle(options)
    if options.task.data is None:
        first = 1 if options.task.test_fold == 0 else 0
        look_up(
            replace(options, fold=first, out=None)
        )  # checks what it can, then draws the phantom
    data, backbone = options.task.data or default_dataset(), options.model.backbone
    stem = f"{data.absolute().name}-{backbone.replace(':', '-')}-seed{options.compute.seed}"
    out = options.run.out or free_name(Path("runs/cls"), stem)
    options = replace(options, data=data, out=out)
    known = {int(fold) for fold in load_table(data)[0]["fold"] if fold >= 0}
    folds = sorted(known - {options.task.test_fold})
    for fold in folds:
        _check_fold(options, fold)
    kept = replace(options, resume=False, overwrite=False)
    with run_folder(
        *(out, FOLDS, as_plain(kept), named_inputs(options)),
        *(options.run.resume, options.run.overwrite, may_change(options)),
    ) as run:
        save_options(kept, run.path)
        metrics, leak = _run_folds(run, options, folds, cache, processes)
    labels = {"dataset": data.absolute().name, "model": backbone, "fold": "all"}
    labels |= {"seed": options.compute.seed}
    track_whole(out, options, labels, read_predictions(open_run(out, (FOLDS,))))
    print(f"\n{len(folds)} folds: {out}")
    print(metrics_table(metrics, leak))
    return out, metrics


def _check_fold(options: TrainOptions, fold: int) -> None:
    """Raise UserError for what is wrong with a fold before one is trained."""
    assert options.run.out is not None
    folder = options.run.out / f"fold{fold}"
    again = options.run.resume and can_resume(folder)
    if not (again and is_finished(folder, KIND)):
        look_up(replace(options, fold=fold, resume=again, out=folder if again else None))


def _run_folds(
    run: RunFolder,
    options: TrainOptions,
    folds: list[int],
    cache: FeatureCache,
    processes: Processes,
) -> tuple[dict[str, Metrics], str | None]:
    """Train what is not finished, pool, and finish the run; the pooled metrics and the leak."""
    frames, metrics_by_fold, parts = [], {}, {}
    for fold in folds:
        folder = run.path / f"fold{fold}"
        print(f"\nfold {fold} of {len(folds)}: {folder}")
        fold_options = replace(
            options, fold=fold, out=folder, resume=can_resume(folder), overwrite=False
        )
        metrics_by_fold[fold] = _train(fold_options, cache, False, processes)[1]
        sealed = open_run(folder, (KIND,))
        frames.append(read_predictions(sealed))
        parts[f"fold{fold}"] = sealed.identity.id
    pooled = pool(frames)
    metrics = pooled_metrics(pooled, list(metrics_by_fold.values()))
    leak = next((str(part["leaky"]) for part in metrics.values() if "leaky" in part), None)
    title = title_of(f"{options.model.backbone}, {len(folds)} folds", leak)
    validation = {fold: part["val"] for fold, part in metrics_by_fold.items()}
    write_bytes(run.path / PREDICTIONS, pooled.to_parquet(index=False))
    draw_fold_plots(run.path / "plots", pooled, validation, metrics["val_mean"], title)
    write_record(run.path / METRICS, MetricsRecord(metrics))  # type: ignore[arg-type]
    run.finish(parts | {"predictions": sha256(run.path / PREDICTIONS)})
    return metrics, leak
