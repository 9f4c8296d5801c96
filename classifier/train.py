"""Fine-tune a classifier on real and synthetic lesions, and test it on real ones.

Writes config.yaml, metrics.jsonl, metrics.json, predictions.parquet, model.safetensors and plots
to the run's folder. The checkpoint with the best validation figure is the one that is tested, once.
`--fold all` trains a model a fold, in FOLDER/fold0 and so on, and pools what they predict.
`--config classifier/recipes/NAME.yaml` repeats a published recipe.
"""

import dataclasses
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
from classifier.training.outputs import (
    describe,
    metrics_table,
    options_dict,
    write_outputs,
)
from classifier.training.schedule import best_epoch
from classifier.training.setup import build_model, default_dataset, resolve, with_saved_choices
from classifier.training.trunk_cache import FeatureCache
from data.store import load_table
from dermsynth import checkpoint, cli, device, runs
from dermsynth.errors import UserError
from dermsynth.files import read_json, write_bytes, write_json
from dermsynth.tracking import Tracker


def train(options: TrainOptions, cache: FeatureCache | None = None) -> dict[str, Metrics]:
    """Train, test, write the run's folder; returns what metrics.json holds.

    `cache` shares trunk features between the runs of one process. Raises UserError for bad input
    and KeyboardInterrupt, after a checkpoint, where the user stopped it.
    """
    if options.resume and options.out and (options.out / METRICS).exists():
        print(f"{options.out} is finished already")
        return read_json(options.out / METRICS)
    if options.fold == "all":
        return cross_validate(options, cache or FeatureCache(options.cache_gib))
    compute = device.resolve(options.device, options.precision)
    job = resolve(options)
    model, words = build_model(job)
    saved = checkpoint.load(job.out / "checkpoint") if options.resume else None
    runs.open_run(
        job.out, job.options, options.resume, options.overwrite, ("tracking", "cache_gib")
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(describe(job))
    print(f"model      {options.backbone}, {words}; {trained / 1e6:.2f} M parameters train")
    print(f"computes   {compute}; writes {job.out}")
    began_with = model.weights_sha256()
    loop = Loop(job, model, compute, cache or FeatureCache(options.cache_gib))
    step = loop.restore(saved) if saved else 0
    group = f"{job.dataset.path.name}-{options.backbone}"
    with Tracker(
        job.out, options.tracking, options_dict(job), group, resume_step=step if saved else None
    ) as tracker:
        _run(loop, step, tracker)
        facts = {
            "best_epoch": best_epoch(loop.history, options.monitor),
            "epochs": len(loop.history),
            "steps": len(loop.history) * loop.per_epoch,
            "training_seconds": round(loop.seconds, 1),
            "weights_sha256": began_with,
            "computed_on": str(compute),
        }
        metrics = write_outputs(job, loop.predictions(), loop.best, loop.history, facts)
        found = {
            f"{part}/{key}": value for part, of in metrics.items() for key, value in of.items()
        }
        tracker.log(loop.total, **{key: value for key, value in found.items() if value is not None})
        for name in ("curves", "roc", "pr"):
            tracker.image(loop.total, name, job.out / "plots" / f"{name}.png")
    runs.finish_run(job.out)
    shutil.rmtree(job.out / "checkpoint")  # three times the model, and of no more use
    print(metrics_table(metrics, job.leak))
    return metrics


def cross_validate(options: TrainOptions, cache: FeatureCache) -> dict[str, Metrics]:
    """Every fold's run in OUT/fold0 and so on, their pooled predictions and metrics in OUT.

    With --resume the folds that are finished stay, and the one that was stopped goes on.
    """
    if options.resume:
        options = with_saved_choices(options)
    data = options.data or default_dataset()
    out = options.out or runs.free_name(
        Path("runs/cls"), f"{data.name}-{options.backbone.replace(':', '-')}-seed{options.seed}"
    )
    options = dataclasses.replace(options, data=data, out=out)
    folds = load_table(data)[0]["fold"]
    numbers = sorted({int(fold) for fold in folds if fold >= 0})
    first = dataclasses.replace(options, fold=numbers[0], resume=False)
    resolve(first)  # what is wrong with it is told before there is a folder
    runs.open_run(out, options, options.resume, options.overwrite, ("tracking", "cache_gib"))
    frames, metrics = [], []
    for fold in numbers:
        folder = out / f"fold{fold}"
        print(f"\nfold {fold} of {len(numbers)}: {folder}")
        resume = (folder / runs.CONFIG).exists()
        one = dataclasses.replace(options, fold=fold, out=folder, resume=resume, overwrite=False)
        metrics.append(train(one, cache))
        frames.append(pd.read_parquet(folder / PREDICTIONS))
    pooled = pool(frames)
    found = pooled_metrics(pooled, metrics)
    write_bytes(out / PREDICTIONS, pooled.to_parquet(index=False))
    leak = next((of["leaky"] for of in found.values() if "leaky" in of), None)
    title = title_of(f"{options.backbone}, {len(numbers)} folds", leak)
    of_folds = {fold: of["val"] for fold, of in zip(numbers, metrics, strict=True)}
    draw_fold_plots(out / "plots", pooled, of_folds, found["val_mean"], title)
    write_json(out / METRICS, found)  # last: it says that the run is complete
    runs.finish_run(out)
    print(f"\n{len(numbers)} folds: {out}")
    print(metrics_table(found, leak))
    return found


def _run(loop: Loop, step: int, tracker: Tracker) -> None:
    try:
        loop.run(step, tracker)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the step's memory
        options, fits = loop.options, loop.largest_batch()
        way_out = "lower --size or take a smaller --backbone"
        if fits:
            parts = -(-options.batch // fits)
            way_out = f"--accumulate {parts} computes {fits} images at a time, with the same steps"
        raise UserError(
            f"out of memory at --batch {options.batch}, --size {options.size}: {way_out}"
        ) from None


if __name__ == "__main__":
    cli.run(TrainOptions, train, "classifier.train", __doc__)
