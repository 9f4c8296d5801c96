"""All figures of evaluation.json: thresholds and temperatures from validation, then each part."""

from typing import Any

import numpy as np

from classifier.evaluation import calibration, multiclass, operating_points, subgroups
from classifier.evaluation.intervals import Figure, Freedom, Resampling, Scored, auc_figure
from classifier.evaluation.parts import Part
from classifier.run_folder import PLAIN_SCORE
from data.store import TargetMeaning
from dermsynth import progress


def summarise(
    parts: dict[str, Part], resampling: Resampling, meaning: TargetMeaning
) -> dict[str, Any]:
    """Figures of all parts; thresholds and temperatures come from the first, validation.

    `meaning`: what the notes call targets 1 and 0.
    """
    fitted = _fit(next(iter(parts.values())))
    figures = {}
    with progress.bar(len(parts), "parts", "part") as bar:
        for name, part in parts.items():
            figures[name] = _part_figures(part, fitted, resampling, meaning)
            bar.update(1)
    counts = {"replicates": resampling.replicates, "seed": resampling.seed}
    return {**counts, **fitted, "parts": figures}


def _fit(validation: Part) -> dict[str, Any]:
    """What is chosen on validation, and applied to every part."""
    target, score = validation.scored.target, validation.scored.score
    fitted: dict[str, Any] = {
        "validation_part": validation.name,
        "thresholds": operating_points.choose_thresholds(target, score),
        "temperature": calibration.fit_temperature(target, score),
        "class_temperature": None,
        "class_means": None,
    }
    if validation.classes:
        classes = validation.scored_classes
        temperature = calibration.fit_class_temperature(classes.truth, classes.probabilities)
        fitted["class_temperature"] = temperature
        fitted["class_means"] = validation.probabilities.mean(0).tolist()
    return fitted


def _part_figures(
    part: Part, fitted: dict[str, Any], resampling: Resampling, meaning: TargetMeaning
) -> dict[str, Any]:
    rows, thresholds = part.scored, fitted["thresholds"]
    calibrated = calibration.calibration(rows, fitted["temperature"], resampling)
    names = None
    if part.table is not None:
        tones = subgroups.angles(part.dataset.images, part.places) if part.dataset else None
        names = subgroups.labels(part.table, tones)
    youden = thresholds["youden"] if thresholds else None
    return {
        "n": len(rows.target),
        "n_malignant": int(rows.target.sum()),
        "n_groups": rows.n_groups,
        "n_malignant_groups": Freedom.of(rows).n_malignant,
        "notes": [*_other_target(part, meaning), *operating_points.notes(rows, meaning)],
        **operating_points.operating_points(rows, thresholds, resampling),
        "auc_single_view": _single_view(part, resampling),
        **{name: calibrated["before"][name] for name in ("brier", "ece", "log_loss")},
        "calibration": calibrated,
        "classes": _class_figures(part, fitted, resampling) if part.classes else None,
        "subgroups": names and subgroups.subgroups(rows, names, youden, resampling),
        "missing": part.missing,
    }


def _other_target(part: Part, meaning: TargetMeaning) -> list[str]:
    """A sentence where the part's dataset means something else by target 1 than the training did.

    A dataset that does not say, as those of earlier versions, means malignant.
    """
    there = part.meaning
    if there is None or there.words == meaning.words or not part.name.startswith("external/"):
        return []
    return [
        f"Its target 1 is {there.one}, that of the model {meaning.one}: what is called "
        f"{meaning.one} here is {there.one}."
    ]


def _single_view(part: Part, resampling: Resampling) -> Figure | None:
    """AUC of the images as they are, where the scores are means over views; else None."""
    if PLAIN_SCORE not in part.rows:
        return None
    rows = part.rows
    plain = Scored.of(rows["target"], rows[PLAIN_SCORE], rows["group"].astype(str))
    return auc_figure(plain, resampling)


def _class_figures(part: Part, fitted: dict[str, Any], resampling: Resampling) -> dict[str, Any]:
    diagnosis, classes = part.rows["diagnosis"], part.scored_classes
    figures = multiclass.measure_classes(diagnosis, part.probabilities, part.classes)
    if not len(classes.truth):
        return figures
    common = np.array(fitted["class_means"])
    even = multiclass.equal_prior(classes.probabilities, common)
    all_even = multiclass.equal_prior(part.probabilities, common)
    confusion = multiclass.measure_classes(diagnosis, all_even, part.classes)["confusion"]
    recalls = multiclass.recall_intervals(classes.truth, even.argmax(1), classes.group, resampling)
    temperature = fitted["class_temperature"]
    return figures | {
        "intervals": multiclass.class_intervals(classes, resampling),
        "equal_prior": recalls | {"confusion": confusion},
        "calibration": calibration.class_calibration(classes, temperature, resampling),
    }
