"""Melanoma from age, sex and site alone: what a classifier of images has to beat, or to join.

Writes config.yaml, predictions.parquet, metrics.json and run.json as classifier.train does, so
that classifier.blend reads both. Needs no images: a dataset of tables only will do.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dermsynth import cli
from dermsynth.options import Seed, TrackedOptions, check_bounds

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
    output: TrackedOptions = field(default_factory=TrackedOptions)


def train(options: MetadataOptions) -> dict[str, "Metrics"]:
    """Fit, test and write the run's folder; returns what metrics.json holds.

    One fold: parts "val" and "test", as classifier.train. All: those of cross_validation.pool.
    Raises UserError for a fold that does not exist, a training part of one class, and for one in
    which age, sex and site are all missing.
    """
    # imported here: --help does not wait for scikit-learn
    from classifier.evaluation.cross_validation import pool, pooled_metrics
    from classifier.evaluation.metrics import measure_parts
    from classifier.evaluation.tracked import track_whole
    from classifier.records import MetricsRecord
    from classifier.run_folder import METADATA, METRICS, PREDICTIONS, RUN
    from classifier.training import metadata_models
    from dermsynth.cli import save_options
    from dermsynth.files import free_name, sha256, write_bytes
    from dermsynth.folders import check_replaceable, whole_folder
    from dermsynth.manifest import digest, seal
    from dermsynth.options import as_plain, replace
    from dermsynth.records import write_record

    check_bounds(options)
    if options.output.out is not None:
        check_replaceable(options.output.out, METADATA, options.output.overwrite)
    dataset = metadata_models.open_table(options.data)
    folds = metadata_models.choose_folds(dataset, options.fold)
    fitted = [
        metadata_models.fit_and_score(dataset, fold, options.model, options.seed) for fold in folds
    ]
    fold_metrics = {
        fold: measure_parts(predictions, metadata_models.PARTS)
        for fold, predictions in zip(folds, fitted, strict=True)
    }
    # what a model was fitted on is told on the screen and in run.json, never beside what it is
    # tested on
    fitted = [rows[rows["part"] != "train"].reset_index(drop=True) for rows in fitted]
    predictions = fitted[0]
    metrics = {part: of for part, of in fold_metrics[folds[0]].items() if part != "train"}
    if options.fold == "all":
        predictions = pool(fitted)
        metrics = pooled_metrics(predictions, list(fold_metrics.values()))
    name = options.data.absolute().name
    stem = f"{name}-metadata-{options.model}-fold{options.fold}-seed{options.seed}"
    out = options.output.out or free_name(Path("runs/cls"), stem)
    kept = replace(options, out=out, overwrite=False)
    with whole_folder(out, METADATA, options.output.overwrite) as folder:
        save_options(kept, folder)
        write_bytes(folder / PREDICTIONS, predictions.to_parquet(index=False))
        write_record(folder / RUN, metadata_models.run_record(dataset, fold_metrics))
        write_record(folder / METRICS, MetricsRecord(metrics))  # type: ignore[arg-type]
        parts = {"predictions": sha256(folder / PREDICTIONS), "metrics": digest(metrics)}
        seal(folder, METADATA, parts, {"dataset": dataset.as_input}, as_plain(kept))
    labels = {"dataset": name, "model": options.model, "fold": options.fold, "seed": options.seed}
    track_whole(out, kept, labels, predictions)
    print(f"{options.data}: {options.model} of age, sex and site; writes {out}")
    print(metadata_models.screen_table(fold_metrics, metrics, dataset.info.target.one))
    cli.say_next(f"python -m classifier.blend --scores image=RUN meta={out} --out both.csv")
    return metrics


if __name__ == "__main__":
    cli.run(MetadataOptions, train, "classifier.metadata", __doc__)
