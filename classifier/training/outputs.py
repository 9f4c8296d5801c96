"""What a finished run leaves: predictions, metrics, weights, plots, and words on the screen."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save

from classifier.evaluation import calibration, operating_points
from classifier.evaluation.likeness import Reference
from classifier.evaluation.metrics import Metrics, measure_parts
from classifier.evaluation.multiclass import class_numbers
from classifier.evaluation.plots import Course, draw_plots, title_of
from classifier.model.classifier import Classifier
from classifier.records import (
    VERSION,
    DecisionsRecord,
    MetricsRecord,
    ModelRecord,
    PoolFacts,
    RunRecord,
    SpecRecord,
    TargetRecord,
    Thresholds,
)
from classifier.run_folder import METRICS, MODEL, PREDICTIONS, REFERENCES, RUN, WEIGHTS
from classifier.training.augmented_sheet import draw_sheet
from classifier.training.externals import in_words, not_compared
from classifier.training.losses import class_weights
from classifier.training.schedule import rates
from classifier.training.setup import TrainingSetup
from data.store import View
from dermsynth import progress
from dermsynth.errors import counted
from dermsynth.files import sha256, write_bytes, write_text
from dermsynth.machine import versions
from dermsynth.manifest import digest
from dermsynth.records import write_record


def write_outputs(
    setup: TrainingSetup,
    folder: Path,
    model: Classifier,
    predictions: pd.DataFrame,
    history: list[dict[str, Any]],
    facts: dict[str, Any],
    reference: Reference | None = None,
) -> tuple[dict[str, Metrics], dict[str, str]]:
    """Write every output; returns metrics.json, and hashes of what the run is, for its seal.

    Parameters
    ----------
    setup : the run
    folder : where it is written
    model : the best one
    predictions : rows of predictions.parquet
    history : a dict an epoch
    facts : more for run.json, among it the `steps` of all epochs
    reference : with what other images are compared
    """
    externals = [f"external/{name}" for name in setup.externals]
    metrics = measure_parts(predictions, ("val", "test", *externals))
    for name, test in setup.external_tests.items():
        if test.overlap.left_out:
            metrics[f"external/{name}"]["left_out"] = test.overlap.images
    record = model_record(setup, model, predictions, reference)
    if setup.leak:
        predictions = predictions.assign(leaky=True)
        for part in metrics.values():
            part["leaky"] = setup.leak  # type: ignore[assignment]
        config = (folder / "config.yaml").read_text(encoding="utf-8")
        if not config.startswith("# LEAKY"):
            write_text(folder / "config.yaml", f"# LEAKY: {' '.join(setup.leak.split())}\n{config}")
    write_bytes(folder / PREDICTIONS, predictions.to_parquet(index=False))
    state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(state))
    if reference is not None:
        features = torch.from_numpy(reference.features)
        write_bytes(folder / REFERENCES, save({"features": features}))
    write_record(folder / MODEL, record)
    if setup.metadata:
        setup.metadata.save(folder)
    options = setup.options.model
    title = f"{options.backbone}, {options.frozen} blocks frozen, {_images_in_words(setup)}"
    plots, one = folder / "plots", setup.target.meaning.one
    steps, choice = setup.options.steps, setup.options.choice
    rate = rates(steps, choice, history, facts["steps"] // len(history))
    best, loss = facts["best_epoch"], setup.options.objective.loss
    course = Course(history, rate, loss, best, choice.monitor)
    with progress.late(2, "drawing plots", "part") as bar:
        draw_plots(plots, course, predictions, metrics, title_of(title, setup.leak), one)
        bar.update()
        draw_sheet(setup, plots)
        bar.update()
    write_record(folder / RUN, run_record(setup, facts))
    write_record(folder / METRICS, MetricsRecord(metrics))  # type: ignore[arg-type]
    return metrics, {
        "weights": sha256(folder / WEIGHTS),
        "model": digest(record.model_dump(mode="json")),
        "predictions": sha256(folder / PREDICTIONS),
    }


def model_record(
    setup: TrainingSetup,
    model: Classifier,
    predictions: pd.DataFrame,
    reference: Reference | None,
) -> ModelRecord:
    """`model.json`; temperature and thresholds are chosen on the validation rows."""
    rows, target = predictions[predictions["part"] == "val"], setup.target
    chosen, class_temperature = decisions(rows), None
    if target.name == "diagnosis":
        known = rows[rows["diagnosis"].isin(target.classes)]
        class_temperature = calibration.fit_class_temperature(
            class_numbers(known["diagnosis"].to_numpy(), target.classes),
            known[[f"score_{name}" for name in target.classes]].to_numpy(np.float64),
        )
    mean, std = _channels(model.backbone.mean), _channels(model.backbone.std)
    return ModelRecord(
        schema_version=VERSION,
        spec=SpecRecord(**dataclasses.asdict(setup.spec)),
        target=TargetRecord(**dataclasses.asdict(target)),
        augment=setup.options.augmentation.augment,
        leaky=setup.leak,
        look=setup.dataset.info.look,
        mean=mean,
        std=std,
        temperature=chosen.temperature,
        class_temperature=class_temperature,
        thresholds=chosen.thresholds,
        columns=tuple(setup.metadata.encoder.describe()) if setup.metadata else (),
        likeness=reference.about if reference else None,
    )


def decisions(rows: pd.DataFrame) -> DecisionsRecord:
    """Temperature and thresholds that suit validation rows."""
    truth, score = rows["target"].to_numpy(), rows["score"].to_numpy()
    thresholds = operating_points.choose_thresholds(truth, score)
    return DecisionsRecord(
        temperature=calibration.fit_temperature(truth, score),
        thresholds=Thresholds(**thresholds) if thresholds else None,
    )


def _channels(values: torch.Tensor) -> tuple[float, float, float]:
    """Three float32 numbers as they are written shortest: the same ones when they are read."""
    red, green, blue = (float(str(value)) for value in values.flatten().cpu().numpy())
    return red, green, blue


def run_record(setup: TrainingSetup, facts: dict[str, Any]) -> RunRecord:
    """What the options do not say: identities of the data, counts, versions."""
    pool, facts_of_pool = setup.pool, None
    if pool is not None:
        made = pool.info.provenance
        facts_of_pool = PoolFacts(
            path=str(pool.path),
            id=pool.identity.id,
            kind=made.kind,
            generator_id=made.generator_id,
            seed=made.seed,
        )
    licence = setup.dataset.info.facts.get("licence")
    return RunRecord(
        **facts,
        folds_hash=setup.dataset.folds_hash,
        externals={name: dataset.folds_hash for name, dataset in setup.externals.items()},
        overlaps={name: test.overlap for name, test in setup.external_tests.items()},
        training_images=counts(setup),
        pool=facts_of_pool,
        licence=None if licence is None else str(licence),
        leaky=setup.leak,
        versions=versions("torch", "numpy"),
    )


def counts(setup: TrainingSetup) -> dict[str, int]:
    """Training images by kind."""
    targets = setup.training.targets
    real = targets[: setup.training.n_real]
    malignant, benign = setup.training.needed
    duplicates = len(targets) - setup.training.n_real - malignant - benign
    return {
        "real_benign": int((~real).sum()),
        "real_malignant": int(real.sum()),
        "synthetic_malignant": malignant,
        "synthetic_benign": benign,
        "duplicated_malignant": duplicates,
    }


def _seen(view: View) -> str:
    """What is unusual about the parts, in words."""
    tested = "" if view.test_fold is None else f", tested on fold {view.test_fold}"
    share = f"{100 * view.malignant_share:g}% of the malignant training groups"
    return tested + ("" if view.malignant_share == 1 else f", {share}")


def describe(setup: TrainingSetup) -> str:
    """What goes into the run, as lines for the screen."""
    dataset, fold = setup.dataset, setup.fold
    n, (zero, one) = counts(setup), setup.target.meaning.words
    lines = [
        f"data       {dataset.path}, fold {fold}{_seen(dataset.view)}",
        f"training   {n['real_benign']} {zero} + {n['real_malignant']} {one} real"
        f" + {n['synthetic_malignant']} synthetic + {n['duplicated_malignant']} duplicates"
        + (f" + {n['synthetic_benign']} synthetic, {zero}" if setup.benign_pool else ""),
    ]
    if warning := dataset.info.grouping.warning:
        lines.append(f"groups     {warning}")
    if setup.target.name == "diagnosis":
        in_class = np.bincount(setup.training.labels, minlength=len(setup.target.classes))
        words = map("{} {}".format, setup.target.classes, in_class)
        lines.append("classes    " + ", ".join(words))
    if weights := class_weights(setup.training.labels, setup.target, setup.options.objective):
        names = (zero, one) if setup.target.name == "binary" else setup.target.classes
        words = map("{} {:.2f}".format, names, weights)
        even = ", all alike: they change nothing" if len(set(weights)) == 1 else ""
        lines.append("weights    " + ", ".join(words) + even)
    for name, part in (("validation", "val"), ("test", "test")):
        targets = dataset.targets(dataset.rows(part, fold))  # type: ignore[arg-type]
        lines.append(f"{name:<10} {(targets == 0).sum()} {zero} + {targets.sum()} {one}")
    for name, external in setup.externals.items():
        test = setup.external_tests[name]
        lines.append(f"external   {name}: {counted(len(test.rows), 'image')} of {external.path}")
        if (there := external.info.target).words != (zero, one):
            lines.append(f"differs    {name}: its target 1 is {there.one}, that of training {one}")
        if test.overlap.left_out and test.overlap.images:
            lines.append(f"left out   {name}: {test.overlap.images}, {in_words(test.overlap)}")
        lines += [f"unchecked  {name}: {line}" for line in not_compared(test.overlap)]
    if setup.pool:
        lines.append(f"pool       {setup.pool.path}, the first {n['synthetic_malignant']} images")
    if setup.leak:
        lines.append(f"LEAKY      {setup.leak}")
    return "\n".join(lines)


def metrics_table(metrics: dict[str, Metrics], leak: str | None) -> str:
    """The main figures as a table for the screen."""
    columns = {"auc": "AUC", "average_precision": "AP", "balanced_accuracy": "bal. acc."}
    columns |= {"accuracy": "acc@0.5", "sensitivity_at_95_specificity": "sens@95"}
    columns |= {"brier": "Brier", "ece": "ECE"}
    if any("auc_single_view" in figures for figures in metrics.values()):
        columns["auc_single_view"] = "AUC, 1v"  # without --tta
    width = max(len(part) for part in metrics) + 2
    lines = [" " * width + "".join(f"{word:>10}" for word in columns.values()) + f"{'n':>8}"]
    for part, figures in metrics.items():
        values = [figures.get(key) for key in columns]
        cells = ["-" if value is None else f"{value:.4f}" for value in values]
        n = figures.get("n", "")  # of a mean over folds there is none
        lines.append(f"{part:<{width}}" + "".join(f"{cell:>10}" for cell in cells) + f"{n:>8}")
    if leak:
        lines.insert(0, f"LEAKY: these are not results ({leak})")
    return "\n".join(lines)


def epoch_line(history: list[dict[str, Any]], best: int) -> str:
    """Training beside validation in the chosen epoch, for the screen."""
    row = history[best - 1]
    parts = []
    for part, word in (("train", "training"), ("val", "validation")):
        figures = {"loss": "loss", "auc": "AUC", "accuracy": "accuracy"}
        known = {name: row.get(f"{part}_{key}") for key, name in figures.items()}
        cells = [f"{name} {value:.4f}" for name, value in known.items() if value is not None]
        parts.append(f"{word} {', '.join(cells)}")
    return f"epoch {best} of {len(history)}, the best: {'; '.join(parts)}"


def _images_in_words(setup: TrainingSetup) -> str:
    """The training images and the seed, for a plot's title."""
    n = counts(setup)
    real = n["real_benign"] + n["real_malignant"]
    extra = {"synthetic": n["synthetic_malignant"], "duplicates": n["duplicated_malignant"]}
    words = [f"{count} {name}" for name, count in extra.items() if count]
    return " + ".join([f"{real} real", *words]) + f", seed {setup.options.compute.seed}"
