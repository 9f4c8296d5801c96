"""Everything that a sceptical reviewer asks of a finished classifier run, on one page.

    python -m classifier.evaluate --run runs/cls/NAME      writes runs/cls/NAME/evaluation

Reads the run's predictions and its datasets; trains nothing. Thresholds and temperature come from
the validation part alone. Writes evaluation.json, evaluation.html (one file) and PNG plots.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classifier.evaluation import (
    calibration,
    error_gallery,
    multiclass,
    operating_points,
    subgroups,
)
from classifier.evaluation import page_figures as plots
from classifier.evaluation.operating_points import Freedom
from classifier.evaluation.parts import Part, read_run
from classifier.run_folder import RUN, fold_runs
from classifier.trained import Trained, load_trained
from data.card.pictures import picture
from dermsynth import cli, progress
from dermsynth.errors import UserError
from dermsynth.files import new_folder, read_json, write_json, write_text
from dermsynth.page import templates

MARKER = "evaluation.json"
LEAST_REPLICATES = 200  # below which a 95% interval hangs on a handful of resamples


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `python -m classifier.evaluate`."""

    run: Path  # run folder of classifier.train
    out: Path | None = None  # folder to write; RUN/evaluation if not given
    replicates: int = 2000  # resamples of groups behind each interval
    seed: int = 0  # of the resamples
    overwrite: bool = False  # replace an evaluation that --out holds


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Write the evaluation's folder; returns what evaluation.json holds.

    Raises UserError for a run that is not finished, damaged predictions, and a folder that is
    taken. Missing datasets, images or weights cost their sections, and the page says why.
    """
    if options.replicates < LEAST_REPLICATES:
        raise UserError(f"--replicates {options.replicates}: expected {LEAST_REPLICATES} or more")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: expected 0 or more")
    parts, config, leaky = read_run(options.run)
    with new_folder(options.out or options.run / "evaluation", MARKER, options.overwrite) as folder:
        result = measure(parts, options)
        result = {"run": str(options.run), "leaky": leaky, **result}
        shown = "test" if "test" in parts else next(iter(parts))
        pictures = draw_gallery(options.run, parts[shown], config.get("tta", 1), folder)
        said = ("part", "missing", "cam_missing", "cam_fold", "score_gap")
        result["gallery"] = {key: pictures[key] for key in said}
        page = _page(options, config, result, parts, pictures, draw_plots(parts, result, folder))
        write_text(folder / "evaluation.html", page)
        write_json(folder / MARKER, result)
    _report(result, options.out or options.run / "evaluation")
    return result


# --- figures -------------------------------------------------------------------------------------


def measure(parts: dict[str, Part], options: EvaluateOptions) -> dict[str, Any]:
    """All figures of evaluation.json; thresholds and temperatures from the first part."""
    validation = next(iter(parts.values()))
    target, score = validation.scored.target, validation.scored.score
    thresholds = operating_points.choose_thresholds(target, score)
    fitted: dict[str, Any] = {
        "validation_part": validation.name,
        "thresholds": thresholds,
        "temperature": calibration.fit_temperature(target, score),
        "class_temperature": None,
        "class_means": None,
    }
    if validation.classes:
        known = validation.known
        truth = multiclass.class_numbers(validation.rows["diagnosis"][known], validation.classes)
        p = validation.probabilities[known]
        fitted["class_temperature"] = calibration.fit_class_temperature(truth, p)
        fitted["class_means"] = validation.probabilities.mean(0).tolist()
    found = {}
    with progress.bar(len(parts), "parts", "part") as bar:
        for name, part in parts.items():
            found[name] = _part_figures(part, fitted, options)
            bar.update(1)
    return {"replicates": options.replicates, "seed": options.seed, **fitted, "parts": found}


def _part_figures(part: Part, fitted: dict[str, Any], options: EvaluateOptions) -> dict[str, Any]:
    rows, how = part.scored, (options.replicates, options.seed)
    behind = Freedom.of(rows)
    calibrated = calibration.calibration(rows, fitted["temperature"], *how)
    found: dict[str, Any] = {
        "n": len(rows.target),
        "n_malignant": int(rows.target.sum()),
        "n_groups": rows.n_groups,
        "n_malignant_groups": behind.n_malignant,
        "notes": operating_points.notes(rows),
        **operating_points.operating_points(rows, fitted["thresholds"], *how),
        **{name: calibrated["before"][name] for name in ("brier", "ece")},
        "calibration": calibrated,
        "classes": _class_figures(part, fitted, how),
        "subgroups": None,
        "missing": part.missing,
    }
    if part.table is not None:
        tones = subgroups.angles(part.dataset.images, part.places) if part.dataset else None
        threshold = fitted["thresholds"]["youden"] if fitted["thresholds"] else None
        named = subgroups.labels(part.table, tones)
        found["subgroups"] = subgroups.subgroups(rows, named, threshold, *how)
    return found


def _class_figures(
    part: Part, fitted: dict[str, Any], how: tuple[int, int]
) -> dict[str, Any] | None:
    if not part.classes:
        return None
    p, known = part.probabilities, part.known
    found = multiclass.evaluate_classes(part.rows["diagnosis"], p, part.classes)
    if not known.any():
        return found
    truth = multiclass.class_numbers(part.rows["diagnosis"][known], part.classes)
    group = part.scored.group[known]
    temperature = fitted["class_temperature"]
    even = multiclass.equal_prior(p, np.array(fitted["class_means"]))
    called = even[known].argmax(1)
    of_even = multiclass.evaluate_classes(part.rows["diagnosis"], even, part.classes)
    return found | {
        "intervals": operating_points.class_intervals(truth, p[known], group, part.classes, *how),
        "equal_prior": operating_points.recall_intervals(truth, called, group, *how)
        | {"confusion": of_even["confusion"]},
        "calibration": calibration.class_calibration(truth, p[known], group, temperature, *how),
    }


# --- pictures ------------------------------------------------------------------------------------


def draw_plots(parts: dict[str, Part], result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the PNG plots; returns them as `data:` URIs, by kind and then by part."""
    figures = result["parts"]
    both = {name: part.rows for name, part in parts.items() if part.scored.both}
    found: dict[str, Any] = {"curves": [], "reliability": {}, "forest": {}, "classes": {}}
    if both:
        found["curves"] = [
            plots.roc(both, figures, folder / "roc.png"),
            plots.precision_recall(both, figures, folder / "precision-recall.png"),
        ]
    for name, part in parts.items():
        of, stem = figures[name], re.sub(r"[^\w.-]+", "-", name)
        path = folder / f"reliability-{stem}.png"
        found["reliability"][name] = plots.reliability(of["calibration"]["bins"], path)
        if of["subgroups"]:
            path = folder / f"subgroups-{stem}.png"
            found["forest"][name] = [
                plots.forest(of["subgroups"], of["auc"], each) for each in (path, None)
            ]
        if of["classes"] and of["classes"]["n"]:
            known = part.known
            truth = multiclass.class_numbers(part.rows["diagnosis"][known], part.classes)
            one_hot, p = np.eye(len(part.classes))[truth], part.probabilities[known]
            curves, path = of["classes"]["classes"], folder / f"classes-{stem}.png"
            even, even_path = of["classes"]["equal_prior"], folder / f"confusion-even-{stem}.png"
            found["classes"][name] = [
                plots.confusion(of["classes"]["confusion"], folder / f"confusion-{stem}.png"),
                plots.confusion(even["confusion"], even_path, "the same, classes equally common"),
                plots.class_precision_recall(one_hot, p, curves, path),
            ]
    return found


def draw_gallery(run: Path, part: Part, views: int, folder: Path) -> dict[str, Any]:
    """Tiles of the worst failures and of Grad-CAM, or why there are none: `missing, cam_missing`.

    Of a cross-validated run Grad-CAM shows its first fold's model, on images that are new to it.
    Writes failures.png and gradcam.png.
    """
    found: dict[str, Any] = {"part": part.name, "missing": part.missing, "cam_missing": None}
    found |= {"failures": {}, "cam": {}, "cells": None, "cam_fold": None}
    found |= {"means_over": [f"{views} views"] if views > 1 else [], "score_gap": None}
    if part.dataset is None or part.table is None:
        return found | {"cam_missing": part.missing}
    rows = part.rows.assign(diagnosis=part.table["diagnosis"])
    worst = error_gallery.failures(rows)
    sheet = []
    for name, chosen in worst.items():
        images, words = part.images(chosen.index.to_numpy()), error_gallery.captions(chosen)
        found["failures"][name] = _tiles([[image] for image in images], words)
        captions = ["\n".join(lines) for lines in words]
        sheet.append((f"{name}, most wrong first", images, captions))
    plots.sheet(sheet, folder / "failures.png")
    if folds := fold_runs(run):
        number, run = min(folds.items())
        found["cam_fold"] = number
        if part.name == "oof":
            rows = rows[rows["fold"] == number]
        else:
            found["means_over"].append(f"the models of {len(folds)} folds")
    try:
        trained = load_trained(run)
    except UserError as error:
        return found | {"cam_missing": str(error)}
    found |= _cam(trained, part, rows, folder)
    if found["means_over"]:  # the scores are not those of this one model
        found["score_gap"] = None
    return found


def _cam(trained: Trained, part: Part, rows: pd.DataFrame, folder: Path) -> dict[str, Any]:
    chosen = error_gallery.cam_rows(rows)
    images = part.images(chosen.index.to_numpy())
    where = chosen.index.to_numpy()
    metadata = trained.fusion.of(part.dataset, part.places[where]) if trained.fusion else None
    seen = error_gallery.grad_cam(trained.model, trained.target, images, metadata)
    pairs = [
        [image, error_gallery.overlay(image, heat)]
        for image, heat in zip(images, seen.heat, strict=True)
    ]
    words, kinds, sheet = error_gallery.captions(chosen), chosen["kind"].to_numpy(), []
    tiles: dict[str, Any] = {}
    for kind in error_gallery.KINDS:
        of = np.flatnonzero(kinds == kind)
        tiles[kind] = _tiles([pairs[at] for at in of], [words[at] for at in of])
        line = [image for at in of for image in pairs[at]]
        captions = [text for at in of for text in ("\n".join(words[at]), "Grad-CAM")]
        sheet.append((kind, line, captions))
    plots.sheet(sheet, folder / "gradcam.png")
    gap = float(np.abs(seen.score - chosen["score"].to_numpy()).max())
    return {"cam": tiles, "cells": seen.cells, "score_gap": gap}


def _tiles(images: list[list[np.ndarray]], words: list[list[str]]) -> list[dict[str, Any]]:
    return [
        {"pictures": [picture(one) for one in each], "words": lines}
        for each, lines in zip(images, words, strict=True)
    ]


# --- the page and the screen ---------------------------------------------------------------------


def number(value: float | None, digits: int = 3) -> str:
    """`0.873`; an en dash where there is none."""
    if value is None:
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus zero


def _page(
    options: EvaluateOptions,
    config: dict[str, Any],
    result: dict[str, Any],
    parts: dict[str, Part],
    pictures: dict[str, Any],
    drawn: dict[str, Any],
) -> str:
    main, validation = pictures["part"], result["validation_part"]
    environment = templates(Path(__file__).parent / "evaluation")
    environment.globals |= {"number": number}
    return environment.get_template("page.html.j2").render(
        name=options.run.resolve().name,
        config=config,
        facts=read_json(options.run / RUN) if (options.run / RUN).exists() else {},
        result=result,
        main=main,
        shown=[name for name in parts if name != validation or name == main],
        gallery=pictures,
        drawn=drawn,
        thresholds=plots.THRESHOLDS,
        titles=subgroups.TITLES,
        least_groups=subgroups.LEAST_GROUPS,
        bounds=(calibration.LEAST, calibration.MOST),
    )


def _report(result: dict[str, Any], out: Path) -> None:
    keys = {"auc": "AUC", "average_precision": "AP", "balanced_accuracy": "bal. acc."}
    width = max(len(name) for name in result["parts"]) + 2
    lines = [" " * width + "".join(f"{word:<24}" for word in keys.values()) + "malignant / n"]
    for name, part in result["parts"].items():
        cells = [
            f"{number(one['value'])} [{number(one['low'])}, {number(one['high'])}]"
            for one in (part[key] for key in keys)
        ]
        counts = f"{part['n_malignant']} / {part['n']}"
        lines.append(f"{name:<{width}}" + "".join(f"{cell:<24}" for cell in cells) + counts)
    if result["leaky"]:
        lines.insert(0, f"LEAKY: these are not results ({result['leaky']})")
    notes = [f"{name}: {note}" for name, part in result["parts"].items() for note in part["notes"]]
    missing = {part["missing"] for part in result["parts"].values()} | {
        result["gallery"]["cam_missing"]
    }
    lines += [*notes, *(f"missing: {why}" for why in sorted(filter(None, missing)))]
    print("\n".join([*lines, f"{out / 'evaluation.html'}, {out / MARKER}"]))


if __name__ == "__main__":
    cli.run(EvaluateOptions, evaluate, "classifier.evaluate", __doc__ or "")
