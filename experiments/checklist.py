"""CLAIM 2024 and TRIPOD+AI, filled where the records of an experiment know the answer.

CLAIM, 2024 update: Tejani et al. 2024, Radiology: Artificial Intelligence 6(4), e240300; 44 items.
TRIPOD+AI: Collins et al. 2024, BMJ 385, e078378; 27 items, 52 with their letters. Numbers are
theirs, topics are in short words of ours: what an item asks for is in these papers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data.grouping import Grouping
from data.store import TargetMeaning
from dermsynth.errors import counted
from experiments.records import ExperimentRecord

# numbers of CLAIM 2024, of TRIPOD+AI, the topic, and the key of its answer; "": people know it
ITEMS = (
    ("1", "1", "title: artificial intelligence, its kind, target and population", ""),
    ("2", "2", "abstract: design, methods, results, conclusions", ""),
    ("3", "3a-3c", "background, intended use, known inequalities", ""),
    ("4", "4", "aims, objectives, hypotheses", "aims"),
    ("5", "", "prospective or retrospective", ""),
    ("6", "4", "goal of the study", "aims"),
    ("7", "5a", "data sources", "source"),
    ("", "5b, 6a", "dates, setting and centres", ""),
    ("8", "6b", "inclusion and exclusion", "flow"),
    ("", "6c", "treatments received", ""),
    ("9", "7", "preparation of the data", "preparation"),
    ("10", "", "selection of subsets of the data", "subsets"),
    ("11", "", "de-identification", ""),
    ("12", "11", "missing data", "missing"),
    ("13", "", "protocol of image acquisition", ""),
    ("", "9a-9c", "predictors: which, how they were measured, and by whom", ""),
    ("14", "8a", "reference standard: how it was obtained", "target"),
    ("15", "8a", "reference standard: why this one", ""),
    ("16", "8b", "who annotated, and with what training", ""),
    ("17", "", "annotation of the test set", ""),
    ("", "8c", "blinding of those who annotated", ""),
    ("18", "", "variability between and within annotators", ""),
    ("19", "12a", "how images were assigned to parts", "parts"),
    ("20", "", "level at which parts are disjoint", "disjoint"),
    ("21", "10", "sample size", "power"),
    ("22", "12c", "model", "model"),
    ("", "12b", "how predictors enter the model", ""),
    ("23", "", "software, with versions", "software"),
    ("24", "", "initial values of the weights", ""),
    ("25", "12c", "training", "training"),
    ("", "13", "class imbalance", "imbalance"),
    ("26", "12c", "choice of the final model", "choice"),
    ("27", "", "ensembles", "ensembles"),
    ("", "15", "output of the model, thresholds", "output"),
    ("28", "12e", "measures of performance", "metrics"),
    ("29", "12e", "significance and uncertainty", "statistics"),
    ("30", "23a", "robustness, sensitivity, subgroups", "subgroups"),
    ("", "12d, 23b", "heterogeneity between clusters, such as centres", ""),
    ("", "14", "fairness", ""),
    ("31", "", "explainability or interpretability", ""),
    ("32", "12a", "evaluation on internal data", "internal"),
    ("33", "12a", "testing on external data", "external"),
    ("", "16", "how the data of the test differ from those of training", ""),
    ("", "12f, 24", "updating of the model, such as recalibration", ""),
    ("", "12g", "how predictions are computed", "output"),
    ("34", "18d", "registration", ""),
    ("", "17", "ethical approval, consent", ""),
    ("", "19", "involvement of patients and the public", ""),
    ("35", "20a", "numbers included and excluded", "flow"),
    ("36", "20b", "characteristics of the cases in each part", ""),
    ("", "20c", "characteristics of the test against those of training", ""),
    ("", "21", "participants and events in each analysis", "parts"),
    ("37", "23a", "performance with its uncertainty", "performance"),
    ("38", "23a", "diagnostic performance with its precision", "diagnostic"),
    ("39", "", "analysis of failures", "failures"),
    ("40", "26", "limitations", "limitations"),
    ("41", "25", "interpretation, implications for practice", ""),
    ("", "27a, 27b", "poor or missing input, what users must do and know", ""),
    ("", "27c", "next steps of research", ""),
    ("42", "18c", "protocol or further technical detail", "plan"),
    ("43", "18e, 18f", "availability of data, model and software", "licence"),
    ("", "22", "the full model, for others to use", ""),
    ("44", "18a, 18b", "funding, its role, interests", ""),
)
FLOW, PATIENTS, PAPER = "who-was-studied", "for-patients", "for-a-paper"
SUBGROUPS = "by-subgroup"
DESIGN, MADE, COMPARED = "design", "how-it-was-made", "comparisons"


@dataclass(frozen=True)
class Item:
    """A line of the checklist."""

    claim: str  # its number in CLAIM 2024; "": not there
    tripod: str
    topic: str
    answer: str  # "": not known to this software
    where: str  # anchor in the report; "": nowhere


def checklist(
    experiment: ExperimentRecord,
    comparisons: Sequence[dict[str, Any]],
    target: TargetMeaning,
    n_subgroups: int,
) -> list[Item]:
    """All items, answered where the records know; `n_subgroups`: those of the first comparison."""
    known = _answers(experiment, comparisons, target)
    if n_subgroups:
        known["subgroups"] = (f"the difference in {n_subgroups} subgroups", SUBGROUPS)
    return [
        Item(claim, tripod, topic, *known.get(key, ("", ""))) for claim, tripod, topic, key in ITEMS
    ]


def _answers(
    experiment: ExperimentRecord, comparisons: Sequence[dict[str, Any]], target: TargetMeaning
) -> dict[str, tuple[str, str]]:
    info: dict[str, Any] = dict(experiment.dataset.info) if experiment.dataset else {}
    config = experiment.config
    answers: dict[str, tuple[str, str]] = _of_data(experiment, info, target)
    if comparisons:
        answers |= _of_comparisons(experiment, comparisons)
    if config:
        answers["model"] = ("the options of classifier and generator", MADE)
        answers["training"] = ("the configuration, seeds and command", MADE)
    if experiment.versions:
        answers["software"] = (", ".join(f"{k} {v}" for k, v in experiment.versions.items()), MADE)
    if experiment.plan:
        made, sha = experiment.plan["made"], str(experiment.plan["design_sha256"])[:16]
        answers["plan"] = (f"plan of {made}, SHA-256 {sha}..., before training", DESIGN)
    if experiment.operating:
        answers["diagnostic"] = ("sensitivity, specificity, PPV and NPV with intervals", PATIENTS)
    if experiment.mistakes:
        shown = counted(len(experiment.mistakes), "lesion")
        shown += " that most models call wrongly"
        answers["failures"] = (shown, PATIENTS)
    return answers


def _of_data(
    experiment: ExperimentRecord, info: dict[str, Any], target: TargetMeaning
) -> dict[str, tuple[str, str]]:
    ids = Grouping.model_validate(info.get("grouping") or {})
    unknown = "; ".join(one for one in (ids.warning, ids.note) if one)
    level = "groups of a patient, a lesion or near-duplicates"
    answers = {
        "disjoint": (f"{level}, but {unknown}" if unknown else level, FLOW),
        "choice": ("checkpoint, temperature and threshold by validation images alone", DESIGN),
        "ensembles": ("none: figures are means of single models", DESIGN),
        "output": ("a probability, calibrated by one temperature on validation", PATIENTS),
        "limitations": ("those that the records show", PAPER),
        "target": (
            f"{target.one} against {target.zero}"
            + (f", told by {target.told_by}" if target.told_by else "")
            + "; how the source knows is not recorded",
            FLOW,
        ),
    }
    if info.get("source"):
        answers["source"] = (str(info["source"]), FLOW)
    if info.get("licence"):
        answers["licence"] = (f"licence of the data: {info['licence']}; the rest is yours", FLOW)
    if info.get("counts"):
        answers["flow"] = ("images read, dropped by reason, and in each part", FLOW)
    if info.get("look"):
        look = info["look"]
        cleaned = ", ".join(look.get("clean") or []) or "nothing"
        size = f"{look.get('size')} px" if look.get("size") != "native" else "native size"
        answers["preparation"] = (f"{size}, fit {look.get('fit')}, cleaned: {cleaned}", FLOW)
    if experiment.parts:
        told = "; ".join(
            f"{name} {part.images:,} images" for name, part in experiment.parts.items()
        )
        answers["parts"] = (told, FLOW)
        gaps = sum(count for part in experiment.parts.values() for count in part.missing.values())
        answers["missing"] = (
            f"{gaps:,} values of diagnosis, age, sex and site are missing, by part",
            FLOW,
        )
        train = experiment.parts.get("train")
        if train is not None and train.images:
            share = f"{train.malignant:,} of {train.images:,} training images are {target.one}"
            answers["imbalance"] = (f"{share}; what each arm does about it", COMPARED)
    return answers


def _of_comparisons(
    experiment: ExperimentRecord, comparisons: Sequence[dict[str, Any]]
) -> dict[str, tuple[str, str]]:
    first = comparisons[0]
    aim = f"whether {first['arm']} does better than {first['reference']}, in AUC"
    outside = dict.fromkeys(
        c["test_set"].removeprefix("external/")
        for c in comparisons
        if c["test_set"].startswith("external/")
    )
    seen = "not known" if first["mde"] is None else f"{first['mde']:.3f} AUC with 80% power"
    answers = {
        "aims": (aim, COMPARED),
        "metrics": ("AUC; beside it the table of other metrics", "beside-the-auc"),
        "statistics": ("95% intervals of total variance, Holm's correction, TOST", DESIGN),
        "internal": (f"{first['n']:,} images of {first['n_groups']:,} groups", COMPARED),
        "external": (", ".join(outside) or "none", COMPARED),
        "power": (f"smallest visible difference: {seen}", DESIGN),
        "performance": ("every comparison with its interval", COMPARED),
    }
    if experiment.learning_curve:
        answers["subsets"] = ("nested subsets of the training groups", FLOW)
    return answers
