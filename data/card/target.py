"""What the dataset card says of the target: what 1 and 0 mean, and which diagnoses each holds."""

from typing import Any

import pandas as pd

from data.sources.diagnoses import CANCERS, NAMES
from data.store import TargetMeaning

MOST = 12  # diagnoses that are listed by name
WIDE = 16  # letters of a target's word that fit over a column


def definition(table: pd.DataFrame, meaning: TargetMeaning) -> dict[str, Any]:
    """The words of both targets, what tells them, and the diagnoses of each with their counts.

    `diagnoses`: by target (1, 0) a list of `code`, `words` (None where the code says it all),
    `images` and `cancer`, most images first; `rest`: number and images of those beyond MOST;
    `without`: images that have no diagnosis.
    """
    found = {}
    for target in (1, 0):
        diagnosis = table["diagnosis"][table["target"] == target]
        counts = diagnosis.value_counts().sort_index().sort_values(ascending=False, kind="stable")
        lines = [
            {"code": code, "words": in_words(code), "images": int(n), "cancer": code in CANCERS}
            for code, n in counts.items()
        ]
        rest = {"diagnoses": len(lines[MOST:]), "images": sum(x["images"] for x in lines[MOST:])}
        without = int(diagnosis.isna().sum())
        found[target] = {"diagnoses": lines[:MOST], "rest": rest, "without": without}
    return {
        "one": meaning.one,
        "zero": meaning.zero,
        "short": meaning.one if len(meaning.one) <= WIDE else "target 1",
        "told_by": meaning.told_by,
        "of": found,
    }


def in_words(code: str) -> str | None:
    """`nevus` of `nv`; None for a diagnosis that is a word itself."""
    return NAMES.get(code)
