"""The evaluation's page: plots by part, the error gallery and all figures in one HTML file."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from classifier.evaluation import calibration, page_figures, subgroups
from classifier.evaluation.error_gallery import Gallery
from classifier.evaluation.grad_cam import scale
from classifier.evaluation.likeness import SUSPECT, UNLIKE
from classifier.evaluation.parts import Part
from classifier.records import MetadataRunRecord
from classifier.run_folder import METADATA, RUN, read_facts
from dermsynth import progress
from dermsynth.manifest import Sealed
from dermsynth.page import embedded, templates

CURVES = "plots/curves.png"  # of a run of one fold


def draw_plots(parts: dict[str, Part], result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the PNG plots; returns them as SVG, by kind and then by part."""
    both = {name: part.rows for name, part in parts.items() if part.scored.both}
    drawn: dict[str, Any] = {"curves": [], "reliability": {}, "forest": {}, "classes": {}}
    with progress.late(len(parts) + bool(both), "drawing plots", "part") as bar:
        if both:
            drawn["curves"] = [
                page_figures.roc(both, result["parts"], folder / "roc.png"),
                page_figures.precision_recall(
                    both, result["parts"], folder / "precision-recall.png"
                ),
            ]
            bar.update()
        for name, part in parts.items():
            figures, stem = result["parts"][name], re.sub(r"[^\w.-]+", "-", name)
            path = folder / f"reliability-{stem}.png"
            bins, one = figures["calibration"]["bins"], result["target"]["one"]
            drawn["reliability"][name] = page_figures.reliability(bins, one, path)
            if figures["subgroups"]:
                drawn["forest"][name] = [
                    page_figures.forest(figures["subgroups"], figures["auc"], one, path)
                    for path in (folder / f"subgroups-{stem}.png", None)
                ]
            if figures["classes"] and figures["classes"]["n"]:
                drawn["classes"][name] = _draw_classes(part, figures["classes"], folder, stem)
            bar.update()
    return drawn


def _draw_classes(part: Part, figures: dict[str, Any], folder: Path, stem: str) -> list[str]:
    classes = part.scored_classes
    one_hot = np.eye(len(classes.names))[classes.truth]
    even, even_path = figures["equal_prior"]["confusion"], folder / f"confusion-even-{stem}.png"
    return [
        page_figures.confusion(figures["confusion"], folder / f"confusion-{stem}.png"),
        page_figures.confusion(even, even_path, "the same, classes equally common"),
        page_figures.class_precision_recall(
            one_hot, classes.probabilities, figures["classes"], folder / f"classes-{stem}.png"
        ),
    ]


def render(
    sealed: Sealed,
    result: dict[str, Any],
    gallery: Gallery,
    drawn: dict[str, Any],
) -> str:
    """The HTML.

    Parameters
    ----------
    sealed : the run
    result : what evaluation.json holds
    gallery : the pictures; its part is what the page is about
    drawn : figures as `draw_plots` gives them
    """
    main, validation = gallery.part, result["validation_part"]
    environment = templates(Path(__file__).parent)
    environment.globals |= {"number": number}
    config, facts = sealed.manifest.options, _facts(sealed)
    return environment.get_template("page.html.j2").render(
        name=sealed.path.resolve().name,
        config=config,
        facts=facts,
        made=synthetic_facts(config, facts, result["target"]) | _networks(config),
        curves=embedded("png", sealed.bytes(CURVES)) if sealed.has(CURVES) else None,
        scale=scale(),
        result=result,
        one=result["target"]["one"],
        zero=result["target"]["zero"],
        main=main,
        shown=[name for name in result["parts"] if name != validation or name == main],
        gallery=gallery,
        drawn=drawn,
        thresholds=page_figures.THRESHOLDS,
        titles=subgroups.TITLES,
        least_groups=subgroups.LEAST_GROUPS,
        bounds=(calibration.LEAST, calibration.MOST),
        suspect=(SUSPECT, UNLIKE),
    )


def _facts(sealed: Sealed) -> dict[str, Any]:
    """run.json, of the kinds of run that have one."""
    if sealed.manifest.kind == METADATA:
        return sealed.record(RUN, MetadataRunRecord).model_dump(mode="json")
    return read_facts(sealed).model_dump(mode="json") if sealed.has(RUN) else {}


def synthetic_facts(
    config: dict[str, Any], facts: dict[str, Any], target: dict[str, Any]
) -> dict[str, str]:
    """How much of the training set is synthetic and where from, in words; {} of other kinds of run.

    `facts`: run.json, {} of a cross-validated run, whose folds have one each.
    """
    if "synthetic" not in config:
        return {}
    share = config["synthetic"]
    made = {"synthetic share": "none" if share in ("0", "0.0") else share}
    if config.get("synthetic_only"):
        made["synthetic share"] = "all of target 1"
    if counts := facts.get("training_images"):
        real = counts["real_benign"] + counts["real_malignant"]
        made["training images"] = (
            f"{real:,} real ({counts['real_malignant']:,} {target['one']}), "
            f"{counts['synthetic_malignant']:,} synthetic {target['one']}, "
            f"{counts['synthetic_benign']:,} synthetic {target['zero']}"
        )
        if again := counts["duplicated_malignant"]:
            made["training images"] += f", {again:,} duplicates"
    pool = facts.get("pool") or {}
    for word, lies in (
        ("pool", pool.get("path") or config.get("pool")),
        ("pool of target 0", config.get("benign_pool")),
        ("generator", config.get("generator")),
    ):
        if lies:
            made[word] = str(lies)
    if pool:
        seed = "" if pool["seed"] is None else f", seed {pool['seed']}"
        made["pool"] += f" ({pool['id'][:12]}, of kind {pool['kind']}{seed})"
    return made


def _networks(config: dict[str, Any]) -> dict[str, str]:
    """That scores are of two networks, and what the second has otherwise."""
    other = config.get("beside")
    return {"scores": f"mean of two networks, one with {', '.join(other)}"} if other else {}


def number(value: float | None, digits: int = 3) -> str:
    """`0.873`; an en dash where there is none."""
    if value is None:
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus zero


def screen_table(result: dict[str, Any]) -> str:
    """The main figures for the screen, what to know before trusting them and what is missing."""
    keys = {"auc": "AUC", "average_precision": "AP", "balanced_accuracy": "bal. acc."}
    width = max(len(name) for name in result["parts"]) + 2
    lines = [" " * width + "".join(f"{word:<24}" for word in keys.values())]
    lines[0] += f"{result['target']['one']} / n"
    if result["leaky"]:
        lines.insert(0, f"LEAKY: these are not results ({result['leaky']})")
    notes, missing = [], {result["gallery"]["cam_missing"]}
    for name, part in result["parts"].items():
        cells = [
            f"{number(figure['value'])} [{number(figure['low'])}, {number(figure['high'])}]"
            for figure in (part[key] for key in keys)
        ]
        counts = f"{part['n_malignant']} / {part['n']}"
        if plain := part["auc_single_view"]:
            counts += f"   AUC of single views {number(plain['value'])}"
        lines.append(f"{name:<{width}}" + "".join(f"{cell:<24}" for cell in cells) + counts)
        notes += [f"{name}: {note}" for note in part["notes"]]
        missing.add(part["missing"])
    for name, part in (result["likeness"] or {"parts": {}})["parts"].items():
        notes.append(f"{'warning: ' if part['warning'] else ''}{name}: {part['words']}")
    return "\n".join(
        [*lines, *notes, *(f"missing: {why}" for why in sorted(filter(None, missing)))]
    )
