"""One vocabulary for what sources call by many names: sites, sexes, ages, diagnoses, nothing.

Words that no list knows are kept, in lower case. Sites are those of SIIM-ISIC 2020, diagnoses those
of ISIC 2019 (which has `ak`, here `akiec` as in HAM10000: actinic keratosis and Bowen's disease).
"""

import math
from collections.abc import Callable

import pandas as pd

SITES = (  # in the order of the codes of the Kaggle TFRecords
    *("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital"),
)
DIAGNOSES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc", "scc")
MAX_AGE = 120  # years

_MISSING = {
    *("", "unknown", "unk", "nan", "na", "n/a", "#n/a", "<na>", "none", "null", "nil", "missing"),
    *("?", "-", "--", ".", "not available", "not specified", "unspecified", "undefined"),
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

_DIAGNOSIS_WORDS = {
    "mel": "melanoma;malignant melanoma;nodular melanoma;superficial spreading melanoma;"
    "lentigo maligna;lentigo maligna melanoma;acral lentiginous melanoma;invasive melanoma;"
    "metastatic melanoma;malignant melanocytic proliferations (melanoma)",
    "nv": "nevus;nevi;naevus;naevi;nev;melanocytic nevus;melanocytic nevi;melanocytic naevus;"
    "melanocytic naevi;mole;dysplastic nevus;atypical nevus;common nevus;blue nevus;spitz nevus;"
    "reed nevus;congenital nevus;halo nevus;nevus spilus",
    "bcc": "basal cell carcinoma",
    "akiec": "ak;ack;actinic keratosis;actinic keratoses;solar keratosis;"
    "solar or actinic keratosis;bowen's disease;bowens disease;bowen disease;"
    "intraepithelial carcinoma;actinic keratosis / bowen's disease",
    "bkl": "bk;sk;sek;seborrheic keratosis;seborrhoeic keratosis;solar lentigo;lentigo nos;"
    "lichenoid keratosis;lichen planus like keratosis;lichen planus-like keratosis;"
    "pigmented benign keratosis;benign keratosis;benign keratosis-like lesion;"
    "benign keratosis-like lesions",
    "df": "dermatofibroma",
    "vasc": "vascular;vascular lesion;vascular lesions;angioma;hemangioma;haemangioma;"
    "cherry angioma;angiokeratoma;pyogenic granuloma;"
    "benign soft tissue proliferations - vascular",
    "scc": "squamous cell carcinoma;keratoacanthoma",
}
_DIAGNOSES = {code: code for code in DIAGNOSES} | {
    word: code for code, words in _DIAGNOSIS_WORDS.items() for word in words.split(";")
}
_BEGINNINGS = {  # subtypes of the ISIC Archive: "Melanoma in situ, Lentigo maligna type"
    "melanoma in situ": "mel",
    "melanoma invasive": "mel",
    "melanoma metastasis": "mel",
    "melanoma,": "mel",
    "melanoma nos": "mel",
    "nevus,": "nv",
    "blue nevus,": "nv",
    "basal cell carcinoma": "bcc",
    "squamous cell carcinoma in situ": "akiec",  # Bowen's disease
    "actinic keratosis,": "akiec",
    "seborrheic keratosis,": "bkl",
    "dermatofibroma,": "df",
    "hemangioma,": "vasc",
    "squamous cell carcinoma": "scc",
}


def plain(word: str) -> str:
    """Lower case, single spaces, nothing around."""
    return " ".join(word.lower().split())


def is_missing(word: str) -> bool:
    """Whether a cell says that nothing is known."""
    return plain(word) in _MISSING


def identity(word: str) -> str | None:
    """An id as it is; None where missing."""
    return None if is_missing(word) else word


def site(word: str) -> str | None:
    """One of SITES, another word in lower case, or None where missing."""
    word = plain(word).replace("_", " ")
    return None if word in _MISSING else _SITES.get(word, word)


def sex(word: str) -> str | None:
    """`male`, `female`, another word in lower case, or None where missing."""
    word = plain(word)
    return None if word in _MISSING else _SEXES.get(word, word)


def diagnosis(word: str) -> str | None:
    """One of DIAGNOSES, another word in lower case, or None where missing."""
    word = plain(word).replace("_", " ")
    if word in _MISSING:
        return None
    if word in _DIAGNOSES:
        return _DIAGNOSES[word]
    return next((code for begin, code in _BEGINNINGS.items() if word.startswith(begin)), word)


def age(word: str) -> float:
    """Years from 0 to MAX_AGE, NaN where missing (`85+` is 85). Raises ValueError for the rest."""
    if is_missing(word):
        return math.nan
    years = float(word.strip().removesuffix("+"))
    if not 0 <= years <= MAX_AGE:
        raise ValueError(f"{word}: not an age")
    return years


def each(column: pd.Series, translate: Callable[[str], object]) -> pd.Series:
    """`translate` of every word (object dtype), called once for each different one."""
    words = {word: translate(word) for word in column.unique()}
    return pd.Series([words[word] for word in column], index=column.index, dtype=object)
