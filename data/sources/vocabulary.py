"""One vocabulary for what sources call by many names: sites, sexes, ages, ids, nothing.

Words that no list knows are kept, in lower case. Sites are those of SIIM-ISIC 2020. What diagnoses
mean: data.sources.diagnoses.
"""

import math
from collections.abc import Callable

import pandas as pd

SITES = (  # in the order of the codes of the Kaggle TFRecords
    *("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital"),
)
MAX_AGE = 120  # years
ZERO_TIMES = 3  # as often as the most frequent other id: 0 is no id but means "unknown"

_MISSING = {
    *("", "unknown", "unk", "nan", "na", "n/a", "#n/a", "<na>", "none", "null", "nil", "missing"),
    *("?", "-", "--", ".", "not available", "not specified", "unspecified", "undefined"),
    *("n.a.", "not known", "not recorded", "no data", "not applicable", "unbekannt", "k.a."),
    *("inconnu", "inconnue", "desconocido", "desconocida", "sconosciuto", "onbekend"),
}
_NO_ID = {"no id", "noid", "no_id", "anonymous", "anon", "anonymized", "anonymised", "x", "xx"} | {
    *("xxx", "tbd", "not assigned"),
}

_SITE_WORDS = {
    "head/neck": "head neck head/neck face scalp ear nose lip cheek forehead eyelid chin temple "
    "head_and_neck",
    "upper extremity": "upper_extremity upper_extremities upper_limb arm arms forearm upper_arm "
    "hand shoulder elbow wrist finger fingers",
    "lower extremity": "lower_extremity lower_extremities lower_limb leg legs thigh lower_leg foot "
    "knee ankle toe toes buttock buttocks",
    "torso": "torso trunk back chest abdomen anterior_torso posterior_torso lateral_torso "
    "anterior_trunk posterior_trunk lateral_trunk upper_back lower_back breast",
    "palms/soles": "palms/soles palms_soles palm sole palms soles acral acral_palms_or_soles "
    "palm_of_hand sole_of_foot",
    "oral/genital": "oral/genital oral_genital genital oral mucosa anogenital anogenital_region "
    "genital_region oral_or_genital",
}
_SITES = {
    word.replace("_", " "): site for site, words in _SITE_WORDS.items() for word in words.split()
}

_SEXES = {"m": "male", "male": "male", "man": "male", "f": "female", "w": "female"} | {
    "female": "female",
    "woman": "female",
}


def plain(word: str) -> str:
    """Lower case, single spaces, nothing around."""
    return " ".join(word.lower().split())


def is_missing(word: str) -> bool:
    """Whether a cell says that nothing is known."""
    return plain(word) in _MISSING


def identities(column: pd.Series) -> tuple[pd.Series, dict[str, int]]:
    """Ids as they are, None where missing; and the words that mean "unknown", with their number.

    Empty cells are not counted. -1 and other negative numbers are no ids. 0 is one only where it is
    as common as the other ids, which then are whole numbers too.
    """
    counts = column.value_counts()
    none = {word for word in counts.index if is_missing(word) or plain(word) in _NO_ID}
    for word in set(counts.index) - none:
        value = number(word)
        if value is not None and value < 0:
            none.add(word)
    if zeros := {word for word in set(counts.index) - none if number(word) == 0}:
        others = counts.drop([*none, *zeros])
        numbered = len(others) and all(number(word) is not None for word in others.index)
        if not numbered or counts[list(zeros)].sum() > ZERO_TIMES * others.max():
            none |= zeros
    said = {word: int(counts[word]) for word in counts.index if word in none and word}
    return each(column, lambda word: None if word in none else word), said


def number(word: str) -> float | None:
    """A number as it is meant, with a decimal comma too; None for other words."""
    try:
        return float(word.replace(",", "."))
    except ValueError:
        return None


def site(word: str) -> str | None:
    """One of SITES, another word in lower case, or None where missing."""
    word = plain(word).replace("_", " ")
    return None if word in _MISSING else _SITES.get(word, word)


def sex(word: str) -> str | None:
    """`male`, `female`, another word in lower case, or None where missing."""
    word = plain(word)
    return None if word in _MISSING else _SEXES.get(word, word)


def age(word: str) -> float:
    """Years from 0 to MAX_AGE, NaN where missing (`85+` is 85). Raises ValueError for the rest."""
    if is_missing(word):
        return math.nan
    years = float(word.strip().removesuffix("+").replace(",", "."))
    if not 0 <= years <= MAX_AGE:
        raise ValueError(f"{word}: not an age")
    return years


def each(column: pd.Series, translate: Callable[[str], object]) -> pd.Series:
    """`translate` of every word (object dtype), called once for each different one."""
    words = {word: translate(word) for word in column.unique()}
    return pd.Series([words[word] for word in column], index=column.index, dtype=object)
