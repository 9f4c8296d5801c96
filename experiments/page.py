"""One self-contained HTML page of an experiment: the verdict first, then what it rests on.

Reads `experiment.json`, `comparisons.json` and `trials.parquet` of an experiment folder and writes
`report.html` beside them. Figures and pictures are embedded; nothing is loaded from elsewhere.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from data.grouping import Grouping
from data.store import TargetMeaning
from dermsynth.files import write_text
from dermsynth.locks import locked
from dermsynth.manifest import Sealed, open_sealed
from dermsynth.page import embedded, templates
from experiments import plots
from experiments.learning_curve import LearningCurve, curve_sentences
from experiments.learning_curve_plot import learning_curve_plot
from experiments.records import (
    COMPARISONS,
    EXPERIMENT,
    KIND,
    PAIRED,
    REPORT,
    TRIAL_COLUMNS,
    TRIALS,
    Comparisons,
    ExperimentRecord,
    PairedRecord,
    PairedRecords,
)
from experiments.wording import power, summary
from gan.evaluation.records import CLOSEST
from gan.evaluation.records import KIND as EVALUATION

MEND = "run the experiment again with --resume"
ARMS = {  # arms in a reader's words, {one}: target 1; the longest prefix of a name counts
    "real": "real images only",
    "real_oversampled": "real {one} images duplicated, as many as there are synthetic ones: "
    "the control that tells new images from mere class counts",
    "real_weighted": "real images, {one} ones weighted up in the loss",
    "synthetic": "real images and {one} ones made by the generator",
    "synthetic_both_classes": "real images and generated ones of both classes",
    "synthetic_only": "{one} images from the generator only",
    "resolution_matched": "real images sent through the generator's resolution",
    "oracle": "{one} images from the phantom's own sampler added: a perfect generator",
    "broken": "degraded images from the phantom's sampler added: a generator that must not help",
}
METRICS = {  # of paired.json, as the page calls them
    "average_precision": "average precision",
    "partial_auc_tpr80": "partial AUC, sensitivity ≥ 80%",
    "sensitivity_at_specificity_95": "sensitivity at the threshold for 95% specificity",
    "specificity_at_specificity_95": "specificity there",
    "sensitivity_at_sensitivity_95": "sensitivity at the threshold for 95% sensitivity",
    "specificity_at_sensitivity_95": "specificity there",
    "sensitivity_at_youden": "sensitivity at Youden's threshold",
    "specificity_at_youden": "specificity there",
    "brier": "Brier score (less is better)",
    "ece": "calibration error (less is better)",
}
GAN_FIGURES = {  # keys of evaluation.json: name, how to read it
    "kid": ("KID × 1000", "distance to held-out real images; lower is better"),
    "kid_floor": ("KID × 1000, real against real", "what real images score: the floor"),
    "precision": ("precision", "share of synthetic images that lie among real ones"),
    "recall": ("recall", "share of real images that lie among synthetic ones"),
    "density": ("density", "how deep synthetic images lie among real ones; 1 is as real ones"),
    "coverage": ("coverage", "share of real images with a synthetic neighbour"),
    "memorisation": (
        "memorisation",
        "nearest-neighbour distance to training over held-out images, as a multiple of what "
        "held-out images show: 1 is chance, 0 copies",
    ),
    "memorisation_in": ("memorisation, in detail", "near copies: closer than any held-out image"),
    "audit": (
        "told from real images, AUC",
        "by a small network that looks at texture, tested on unseen images; beside it what "
        "blurred real images and real ones give. A classifier can learn the same shortcut",
    ),
    "quality": ("quality gate", "what is wrong with the images"),
    "evaluation_network": ("evaluation network", "shares nothing with the discriminator"),
    "n_real": ("real images", ""),
    "n_synthetic": ("synthetic images", ""),
}


# --- numbers on the page -------------------------------------------------------------------------


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    """`0.871`, with `sign` `+0.003` and a true minus; an en dash where there is no value."""
    if _missing(value):
        return "–"
    return typographic(f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}")


def interval(low: Any, high: Any, sign: bool = True) -> str:
    """`[−0.008, +0.014]`."""
    if _missing(low) or _missing(high):
        return "–"
    return f"[{number(low, sign=sign)}, {number(high, sign=sign)}]"


def p_value(value: Any) -> str:
    """Three decimals, `<0.001` below."""
    return "<0.001" if not _missing(value) and value < 0.001 else number(value)


def count(value: Any) -> str:
    """`7,470`."""
    return "–" if _missing(value) else f"{value:,}"


def duration(seconds: Any) -> str:
    """`42 s`, `3 min 20 s`, `1 h 05 min`."""
    if _missing(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def typographic(text: str) -> str:
    """ASCII arrows and minus signs as the page shows them."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "−", text.replace(" -> ", " → "))


def gan_figure(key: str, evaluation: dict[str, Any] | None) -> str:
    """One cell of the generator table: KID in thousandths, others with what real images score."""
    figures = evaluation or {}
    value: Any = figures.get(key)
    if _missing(value):
        return "–"
    if key in ("kid", "kid_floor"):
        spread: Any = figures.get(f"{key}_std")
        return number(1000 * value, 1) + ("" if _missing(spread) else f" ± {1000 * spread:.1f}")
    if key == "memorisation":
        words = {True: ", copies of training images", False: ", no copying seen", None: ""}
        return number(value, 2) + words[figures.get("memorisation_flagged")]
    if key == "memorisation_in":
        return "; ".join(
            f"{space} {number(part['ratio'], 2)}, near copies {part['near_copies']:.1%}"
            for space, part in value.items()
        )
    if key == "audit":
        aucs = (number(value[kind]["auc"], 2) for kind in ("synthetic", "blurred", "real"))
        return "{} (blurred {}, real {})".format(*aucs)
    if key == "quality":
        faults = (f"{one['code']} ({one['severity']})" for one in value["findings"])
        return ", ".join(faults) or "nothing found"
    if key in (figures.get("floor") or {}):
        return f"{number(value, 2)} (real {number(figures['floor'][key], 2)})"
    return number(value, 2) if isinstance(value, float) else str(value)


def pool_word(pool: dict[str, Any]) -> str:
    """A pool in a column's head: `default, fold 0, seed 1`."""
    name = pool["run"].rsplit("/", 1)[-1]
    seed = "" if pool["seed"] is None else f", seed {pool['seed']}"
    return f"{name.split('-fold')[0]}, fold {pool['fold']}{seed}"


# --- the page ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """What a report shows."""

    comparisons: list[dict[str, Any]]  # rows of comparisons.json, the primary one first
    trials: pd.DataFrame  # trials.parquet
    experiment: ExperimentRecord
    paired: list[PairedRecord]  # paired.json


def read_results(sealed: Sealed) -> Results:
    """The results in an experiment's folder. Raises UserError for what is missing or damaged."""
    rows = sealed.record(COMPARISONS, Comparisons).root
    return Results(
        [row.model_dump(mode="json") for row in rows],
        sealed.table(TRIALS, TRIAL_COLUMNS),
        sealed.record(EXPERIMENT, ExperimentRecord),
        sealed.record(PAIRED, PairedRecords).root,
    )


def open_experiment(folder: Path) -> Sealed:
    """A finished experiment. Raises UserError with the command that makes one."""
    return open_sealed(
        folder,
        KIND,
        f"{folder}: no finished experiment there; make one with `python -m experiments.run "
        f"CONFIG.yaml --out {folder}`, or go on with it by adding --resume",
        MEND,
    )


def write_report(folder: Path) -> Path:
    """Write `report.html` of a finished experiment again, and return its path.

    Raises UserError naming what is missing or damaged.
    """
    with locked(folder):
        sealed = open_experiment(folder)
        write_page(folder, read_results(sealed), sealed.bytes)
        sealed.seal_again(REPORT)
    return folder / REPORT


def write_page(folder: Path, results: Results, read: Callable[[str], bytes]) -> None:
    """Write `report.html` beside the results; generators and external sets may be absent.

    `read`: a file of the experiment by its name. Raises UserError for a damaged one.
    """
    environment = templates(Path(__file__).parent)
    words = (number, interval, p_value, count, duration, typographic, gan_figure, power, pool_word)
    environment.globals |= {word.__name__: word for word in words}
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["yaml"] = lambda value: yaml.safe_dump(
        value, sort_keys=False, allow_unicode=True
    )
    experiment = results.experiment.model_dump(mode="json")
    experiment["dataset"] = experiment["dataset"] or {}
    context = _context(folder, results.comparisons, results.trials, experiment)
    context["grids"] = {
        kind: embedded("png", read(name)) for kind, name in experiment["grids"].items()
    }
    context |= _beside_the_auc(results.paired, context["target"].one)
    write_text(folder / REPORT, environment.get_template("report.html.j2").render(**context))


def _context(
    folder: Path,
    comparisons: list[dict[str, Any]],
    trials: pd.DataFrame,
    experiment: dict[str, Any],
) -> dict[str, Any]:
    done = trials[trials["status"] == "done"]
    arms = list(dict.fromkeys(trials["arm"]))
    leaky = sorted(set(trials.loc[trials["leaky"], "arm"])) if "leaky" in trials else []
    sets = [c.removesuffix("/auc") for c in trials.columns if c.endswith("/auc")]
    sentences = summary(comparisons, leaky, experiment["warnings"])
    shown = [c for c in comparisons if c["delta_auc"] is not None]
    options = experiment["config"].get("arms") or {}
    info = experiment["dataset"].get("info") or {}
    target = TargetMeaning.model_validate(info.get("target") or {}, strict=False)  # JSON: no tuple
    colours = plots.arm_colours(comparisons, arms)
    first_of_set = {c["test_set"]: c for c in reversed(comparisons)}
    trainings = {
        name: _two_widths(plots.training_dots, c)
        for name, c in reversed(first_of_set.items())
        if c["trainings"]
    }
    dots = {
        name: _two_widths(
            plots.seed_dots, done.dropna(subset=f"{name}/auc"), f"{name}/auc", colours
        )
        for name in sets
        if done[f"{name}/auc"].notna().any()
    }
    return {
        "experiment": experiment,
        "target": target,
        "ids_note": Grouping.model_validate(info.get("grouping") or {}).note,
        "sentences": sentences,
        "comparisons": comparisons,
        "powers": [
            first_of_set[name] for name in dict.fromkeys(c["test_set"] for c in comparisons)
        ],
        "notes": [note for note in _notes(comparisons) if note not in sentences],
        "leaky": leaky,
        "trials": trials.astype(object).where(trials.notna(), None).to_dict("records"),
        "failed": int((trials["status"] != "done").sum()),
        "means": _arm_means(done, sets),
        "sets": sets,
        "arms": {arm: _arm_words(arm, options.get(arm), target.one) for arm in arms},
        "forest": _two_widths(plots.forest, shown) if shown else None,
        "trainings": trainings,
        "dots": dots,
        "rocs": {name: plots.roc(curves, colours) for name, curves in experiment["roc"].items()},
        "gan_figures": GAN_FIGURES,
        "curve": _learning_curve(experiment["learning_curve"], target.one),
        "closest": _closest(folder, experiment["gan"]),
    }


def _learning_curve(content: dict[str, Any] | None, one: str) -> dict[str, Any] | None:
    if content is None:
        return None
    curve = LearningCurve.model_validate(content)
    return {
        "sentences": curve_sentences(curve, one),
        "figure": _two_widths(partial(learning_curve_plot, one=one), curve),
    }


def _beside_the_auc(paired: Sequence[PairedRecord], one: str) -> dict[str, Any]:
    """Metrics of every comparison; decision curve and subgroups of the first."""
    records = [record.model_dump(mode="json") for record in paired]
    first = records[0] if records else {"decision_curve": [], "subgroups": []}
    curve = [point for point in first["decision_curve"] if point["delta"] is not None]
    drawn = partial(plots.decision_curve, one=one)
    return {
        "paired": records,
        "metric_names": METRICS,
        "decision_curve": _two_widths(drawn, first, curve) if curve else None,
        "subgroups": first["subgroups"],
    }


def _notes(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(c["note"] for c in comparisons if c["note"]))


def _two_widths(figure: Any, *inputs: Any) -> dict[str, str]:
    return {"wide": figure(*inputs, plots.WIDE), "narrow": figure(*inputs, plots.NARROW)}


def _arm_words(arm: str, options: dict[str, Any] | None, one: str) -> str:
    """What an arm is, with its own options: `real images only`, `... (synthetic: 0.3)`."""
    known = [name for name in ARMS if arm == name or arm.startswith(f"{name}_")]
    words = ARMS[max(known, key=len)].replace("{one}", one) if known else ""
    own = ", ".join(f"{key}: {value}" for key, value in (options or {}).items())
    return f"{words} ({own})".strip() if own else words


def _arm_means(done: pd.DataFrame, sets: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """means[arm][column] = {"mean", "sd"} over an arm's finished trials."""
    columns = ["auc_val", *(f"{name}/auc" for name in sets)]
    table = done.groupby("arm", sort=False)[columns].agg(["mean", "std"])
    return {
        arm: {c: {"mean": row[c, "mean"], "sd": row[c, "std"]} for c in columns}
        for arm, row in table.iterrows()
    }


def _closest(folder: Path, generators: Sequence[dict[str, Any]]) -> str | None:
    """The first evaluated pool's synthetic images that lie closest to training images."""
    done = [one["evaluated"] for one in generators if one["evaluated"]]
    if not done:
        return None
    place = folder / done[0]
    evaluation = open_sealed(place, EVALUATION, f"{place}: no evaluation there; {MEND}", MEND)
    return embedded("png", evaluation.bytes(CLOSEST))
