"""What a finished run leaves: predictions, metrics, weights, plots, and words on the screen."""

import dataclasses
import json
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save

from classifier.evaluation.metrics import Metrics, measure_parts
from classifier.evaluation.plots import draw_plots, title_of
from classifier.run_folder import METRICS, MODEL, PREDICTIONS, RUN
from classifier.training.setup import TrainingSetup
from dermsynth.files import write_bytes, write_json, write_text
from dermsynth.machine import versions


def write_outputs(
    setup: TrainingSetup,
    predictions: pd.DataFrame,
    state: dict[str, torch.Tensor],
    history: list[dict[str, Any]],
    facts: dict[str, Any],
) -> dict[str, Metrics]:
    """Write every output; metrics.json comes last and says that the run is complete.

    Parameters
    ----------
    setup : the run
    predictions : rows of predictions.parquet
    state : of the best model
    history : a dict an epoch
    facts : more for run.json
    """
    externals = [f"external/{name}" for name in setup.externals]
    metrics = measure_parts(predictions, ("val", "test", *externals))
    out, options = setup.out, setup.options
    if setup.leak:
        predictions = predictions.assign(leaky=True)
        for part in metrics.values():
            part["leaky"] = setup.leak
        config = (out / "config.yaml").read_text(encoding="utf-8")
        if not config.startswith("# LEAKY"):
            write_text(out / "config.yaml", f"# LEAKY: {' '.join(setup.leak.split())}\n{config}")
    write_bytes(out / PREDICTIONS, predictions.to_parquet(index=False))
    rebuild = {"spec": dataclasses.asdict(setup.spec), "target": dataclasses.asdict(setup.target)}
    rebuild |= {"augment": options.augmentation.augment, "leaky": setup.leak}
    # one entry, because the file would hold several in a random order
    header = {"classifier": json.dumps(rebuild)}
    write_bytes(out / MODEL, save({k: v.contiguous() for k, v in state.items()}, header))
    if setup.metadata:
        setup.metadata.save(out)
    model = options.model
    title = f"{model.backbone}, {model.frozen} blocks frozen, {_images_in_words(setup)}"
    draw_plots(out / "plots", history, predictions, metrics, title_of(title, setup.leak))
    write_json(out / RUN, facts | run_facts(setup))
    write_json(out / METRICS, metrics)
    return metrics


def run_facts(setup: TrainingSetup) -> dict[str, Any]:
    """What config.yaml does not say: identities of the data, counts, versions."""
    pool = setup.pool
    provenance = pool.info.get("provenance", {}) if pool else {}
    return {
        "folds_hash": setup.dataset.folds_hash,
        "externals": {name: dataset.folds_hash for name, dataset in setup.externals.items()},
        "training_images": counts(setup),
        "pool": {
            "path": str(pool.path),
            "kind": provenance.get("kind", "unknown"),
            "generator_sha256": provenance.get("sha256"),
            "seed": provenance.get("seed"),
        }
        if pool
        else None,
        "leaky": setup.leak,
        "versions": versions("torch", "numpy"),
    }


def counts(setup: TrainingSetup) -> dict[str, int]:
    """Training images by kind."""
    targets = setup.training.targets
    real = targets[: setup.training.n_real]
    extra = len(targets) - setup.training.n_real
    return {
        "real_benign": int((~real).sum()),
        "real_malignant": int(real.sum()),
        "synthetic_malignant": extra if setup.pool else 0,
        "duplicated_malignant": 0 if setup.pool else extra,
    }


def describe(setup: TrainingSetup) -> str:
    """What goes into the run, as lines for the screen."""
    dataset, fold = setup.dataset, setup.fold
    n = counts(setup)
    lines = [
        f"data       {dataset.path}, fold {fold}",
        f"training   {n['real_benign']} benign + {n['real_malignant']} malignant real"
        f" + {n['synthetic_malignant']} synthetic + {n['duplicated_malignant']} duplicates",
    ]
    if setup.target.name == "diagnosis":
        in_class = np.bincount(setup.training.labels, minlength=len(setup.target.classes))
        names = map("{} {}".format, setup.target.classes, in_class)
        lines.append("classes    " + ", ".join(names))
    for name, part in (("validation", "val"), ("test", "test")):
        targets = dataset.targets(dataset.rows(part, fold))  # type: ignore[arg-type]
        lines.append(f"{name:<10} {(targets == 0).sum()} benign + {targets.sum()} malignant")
    for name, external in setup.externals.items():
        lines.append(f"external   {name}: {len(external.labelled())} images of {external.path}")
    if setup.pool:
        lines.append(f"pool       {setup.pool.path}, the first {n['synthetic_malignant']} images")
    if setup.leak:
        lines.append(f"LEAKY      {setup.leak}")
    return "\n".join(lines)


def metrics_table(metrics: dict[str, Metrics], leak: str | None) -> str:
    """The main figures as a table for the screen."""
    columns = {"auc": "AUC", "average_precision": "AP", "balanced_accuracy": "bal. acc."}
    columns |= {"sensitivity_at_95_specificity": "sens@95", "brier": "Brier", "ece": "ECE"}
    width = max(len(part) for part in metrics) + 2
    lines = [" " * width + "".join(f"{word:>10}" for word in columns.values()) + f"{'n':>8}"]
    for part, figures in metrics.items():
        cells = ["-" if figures[key] is None else f"{figures[key]:.4f}" for key in columns]
        n = figures.get("n", "")  # of a mean over folds there is none
        lines.append(f"{part:<{width}}" + "".join(f"{cell:>10}" for cell in cells) + f"{n:>8}")
    if leak:
        lines.insert(0, "LEAKY: the pool saw validation or test images; these are not results")
    return "\n".join(lines)


def _images_in_words(setup: TrainingSetup) -> str:
    """The training images and the seed, for a plot's title."""
    n = counts(setup)
    real = n["real_benign"] + n["real_malignant"]
    extra = {"synthetic": n["synthetic_malignant"], "duplicates": n["duplicated_malignant"]}
    words = [f"{count} {name}" for name, count in extra.items() if count]
    return " + ".join([f"{real} real", *words]) + f", seed {setup.options.compute.seed}"
