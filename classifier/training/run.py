"""One run from its options to its folder, and a run a fold for `--fold all`."""

import shutil
import traceback
from pathlib import Path

import pandas as pd

from classifier.evaluation.cross_validation import pool, pooled_metrics
from classifier.evaluation.metrics import Metrics
from classifier.evaluation.plots import draw_fold_plots, title_of
from classifier.options import TrainOptions
from classifier.run_folder import METRICS, PREDICTIONS
from classifier.training.loop import Loop, out_of_memory
from classifier.training.outputs import describe, metrics_table, write_outputs
from classifier.training.schedule import best_epoch
from classifier.training.setup import build_model, resolve, with_saved_choices
from classifier.training.trunk_cache import FeatureCache
from data.prepare import default_dataset
from data.store import load_table
from dermsynth import checkpoint, device, runs
from dermsynth.errors import UserError
from dermsynth.files import read_json, write_bytes, write_json
from dermsynth.options import flat, replace
from dermsynth.tracking import Tracker

MAY_CHANGE = ("tracking", "cache_gib")  # between a run's start and its --resume


def train(
    options: TrainOptions, cache: FeatureCache | None = None
) -> tuple[Path, dict[str, Metrics]]:
    """The run's folder, and what `classifier.train.train` returns."""
    out, cache = options.run.out, cache or FeatureCache(options.compute.cache_gib)
    if options.run.resume and out and (out / METRICS).exists():
        print(f"{out} is finished already")
        return out, read_json(out / METRICS)
    if options.task.fold == "all":
        return _train_folds(options, cache)
    return _train_fold(options, cache)


def _train_fold(options: TrainOptions, cache: FeatureCache) -> tuple[Path, dict[str, Metrics]]:
    """One model."""
    compute = device.resolve(options.compute.device, options.compute.precision)
    setup = resolve(options)
    options, out = setup.options, setup.out
    model, words = build_model(setup)
    saved = checkpoint.load(out / "checkpoint") if options.run.resume else None
    runs.open_run(out, options, options.run.resume, options.run.overwrite, MAY_CHANGE)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(describe(setup))
    print(f"model      {options.model.backbone}, {words}; {trained / 1e6:.2f} M parameters train")
    print(f"computes   {compute}; writes {out}")
    began_with = model.weights_sha256()
    loop = Loop(setup, model, compute, cache)
    step = loop.restore(saved) if saved else 0
    config = {key: str(value) for key, value in flat(options).items()}
    group = f"{setup.dataset.path.name}-{options.model.backbone}"
    with Tracker(
        out, options.run.tracking, config, group, resume_step=step if saved else None
    ) as tracker:
        _run(loop, step, tracker)
        facts = {
            "best_epoch": best_epoch(loop.history, options.choice.monitor),
            "epochs": len(loop.history),
            "steps": len(loop.history) * loop.per_epoch,
            "training_seconds": round(loop.seconds, 1),
            "weights_sha256": began_with,
            "computed_on": str(compute),
        }
        loop.model.load_state_dict(loop.best)
        predictions = loop.scorer.predictions()
        metrics = write_outputs(setup, predictions, loop.best, loop.history, facts)
        figures = {
            f"{part}/{name}": value
            for part, by_name in metrics.items()
            for name, value in by_name.items()
            if value is not None
        }
        tracker.log(loop.total, **figures)
        for name in ("curves", "roc", "pr"):
            tracker.image(loop.total, name, out / "plots" / f"{name}.png")
    runs.finish_run(out)
    shutil.rmtree(out / "checkpoint")  # three times the model, and of no more use
    print(metrics_table(metrics, setup.leak))
    return out, metrics


def _train_folds(options: TrainOptions, cache: FeatureCache) -> tuple[Path, dict[str, Metrics]]:
    """Every fold's run in OUT/fold0 and so on, their pooled predictions and metrics in OUT.

    With --resume the folds that are finished stay, and the one that was stopped goes on.
    """
    if options.run.resume:
        options = with_saved_choices(options)
    data, backbone = options.task.data or default_dataset(), options.model.backbone
    stem = f"{data.name}-{backbone.replace(':', '-')}-seed{options.compute.seed}"
    out = options.run.out or runs.free_name(Path("runs/cls"), stem)
    options = replace(options, data=data, out=out)
    folds = sorted({int(fold) for fold in load_table(data)[0]["fold"] if fold >= 0})
    # what is wrong with it is told before there is a folder
    resolve(replace(options, fold=folds[0], resume=False))
    runs.open_run(out, options, options.run.resume, options.run.overwrite, MAY_CHANGE)
    frames, metrics_by_fold = [], {}
    for fold in folds:
        folder = out / f"fold{fold}"
        print(f"\nfold {fold} of {len(folds)}: {folder}")
        resume = (folder / runs.CONFIG).exists()
        fold_options = replace(options, fold=fold, out=folder, resume=resume, overwrite=False)
        metrics_by_fold[fold] = train(fold_options, cache)[1]
        frames.append(pd.read_parquet(folder / PREDICTIONS))
    pooled = pool(frames)
    metrics = pooled_metrics(pooled, list(metrics_by_fold.values()))
    write_bytes(out / PREDICTIONS, pooled.to_parquet(index=False))
    leak = next((figures["leaky"] for figures in metrics.values() if "leaky" in figures), None)
    title = title_of(f"{backbone}, {len(folds)} folds", leak)
    validation = {fold: parts["val"] for fold, parts in metrics_by_fold.items()}
    draw_fold_plots(out / "plots", pooled, validation, metrics["val_mean"], title)
    write_json(out / METRICS, metrics)  # last: it says that the run is complete
    runs.finish_run(out)
    print(f"\n{len(folds)} folds: {out}")
    print(metrics_table(metrics, leak))
    return out, metrics


def _run(loop: Loop, step: int, tracker: Tracker) -> None:
    """The loop; where memory is too small, what would fit is said."""
    try:
        loop.run(step, tracker)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the step's memory
        batch, fits = loop.options.steps.batch, loop.largest_batch()
        way_out = "lower --size or take a smaller --backbone"
        if fits:
            parts = -(-batch // fits)
            way_out = f"--accumulate {parts} computes {fits} images at a time, with the same steps"
        raise UserError(
            f"out of memory at --batch {batch}, --size {loop.options.model.size}: {way_out}"
        ) from None
