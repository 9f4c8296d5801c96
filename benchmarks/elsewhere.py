"""How a recipe does on images of another clinic: a half to choose by, and a half to report.

A group (patient, lesion, near-duplicates) is in one half: the parity of the first byte of the
SHA-256 of its first image id, in the order of text; 0 is `tuned`, 1 `reported`. Nothing of the
other clinic is fitted: thresholds come from the validation part.
"""

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from classifier.evaluation.intervals import Resampling, Scored
from classifier.evaluation.parts import Part
from classifier.evaluation.summary import summarise
from classifier.run_folder import VALIDATION
from data.store import TargetMeaning

HALVES = ("tuned", "reported")
EXTERNAL = "external/"
RESAMPLING = Resampling(2000, 0)
AT = ("sensitivity_95", "specificity_95", "youden")  # what thresholds held on validation
KEYS = ("image_id", "part")


def half_of(rows: pd.DataFrame) -> np.ndarray:
    """int64 [n], the number of each row's half in HALVES, by `group` and `image_id`."""
    first = rows["image_id"].astype(str).groupby(rows["group"].to_numpy()).transform("min")
    return np.array([hashlib.sha256(name.encode()).digest()[0] % 2 for name in first], int)


def mixed(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of the first with the mean score of all, which must hold the same images."""
    scores = [table.set_index(list(KEYS))["score"] for table in tables]
    if any(set(each.index) != set(scores[0].index) for each in scores):
        raise ValueError("the runs have scored different images")
    total = sum(each.reindex(scores[0].index) for each in scores)
    return tables[0].assign(score=(total / len(scores)).to_numpy())


def measure(predictions: pd.DataFrame) -> dict[str, Any]:
    """Figures with group intervals, of rows as in predictions.parquet.

    `validation`: as `evaluation.json` has them, of val or oof. `elsewhere`: by external set and
    half `n, n_malignant, auc, average_precision`, `ece` of scores as they come and `ece_scaled`
    after validation's temperature, `mean_score`, and `at`: sensitivity and specificity at each
    threshold chosen on validation.
    """
    validation = next(name for name in VALIDATION if (predictions["part"] == name).any())
    parts = {validation: _part(predictions[predictions["part"] == validation], validation)}
    names = [name for name in predictions["part"].unique() if name.startswith(EXTERNAL)]
    for name in names:
        rows = predictions[predictions["part"] == name]
        halves = half_of(rows)
        for number, half in enumerate(HALVES):
            parts[f"{name}/{half}"] = _part(rows[halves == number], f"{name}/{half}")
    found = summarise(parts, RESAMPLING, TargetMeaning())["parts"]
    elsewhere = {
        name.removeprefix(EXTERNAL): {
            half: _told(found[f"{name}/{half}"], parts[f"{name}/{half}"]) for half in HALVES
        }
        for name in names
    }
    return {"validation": {validation: found[validation]}, "elsewhere": elsewhere}


def columns(cell: dict[str, Any]) -> str:
    """A cell's other clinics in a line."""
    lines = []
    for name, halves in cell.get("elsewhere", {}).items():
        aucs = ", ".join(f"{half} {_span(halves[half]['auc'])}" for half in HALVES)
        told = halves[HALVES[-1]]
        words = f"{name}: {aucs}; ECE {told['ece']['value']:.3f}"
        if told["at"]:
            held = told["at"]["sensitivity_95"]
            words += (
                f"; where validation held a sensitivity of 0.95: {held['sensitivity']['value']:.2f}"
                f" at a specificity of {held['specificity']['value']:.2f}"
            )
        lines.append(words)
    return "  ".join(lines)


def _part(rows: pd.DataFrame, name: str) -> Part:
    rows = rows.reset_index(drop=True)
    scored = Scored.of(rows["target"], rows["score"], rows["group"].astype(str))
    return Part(name, rows[["image_id", "target", "score", "group"]], scored, [])


def _told(figures: dict[str, Any], part: Part) -> dict[str, Any]:
    applied = figures["at_validation_thresholds"] or {}
    return {
        **{name: figures[name] for name in ("n", "n_malignant", "auc", "average_precision")},
        "ece": figures["calibration"]["before"]["ece"],
        "ece_scaled": figures["calibration"]["after"]["ece"],
        "mean_score": float(part.scored.score.mean()),
        "at": {
            name: {rate: applied[name][rate] for rate in ("sensitivity", "specificity")}
            for name in AT
            if name in applied
        },
    }


def _span(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
