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
from classifier.training.setup import Job
from dermsynth.files import write_bytes, write_json, write_text
from dermsynth.machine import versions


def write_outputs(
    job: Job,
    predictions: pd.DataFrame,
    state: dict[str, torch.Tensor],
    history: list[dict[str, Any]],
    facts: dict[str, Any],
) -> dict[str, Metrics]:
    """Write every output; metrics.json comes last and says that the run is complete."""
    externals = [f"external/{name}" for name in job.externals]
    metrics = measure_parts(predictions, ("val", "test", *externals))
    out, options = job.out, job.options
    if job.leak:
        predictions = predictions.assign(leaky=True)
        for part in metrics.values():
            part["leaky"] = job.leak
        config = (out / "config.yaml").read_text(encoding="utf-8")
        if not config.startswith("# LEAKY"):
            write_text(out / "config.yaml", f"# LEAKY: {' '.join(job.leak.split())}\n{config}")
    write_bytes(out / PREDICTIONS, predictions.to_parquet(index=False))
    rebuild = {"spec": dataclasses.asdict(job.spec), "target": dataclasses.asdict(job.target)}
    rebuild |= {"augment": options.augment, "leaky": job.leak}
    # one entry, because the file would hold several in a random order
    header = {"classifier": json.dumps(rebuild)}
    write_bytes(out / MODEL, save({k: v.contiguous() for k, v in state.items()}, header))
    if job.fusion:
        job.fusion.save(out)
    title = f"{options.backbone}, {options.frozen} blocks frozen, {_mix_words(job)}"
    draw_plots(out / "plots", history, predictions, metrics, title_of(title, job.leak))
    write_json(out / RUN, facts | run_facts(job))
    write_json(out / METRICS, metrics)
    return metrics


def run_facts(job: Job) -> dict[str, Any]:
    """What config.yaml does not say: identities of the data, counts, versions."""
    pool = job.pool
    provenance = pool.info.get("provenance", {}) if pool else {}
    return {
        "folds_hash": job.dataset.folds_hash,
        "externals": {name: each.folds_hash for name, each in job.externals.items()},
        "training_images": counts(job),
        "pool": {
            "path": str(pool.path),
            "kind": provenance.get("kind", "unknown"),
            "generator_sha256": provenance.get("sha256"),
            "seed": provenance.get("seed"),
        }
        if pool
        else None,
        "leaky": job.leak,
        "versions": versions("torch", "numpy"),
    }


def counts(job: Job) -> dict[str, int]:
    """Training images by kind."""
    targets = job.training.targets
    real = targets[: job.training.n_real]
    extra = len(targets) - job.training.n_real
    return {
        "real_benign": int((~real).sum()),
        "real_malignant": int(real.sum()),
        "synthetic_malignant": extra if job.pool else 0,
        "duplicated_malignant": 0 if job.pool else extra,
    }


def describe(job: Job) -> str:
    """What goes into the run, as lines for the screen."""
    dataset, fold = job.dataset, job.fold
    of = counts(job)
    lines = [
        f"data       {dataset.path}, fold {fold}",
        f"training   {of['real_benign']} benign + {of['real_malignant']} malignant real"
        f" + {of['synthetic_malignant']} synthetic + {of['duplicated_malignant']} duplicates",
    ]
    if job.target.name == "diagnosis":
        n = np.bincount(job.training.labels, minlength=len(job.target.classes))
        lines.append("classes    " + ", ".join(map("{} {}".format, job.target.classes, n)))
    for name, part in (("validation", "val"), ("test", "test")):
        targets = dataset.targets(dataset.rows(part, fold))  # type: ignore[arg-type]
        lines.append(f"{name:<10} {(targets == 0).sum()} benign + {targets.sum()} malignant")
    for name, external in job.externals.items():
        lines.append(f"external   {name}: {len(external.labelled())} images of {external.path}")
    if job.pool:
        lines.append(f"pool       {job.pool.path}, the first {of['synthetic_malignant']} images")
    if job.leak:
        lines.append(f"LEAKY      {job.leak}")
    return "\n".join(lines)


def metrics_table(metrics: dict[str, Metrics], leak: str | None) -> str:
    """The main figures as a table for the screen."""
    columns = {"auc": "AUC", "average_precision": "AP", "balanced_accuracy": "bal. acc."}
    columns |= {"sensitivity_at_95_specificity": "sens@95", "brier": "Brier", "ece": "ECE"}
    width = max(len(part) for part in metrics) + 2
    lines = [" " * width + "".join(f"{word:>10}" for word in columns.values()) + f"{'n':>8}"]
    for part, of in metrics.items():
        cells = ["-" if of[key] is None else f"{of[key]:.4f}" for key in columns]
        n = of.get("n", "")  # of a mean over folds there is none
        lines.append(f"{part:<{width}}" + "".join(f"{cell:>10}" for cell in cells) + f"{n:>8}")
    if leak:
        lines.insert(0, "LEAKY: the pool saw validation or test images; these are not results")
    return "\n".join(lines)


def _mix_words(job: Job) -> str:
    of = counts(job)
    real = of["real_benign"] + of["real_malignant"]
    extra = {"synthetic": of["synthetic_malignant"], "duplicates": of["duplicated_malignant"]}
    words = [f"{count} {name}" for name, count in extra.items() if count]
    return " + ".join([f"{real} real", *words]) + f", seed {job.options.seed}"


def options_dict(job: Job) -> dict[str, Any]:
    """The options for the tracker."""
    return {key: str(value) for key, value in dataclasses.asdict(job.options).items()}
