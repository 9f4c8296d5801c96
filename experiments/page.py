"""One self-contained HTML page of an experiment: the verdict first, then what it rests on.

Reads `experiment.json`, `comparisons.json` and `trials.parquet` of an experiment folder and writes
`report.html` beside them. Figures and pictures are embedded; nothing is loaded from elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from data.card.target import in_words
from data.grouping import Grouping
from data.store import TargetMeaning
from dermsynth.files import write_text
from dermsynth.locks import locked
from dermsynth.manifest import Sealed, open_sealed
from dermsynth.page import embedded, templates
from experiments import numbers, plots
from experiments.checklist import checklist
from experiments.clinical import PREVALENCES, SENSITIVE, outcome
from experiments.flow import flow
from experiments.learning_curve import LearningCurve, curve_sentences
from experiments.learning_curve_plot import learning_curve_plot
from experiments.numbers import GAN_FIGURES, METRICS, POINTS
from experiments.paper import latex, limitations, methods
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
    OperatingRecord,
    PairedRecord,
    PairedRecords,
)
from experiments.wording import contradictions, headline, meaning, power, short_verdict, summary
from gan.evaluation.records import CLOSEST
from gan.evaluation.records import KIND as EVALUATION

MEND = "run the experiment again with --resume"
WORDS = (  # of experiments.numbers, that the template uses
    *("number", "interval", "p_value", "count", "duration", "typographic", "percent", "spanned"),
    *("gan_figure", "pool_word"),
)
ANY_DIFFERENCE = 2  # in AUC, from -1 to 1: an interval so wide says nothing
COMPARISON_FIELDS = (  # every number of a comparison, for the table that a program reads
    *("family", "scope", "verdict", "n", "n_malignant", "n_groups", "n_malignant_groups"),
    *("n_folds", "n_seeds", "n_gan_seeds", "n_trainings", "left_out", "auc_arm", "auc_reference"),
    *("delta_auc", "ci_low", "ci_high", "ci90_low", "ci90_high", "p", "p_holm", "ci_low_models"),
    *("ci_high_models", "p_models", "p_delong", "se_groups", "se_seeds", "se_gans", "se_crossed"),
    *("df_groups", "df_seeds", "df_gans", "mde", "mde_helps", "mde_hurts", "mde_level", "margin"),
)
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
    words = (*(getattr(numbers, name) for name in WORDS), power, short_verdict)
    environment.globals |= {word.__name__: word for word in words}
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["yaml"] = lambda value: yaml.safe_dump(
        value, sort_keys=False, allow_unicode=True
    )
    environment.filters["by_arm"] = _by_arm
    experiment = results.experiment.model_dump(mode="json")
    experiment["dataset"] = experiment["dataset"] or {}
    info = experiment["dataset"].get("info") or {}
    target = TargetMeaning.model_validate(info.get("target") or {}, strict=False)  # JSON: no tuple
    context = _verdict(results, experiment) | _trials(results.trials, results.comparisons)
    context |= _figures(results, experiment, target.one)
    context |= _beside_the_auc(results.paired, target.one)
    options = experiment["config"].get("arms") or {}
    context["arms"] = {
        arm: _arm_words(arm, options.get(arm), target.one)
        for arm in dict.fromkeys(results.trials["arm"])
    }
    context |= _of_patients(results, info)
    context |= _for_a_paper(results, context, target)
    context |= {
        "experiment": experiment,
        "target": target,
        "ids_note": Grouping.model_validate(info.get("grouping") or {}).note,
        "gan_figures": GAN_FIGURES,
        "curve": _learning_curve(experiment["learning_curve"], target.one),
        "closest": _closest(folder, experiment["gan"]),
        "grids": {kind: embedded("png", read(name)) for kind, name in experiment["grids"].items()},
        "mistakes": [
            one | {"picture": embedded("jpeg", read(one["file"])), "words": _diagnosis(one)}
            for one in experiment["mistakes"]
        ],
    }
    write_text(folder / REPORT, environment.get_template("report.html.j2").render(**context))


def _verdict(results: Results, experiment: dict[str, Any]) -> dict[str, Any]:
    """What is said at the head of the page: the same sentences as on the screen."""
    comparisons, trials = results.comparisons, results.trials
    leaky = sorted(set(trials.loc[trials["leaky"], "arm"])) if "leaky" in trials else []
    sentences = summary(comparisons, leaky, experiment["warnings"])
    told = headline(comparisons[0]) if comparisons else []  # warnings have a box of their own
    means = meaning(comparisons[0]) if comparisons else None
    but = contradictions(comparisons)
    first = "; ".join(headline(comparisons[0], experiment["warnings"])) + "." if told else None
    first_of_set = {c["test_set"]: c for c in reversed(comparisons)}
    sets = dict.fromkeys(c["test_set"] for c in comparisons)
    return {
        "leaky": leaky,
        "leak_warning": sentences[0] if leaky else None,
        "headline": told or [sentences[-1].rstrip(".")],
        "meaning": means,
        "contradictions": but,
        "beside": [s for s in sentences[bool(leaky) :] if s not in (first, means, *but)]
        if told
        else [],
        "comparisons": comparisons,
        "comparison_fields": COMPARISON_FIELDS,
        "powers": [first_of_set[name] for name in sets],
        "notes": [note for note in _notes(comparisons) if note not in sentences],
    }


def _trials(trials: pd.DataFrame, comparisons: Sequence[dict[str, Any]]) -> dict[str, Any]:
    done = trials[trials["status"] == "done"]
    sets = _sets(trials)
    return {
        "trials": trials.astype(object).where(trials.notna(), None).to_dict("records"),
        "failed": int((trials["status"] != "done").sum()),
        "means": _arm_means(done, sets),
        "sets": sets,
    }


def _sets(trials: pd.DataFrame) -> list[str]:
    """Test sets; what was chosen on validation has a column of its own."""
    names = [c.removesuffix("/auc") for c in trials.columns if c.endswith("/auc")]
    return [name for name in names if name not in ("train", "val")]


def _figures(results: Results, experiment: dict[str, Any], one: str) -> dict[str, Any]:
    comparisons, trials = results.comparisons, results.trials
    done = trials[trials["status"] == "done"]
    shown = [c for c in comparisons if c["delta_auc"] is not None]
    colours = plots.arm_colours(comparisons, list(dict.fromkeys(trials["arm"])))
    first_of_set = {c["test_set"]: c for c in reversed(comparisons)}
    return {
        "forest": _two_widths(plots.forest, shown) if shown else None,
        "trainings": {
            name: _two_widths(plots.training_dots, c)
            for name, c in reversed(first_of_set.items())
            if c["trainings"]
        },
        "dots": {
            name: _two_widths(
                plots.seed_dots, done.dropna(subset=f"{name}/auc"), f"{name}/auc", colours
            )
            for name in _sets(trials)
            if done[f"{name}/auc"].notna().any()
        },
        "rocs": {name: plots.roc(curves, colours) for name, curves in experiment["roc"].items()},
    }


def _of_patients(results: Results, info: dict[str, Any]) -> dict[str, Any]:
    """Rates of the arms of the first comparison, of 1,000 lesions; the participant flow."""
    experiment = results.experiment
    first = results.comparisons[0] if results.comparisons else None
    arms = [first["reference"], first["arm"]] if first else []
    own = [
        one
        for name in arms
        for one in experiment.operating
        if (one.arm, one.test_set) == (name, "test")
    ]
    at = [one for one in own if one.threshold == SENSITIVE]
    return {
        "operating": [one.model_dump(mode="json") for one in experiment.operating],
        "points": POINTS,
        "thousand": _of_a_thousand(at),
        "flow": flow(info),
    }


def _of_a_thousand(rates: Sequence[OperatingRecord]) -> list[dict[str, Any]]:
    """A block a prevalence: that of the test images first, then PREVALENCES."""
    if not rates:
        return []
    own = rates[0].n_malignant / rates[0].n
    return [
        {
            "prevalence": prevalence,
            "of_the_test": place == 0,
            "rows": [
                {"arm": one.arm}
                | outcome(one.sensitivity, one.specificity, prevalence).model_dump()
                for one in rates
            ],
        }
        for place, prevalence in enumerate((own, *PREVALENCES))
        if 0 < prevalence < 1
    ]


def _for_a_paper(
    results: Results, context: dict[str, Any], target: TargetMeaning
) -> dict[str, Any]:
    experiment, comparisons = results.experiment, results.comparisons
    subgroups = results.paired[0].subgroups if results.paired else []
    return {
        "methods": methods(experiment, comparisons, context["arms"], target, context["leaky"]),
        "limitations": limitations(
            *(experiment, comparisons, context["leaky"]),
            *(context["failed"], len(results.trials)),
        ),
        "latex": latex(comparisons, experiment.name),
        "checklist": checklist(experiment, comparisons, target, len(subgroups)),
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
    known = [s for s in first["subgroups"] if s["ci_low"] is not None and not s["few"]]
    drawable = [s for s in known if s["ci_high"] - s["ci_low"] < ANY_DIFFERENCE]
    return {
        "paired": records,
        "metric_names": METRICS,
        "decision_curve": _two_widths(drawn, first, curve) if curve else None,
        "decision_points": first["decision_curve"],
        "subgroups": first["subgroups"],
        "subgroup_forest": _two_widths(plots.subgroups, drawable) if drawable else None,
        "not_drawn": len(first["subgroups"]) - len(drawable),
    }


def _notes(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(c["note"] for c in comparisons if c["note"]))


def _two_widths(figure: Any, *inputs: Any) -> dict[str, str]:
    return {"wide": figure(*inputs, plots.WIDE), "narrow": figure(*inputs, plots.NARROW)}


def _diagnosis(mistake: dict[str, Any]) -> str:
    """A diagnosis by its code and in words: `mel: melanoma`."""
    code = mistake["diagnosis"]
    if code is None:
        return "diagnosis not known"
    words = in_words(code)
    return code.replace("_", " ") if words is None else f"{code}: {words}"


def _arm_words(arm: str, options: dict[str, Any] | None, one: str) -> str:
    """What an arm is, with its own options: `real images only`, `... (synthetic: 0.3)`."""
    known = [name for name in ARMS if arm == name or arm.startswith(f"{name}_")]
    words = ARMS[max(known, key=len)].replace("{one}", one) if known else ""
    own = ", ".join(f"{key}: {value}" for key, value in (options or {}).items())
    return f"{words} ({own})".strip() if own else words


def _by_arm(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Records of each arm, in the order in which the arms come; jinja's `groupby` sorts by name."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        arms.setdefault(record["arm"], []).append(record)
    return arms


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
