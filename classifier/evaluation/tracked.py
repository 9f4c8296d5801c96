"""What evaluations, and files of predictions, blends and networks tell W&B or TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from classifier.evaluation.error_gallery import failures
from classifier.evaluation.parts import Part
from classifier.run_folder import MEND, RUNS, open_run, read_meaning, read_metrics
from data.store import TargetMeaning
from dermsynth import manifest
from dermsynth.files import sha256
from dermsynth.manifest import Identity, Sealed
from dermsynth.tracked import About, config_of, of_file, predictions
from dermsynth.tracking import Cell, Report, harmless

if TYPE_CHECKING:
    from classifier.model.classifier import ModelSpec

LARGEST = 256  # px, of the side of a failure's picture


@harmless
def track_evaluation(
    options: Any,
    out: Path,
    run: Sealed,
    parts: dict[str, Part],
    result: dict[str, Any],
    meaning: TargetMeaning,
) -> None:
    """A run of the finished evaluation in `out`: figures with intervals, curves, failures.

    Parameters
    ----------
    options : EvaluateOptions
    run : what was evaluated
    parts : its images by part, validation first
    result : evaluation.json
    meaning : what targets are called
    """
    name = run.path.absolute().name
    asked = run.manifest.options
    labels = {key: asked.get(key) for key in ("fold", "test_fold", "seed", "backbone")}
    data = asked.get("data")
    labels |= {"run": name, "dataset": Path(str(data)).name if data else None}
    inputs = {"run": run.identity, "predictions": predictions(run.manifest.parts["predictions"])}
    about = About("evaluate", config_of(options), f"evaluation-{name}", labels, None, inputs)
    with Report(out, options.tracking, about) as report:
        for part, figures in result["parts"].items():
            report.summary(**_flat(part, figures))
            rows, thresholds = parts[part].rows, result["thresholds"]
            if thresholds:
                target, score = rows["target"].to_numpy(), rows["score"].to_numpy()
                report.curves(part, target, score, thresholds["youden"], meaning.words)
        shown = parts["test"] if "test" in parts else next(iter(parts.values()))
        report.table(f"failures/{shown.name}", *_failures(shown, meaning))
        page = out / "evaluation.html"
        report.page("evaluation", page)
        report.made(manifest.read_manifest(out, MEND).identity, page, folder=str(out))


@harmless
def track_whole(out: Path, options: Any, labels: Mapping[str, Any], rows: pd.DataFrame) -> None:
    """A run of the finished folder of several folds, or of models without images: its figures.

    `options`: of the command; `labels`: by which it is told; `rows`: predictions of all parts.
    """
    sealed = open_run(out, RUNS)
    config, group = config_of(options), f"{labels['dataset']}-{labels['model']}"
    about = About("train", config, group, labels, None, sealed.manifest.inputs)
    meaning = read_meaning(sealed) or TargetMeaning()
    with Report(out, config["tracking"], about) as report:
        metrics = read_metrics(sealed)
        validation = metrics.get("val_mean") or metrics.get("val", {})
        report.summary(val_auc=validation.get("auc"))  # what sweeps go by
        for part, figures in metrics.items():
            report.summary(**_flat(part, figures))
            of_part = rows[rows["part"] == part]
            if (at := figures.get("threshold")) is not None and len(of_part):
                target, score = of_part["target"].to_numpy(), of_part["score"].to_numpy()
                report.curves(part, target, score, float(at), meaning.words)
        report.made(sealed.identity, folder=str(out))
        report.made(predictions(sealed.manifest.parts["predictions"]), folder=str(out))


@harmless
def track_predictions(options: Any, scores: pd.DataFrame, skipped: int) -> None:
    """A run of the finished CSV file: how many rows, and which file of which model; no score.

    `options`: PredictOptions; `scores`: with `target`, a row an image.
    """
    run = open_run(options.run)
    inputs: dict[str, Identity] = {"run": run.identity}
    if (options.data / manifest.NAME).exists():
        inputs["dataset"] = manifest.read_manifest(options.data, MEND).identity
    name, data = options.run.absolute().name, options.data.absolute().name
    labels = {"run": name, "dataset": data}
    about = About("predict", config_of(options), f"predictions-{data}", labels, None, inputs)
    folder, stem = options.out.absolute().parent, f"{name}-on-{options.out.stem}"
    with Report(folder, options.tracking, about, stem) as report:
        values = scores["target"].to_numpy()
        report.summary(images=len(values), skipped=skipped, mean_score=float(values.mean()))
        report.made(predictions(sha256(options.out)), images=len(values), folder=str(folder))


@harmless
def track_blend(options: Any, record: dict[str, Any], rows: int) -> None:
    """A run of the finished blend: weights and figures; no score.

    `options`: BlendOptions; `record`: the one beside the CSV; `rows`: of the CSV.
    """
    members = record["members"]
    inputs: dict[str, Identity] = {
        name: predictions(member["sha256"]) for name, member in members.items()
    }
    if options.truth is not None and (options.truth / manifest.NAME).exists():
        inputs["truth"] = manifest.read_manifest(options.truth, MEND).identity
    labels = {"part": record["part"], "by": options.by}
    stem, folder = options.out.stem, options.out.absolute().parent
    about = About("predict", config_of(options), f"blend-{stem}", labels, None, inputs)
    with Report(folder, options.tracking, about, stem) as report:
        report.summary(images=rows, **record["blend"], leaky=", ".join(record["leaky"]) or None)
        table = [[name, one["weight"], one["auc"]] for name, one in members.items()]
        report.table("members", ("member", "weight", "auc"), table)
        report.made(predictions(sha256(options.out)), images=rows, folder=str(folder))


@harmless
def track_export(options: Any, run: Sealed, spec: "ModelSpec", gap: float) -> None:
    """A run of the written ONNX file: which run it is, its size, how far it is from torch.

    `options`: ExportOptions; `gap`: the largest difference of a probability.
    """
    name, folder = run.path.absolute().name, options.out.absolute().parent
    labels = {"run": name, "backbone": spec.backbone}
    about = About(
        "export", config_of(options), f"export-{name}", labels, None, {"run": run.identity}
    )
    with Report(folder, options.tracking, about, f"{name}-as-{options.out.stem}") as report:
        report.summary(bytes=options.out.stat().st_size, size=spec.size, difference=gap)
        report.made(of_file("onnx", sha256(options.out)), folder=str(folder))


def _flat(part: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Numbers by `part/name`; those with an interval as three."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, int | float):
            found[f"{part}/{name}"] = value
        elif isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
            ends = {"": "value", "_low": "low", "_high": "high"}
            found |= {f"{part}/{name}{end}": value[key] for end, key in ends.items()}
    return found


def _failures(part: Part, meaning: TargetMeaning) -> tuple[list[str], list[list[Cell]]]:
    """The most wrong images of either class, with a picture where there are images."""
    columns, table = ["image_id", "is", "score", "group"], []
    pictures = part.dataset is not None and part.table is not None
    for name, rows in failures(part.rows).items():
        called = meaning.one if name == "malignant" else meaning.zero
        images = part.images(rows.index.to_numpy()) if pictures else [None] * len(rows)
        for row, image in zip(rows.itertuples(), images, strict=True):
            line: list[Cell] = [str(row.image_id), called, float(row.score), str(row.group)]
            table.append([*line, _small(image)] if image is not None else line)
    return [*columns, "image"] if pictures else columns, table


def _small(image: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(image)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)
