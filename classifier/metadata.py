"""Melanoma from age, sex and site alone: what a classifier of images has to beat, or to join.

Writes config.yaml, predictions.parquet, metrics.json and run.json as classifier.train does, so
that classifier.blend reads both. Needs no images: a dataset of tables only will do.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dermsynth import cli
from dermsynth.options import OutputOptions, Seed, check_bounds

if TYPE_CHECKING:
    from classifier.evaluation.metrics import Metrics

ModelName = Literal["logistic", "naive-bayes", "forest", "boosting"]


@dataclass(frozen=True)
class MetadataOptions:
    """Options of `python -m classifier.metadata`."""

    data: Path  # prepared dataset folder; its images are not read
    model: ModelName = "logistic"  # forest: 1000 trees of depth 2; boosting: of histograms
    fold: str = "all"  # validate on this fold, or on each in turn: all
    seed: Seed = 0  # of drawn missing categories, the forest and the boosting
    output: OutputOptions = field(default_factory=OutputOptions)


def train(options: MetadataOptions) -> dict[str, "Metrics"]:
    """Fit, test and write the run's folder; returns what metrics.json holds.

    One fold: parts "val" and "test", as classifier.train. All: those of cross_validation.pool.
    Raises UserError for a fold that does not exist, a training part of one class, and for one in
    which age, sex and site are all missing.
    """
    # imported here: --help does not wait for scikit-learn
    from classifier.evaluation.cross_validation import pool, pooled_metrics
    from classifier.evaluation.metrics import measure_parts
    from classifier.run_folder import METRICS, PREDICTIONS, RUN
    from classifier.training import metadata_models
    from dermsynth import runs
    from dermsynth.files import write_bytes, write_json

    check_bounds(options)
    dataset = metadata_models.open_table(options.data)
    folds = metadata_models.choose_folds(dataset, options.fold)
    fitted = [
        metadata_models.fit_and_score(dataset, fold, options.model, options.seed) for fold in folds
    ]
    fold_metrics = {
        fold: measure_parts(predictions, ("val", "test"))
        for fold, predictions in zip(folds, fitted, strict=True)
    }
    predictions, metrics = fitted[0], fold_metrics[folds[0]]
    if options.fold == "all":
        predictions = pool(fitted)
        metrics = pooled_metrics(predictions, list(fold_metrics.values()))
    stem = f"{options.data.name}-metadata-{options.model}-fold{options.fold}-seed{options.seed}"
    out = options.output.out or runs.free_name(Path("runs/cls"), stem)
    runs.open_run(out, options, resume=False, overwrite=options.output.overwrite)
    write_bytes(out / PREDICTIONS, predictions.to_parquet(index=False))
    write_json(out / RUN, metadata_models.run_facts(dataset, fold_metrics))
    write_json(out / METRICS, metrics)
    runs.finish_run(out)
    print(f"{options.data}: {options.model} of age, sex and site; writes {out}")
    print(metadata_models.screen_table(fold_metrics, metrics))
    cli.say_next(f"python -m classifier.blend --scores image=RUN meta={out} --out both.csv")
    return metrics


if __name__ == "__main__":
    cli.run(MetadataOptions, train, "classifier.metadata", __doc__)
