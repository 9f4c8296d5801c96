"""How well a classifier does on women and men, young and old, light skin and dark, site by site.

A subgroup's AUC compares its own malignant and benign images. Many subgroups are looked at and none
of the intervals is corrected for that: the most extreme of twenty is expected to look extreme.
"""

from typing import Any

import numpy as np
import pandas as pd

from classifier.evaluation.intervals import (
    UNDEFINED,
    Freedom,
    Resampling,
    Scored,
    auc_figure,
)
from classifier.evaluation.operating_points import at_threshold
from data.images import skin_tone

AGES = {"<30": 30, "30-44": 45, "45-59": 60, "60-74": 75, "75+": np.inf}  # name: age below, years
LEAST_GROUPS = 5  # malignant and benign groups below which no figure is given
UNKNOWN = "unknown"
TITLES = {  # variable: how it is called on the page
    "sex": "sex",
    "age": "age, years",
    "site": "site",
    "skin_tone": "skin tone (ITA)",
    "source": "source",
}
BATCH = 64  # images read at a time


def labels(table: pd.DataFrame, tones: np.ndarray | None) -> dict[str, np.ndarray]:
    """The subgroup of each row by variable, object [n] of str, in the order of TITLES.

    `table` has `sex, age, site, source` of data.store.COLUMNS; `tones` [n] ITA in degrees, None
    where there are no images. What is missing is `unknown`. `source` is left out where there is
    only one.
    """
    names = {
        "sex": _words(table["sex"]),
        "age": age_bands(table["age"]),
        "site": _words(table["site"]),
    }
    if tones is not None:
        bands = skin_tone.bands(tones)
        names["skin_tone"] = np.array([band or UNKNOWN for band in bands], dtype=object)
    source = _words(table["source"])
    if len(set(source)) > 1:
        names["source"] = source
    return names


def age_bands(ages: pd.Series) -> np.ndarray:
    """Names of AGES, object [n]; `unknown` where the age is missing or below 0."""
    years = pd.to_numeric(ages, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    number = np.searchsorted(list(AGES.values())[:-1], np.nan_to_num(years), side="right")
    names = np.array(list(AGES), dtype=object)[number]
    names[~(years >= 0)] = UNKNOWN
    return names


def angles(images: Any, rows: np.ndarray) -> np.ndarray:
    """ITA (data.images.skin_tone), degrees, float64 [len(rows)], of rows of a dataset's images."""
    batches = (images[rows[start : start + BATCH]] for start in range(0, len(rows), BATCH))
    return np.array([skin_tone.ita(image) for batch in batches for image in batch], np.float64)


def subgroups(
    rows: Scored,
    names_by_variable: dict[str, np.ndarray],
    threshold: float | None,
    resampling: Resampling,
) -> dict[str, list[dict[str, Any]]]:
    """Figures of every subgroup by variable; `names_by_variable` as `labels` gives it.

    A line has `name, n, n_malignant, n_groups, n_malignant_groups, n_benign_groups` and the Figures
    `auc`, `sensitivity` and `specificity` at `threshold` (chosen on validation; None: not given).
    With fewer than LEAST_GROUPS malignant (benign) groups there is no AUC and no sensitivity
    (specificity), only the numbers.
    """
    return {
        variable: [
            {"name": name, **_line(rows.take(names == name), threshold, resampling)}
            for name in _ordered(variable, names)
        ]
        for variable, names in names_by_variable.items()
    }


def _line(rows: Scored, threshold: float | None, resampling: Resampling) -> dict[str, Any]:
    freedom = Freedom.of(rows)
    enough = {
        "sensitivity": freedom.n_malignant >= LEAST_GROUPS,
        "specificity": freedom.n_benign >= LEAST_GROUPS,
    }
    figures = dict.fromkeys(("auc", *enough), UNDEFINED)
    if all(enough.values()):
        figures["auc"] = auc_figure(rows, resampling)
    if threshold is not None and any(enough.values()):
        rates = at_threshold(rows, threshold, resampling)
        figures |= {name: rates[name] for name in enough if enough[name]}
    return {
        "n": len(rows.target),
        "n_malignant": int(rows.target.sum()),
        "n_groups": rows.n_groups,
        "n_malignant_groups": freedom.n_malignant,
        "n_benign_groups": freedom.n_benign,
        **figures,
    }


def _ordered(variable: str, names: np.ndarray) -> list[str]:
    """Bands in their order, other names by how many images they have; `unknown` last."""
    counts = pd.Series(names).value_counts().sort_index()
    by_count = counts.sort_values(ascending=False, kind="stable").index
    order = {"age": AGES, "skin_tone": skin_tone.BANDS}.get(variable, by_count)
    known = [name for name in order if name in counts.index and name != UNKNOWN]
    return [*known, *([UNKNOWN] if UNKNOWN in counts.index else [])]


def _words(column: pd.Series) -> np.ndarray:
    words = column.astype(object).where(column.notna(), UNKNOWN).astype(str).str.strip()
    return words.where(words != "", UNKNOWN).to_numpy(object)
