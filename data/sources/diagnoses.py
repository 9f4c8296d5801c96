"""What a diagnosis means, however it is spelt: the eight classes of ISIC 2019, other words, doubts.

Spelling is folded (case, accents, hyphens, brackets, plural), then rules read the words: the
melanoma family first, as it is what everything here is about, then the common diagnoses. A word
that no rule knows stays as it is and counts as none of the eight. Where it may mean a melanoma all
the same (`suspected melanoma`, `melonoma`) it is `doubtful`: nobody may count it as benign unasked.
"""

import difflib
import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from data.sources.vocabulary import is_missing

NAMES = {  # of ISIC 2019; its `ak` is `akiec` here, as in HAM10000: with Bowen's disease
    "mel": "melanoma",
    "nv": "nevus",
    "bcc": "basal cell carcinoma",
    "akiec": "actinic keratosis or Bowen's disease",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "vasc": "vascular lesion",
    "scc": "squamous cell carcinoma",
}
DIAGNOSES = tuple(NAMES)
BENIGN = ("nv", "bkl", "df", "vasc")  # by any definition
CANCERS = ("mel", "bcc", "scc")  # by any definition
Kind = Literal["known", "unknown", "doubtful", "indeterminate", "missing"]


@dataclass(frozen=True)
class Understood:
    """A diagnosis as it is stored, and how sure that is."""

    name: str | None  # one of DIAGNOSES, another word in lower case, None where missing
    kind: Kind


def plain(word: str) -> str:
    """Lower case without accents, letters and digits only, single spaces; no genitive `'s`."""
    folded = "".join(
        letter
        for letter in unicodedata.normalize("NFKD", word.casefold())
        if not unicodedata.combining(letter)
    )
    folded = re.sub(r"['\u2019`]s\b", "", folded)
    return " ".join(re.findall(r"[^\W_]+", folded))


def _set(words: str) -> frozenset[str]:
    return frozenset(plain(word) for word in words.split(";"))


# ---------------------------------------------------------------------------- the melanoma family

_ROOTS = tuple(
    map(
        plain,
        (
            "melanom",
            "melanoom",
            "czerniak",
            "меланом",
            "黑色素瘤",
            "黑色腫",
            "メラノーマ",
            "흑색종",
        ),
    )
)
_NAMED = ("lentigo malign", "hutchinson freckle", "hutchinson melanotic", "malignant melanocytic")
_ABBREVIATED = _set("mel;ssm;ssmm;lmm;alm;mmis")  # anywhere in a diagnosis
_ALONE = _set("mm;nm;lm;mis")  # the whole diagnosis, or its first word before these:
_QUALIFIERS = _set(
    "in;situ;invasive;nodular;metastatic;metastasis;metastases;level;clark;breslow;stage;type;"
    "superficial;spreading;acral;lentiginous;primary;recurrent;thin;thick"
)
_DOUBT = _set(
    "no;not;non;without;vs;versus;or;suspected;suspicious;suspicion;suspect;possible;possibly;"
    "probable;probably;question;questionable;rule;exclude;excluded;excluding;ro;r;dd;ddx;"
    "differential;like;mimic;mimicking;simulating;simulant;benign;juvenile;history;uncertain;"
    "unlikely;cannot;verdacht;kein;keine;ohne;sans;negative;consider;query;resembling"
)
_DOUBTED = re.compile(r"\b(non|not|no|pseudo|kein)melan|\bother than\b")
_NOT_MELANOMA = re.compile(  # nothing but "no melanoma": folders and columns are called so
    r"((non|not|no|kein|sans|without) ?(a )?(malignant )?(melanom(as?|e|es)?|mel|mm)"
    r"|melanomas? (negative|no|false|absent)|other than melanomas?|nmsc)"
    r"( skin)?( lesions?| images?| cases?| cancers?)?"
)
NOT_MELANOMA = "not melanoma"
_SPELT = ("melanoma", "melanom", "melanome")  # what a slip of the pen is compared with
_CLIPPED = _set("mela;melan;melano")
_UNLIKE = _set(  # near to it in spelling only
    "melasma;melanosis;melanose;melanocytoma;melanocytosis;melanoderma;melanonychia;melanotic;"
    "melanism;melanocytic;melanin;melanodermia;melanophage;melanocyte;melanoacanthoma;myeloma"
)
_INDETERMINATE = re.compile(
    r"\b(indeterminate|meltump|stump|sampus|aimp|iamp|uncertain (malignant )?potential"
    r"|unknown (malignant )?significance|atypical spitz (tumou?r|neoplasm)"
    r"|atypical (intraepidermal |intraepithelial )?melanocytic"
    r" (proliferation|hyperplasia|neoplasm|tumou?r|lesion)s?)\b"
)


def _melanoma(words: str, raw: str) -> Kind | None:
    """`known` where `words` name a melanoma, `doubtful` where they may; None where they do not."""
    tokens = words.split()
    named = any(name in words for name in (*_ROOTS, *_NAMED))
    alone = tokens[0] in _ALONE and all(t in _QUALIFIERS or t[0].isdigit() for t in tokens[1:])
    if named or alone or _ABBREVIATED & set(tokens):
        either = "/" in raw and _other(words) is not None  # nevus/melanoma
        doubted = "?" in raw or _DOUBTED.search(words) or _DOUBT & set(tokens)
        return "doubtful" if either or doubted else "known"
    unmeasured = re.sub(r"\d[\d ]* ?(mm|nm)\b", "", words).split()
    if _ALONE & set(unmeasured) or any(map(_slip, tokens)):
        return "doubtful"
    return None


def _slip(token: str) -> bool:
    """Whether a token may be a misspelt or clipped `melanoma`."""
    if token in _CLIPPED:
        return True
    if {token, token.removesuffix("s")} & _UNLIKE or not 6 <= len(token) <= 11:
        return False
    if sorted(token) == sorted("melanoma"):
        return True
    ratio = max(difflib.SequenceMatcher(None, token, right).ratio() for right in _SPELT)
    return ratio >= 0.8


# ---------------------------------------------------------------------------- the other diagnoses

_EXACT = {
    "nv": "nv;nev;clark;spitz;reed;mole;moles;dn;cmn",
    "bcc": "bcc;bccs",
    "akiec": "ak;ack;aks;akiec;sccis;iec",
    "bkl": "bkl;bk;sk;sek;lplk;pbk;isk;lentigo;lentigines",
    "df": "df;dfs;histiocytoma",
    "vasc": "vasc;vascular",
    "scc": "scc;sccs;ka;sccka",
}
_WHOLE = {word: code for code, words in _EXACT.items() for word in _set(words)}
_RULES = tuple(  # the first that is found decides; "": none of the eight
    (re.compile(rf"\b({pattern})"), code)
    for code, pattern in (
        ("", r"na?ev(us|i) (sebac|of jadassohn|comedonic|ana?emic|depigment|lipomat)"),
        ("", r"na?ev(us|i) of (ota|ito)\b"),
        ("", r"(epidermal|becker|sebaceous|strawberry|connective tissue|white sponge) na?ev(us|i)"),
        ("akiec", r"squamous cell carcinomas? in situ|scc in situ|in situ (scc|squamous)|bowen"),
        ("akiec", r"intraepi(thelial|dermal) carcinoma|keratos[ei]s actinica|aktinische keratos"),
        ("akiec", r"(actinic|solar) (keratos|or actinic keratos|cheilitis)"),
        ("bcc", r"basal ?cell (carcinoma|cancer|epithelioma|ca\b)|basal ?cell$|basalzell|basaliom"),
        ("bcc", r"(carcinoma|carcinome) basocel|bcc\b"),
        ("scc", r"squamous ?cell (carcinoma|cancer|ca\b)|squamous ?cell$|keratoacanthom|spinaliom"),
        ("scc", r"(carcinoma|carcinome) (spinocel|epidermoid)|plattenepithelk|scc\b"),
        (
            "bkl",
            r"seb\w* (keratos|warts?\b|verruca|k\b)|(keratos[ei]s|verruca) seb|stucco ?keratos",
        ),
        (
            "bkl",
            r"(solar|senile|actinic|ink ?spot|simple) lentig|lentig\w* (simplex|solar|senil|nos)",
        ),
        (
            "bkl",
            r"lichen(oid| planus)? (like )?(benign )?keratos|(pigmented )?benign (\w+ )?keratos",
        ),
        ("df", r"dermatofibroma|(fibrous )?histiocytoma|histiocytofibroma"),
        ("vasc", r"(ha?em)?angiom|angiokeratom|lymphangiom|pyogenic granuloma|granuloma pyogenic"),
        ("vasc", r"vascular (lesion|malformation|tumou?r|proliferation)|proliferations? vascular"),
        ("vasc", r"port wine stain|na?evus flammeus|telangiect|venous lake|ha?emorrhage"),
        (
            "nv",
            r"n(ae|e|a)v(us|i)\b|na?evo(cyt|mel)|nevo\b|(dysplastic|congenital|atypical) moles?\b",
        ),
    )
)


def _other(words: str) -> str | None:
    """The code of a diagnosis that is no melanoma; "" for none of the eight, None unknown."""
    if code := _WHOLE.get(words):
        return code
    return next((code for pattern, code in _RULES if pattern.search(words)), None)


@functools.cache
def understand(word: str) -> Understood:
    """What a cell of a diagnosis column means."""
    words = plain(word).replace("not otherwise specified", "nos")
    name = " ".join(word.lower().replace("_", " ").split())
    if is_missing(word) or not words:
        return Understood(None, "missing")
    if _NOT_MELANOMA.fullmatch(words) and "?" not in word:
        return Understood(NOT_MELANOMA, "known")
    if _INDETERMINATE.search(words):
        return Understood(name, "indeterminate")
    if family := _melanoma(words, word):
        return Understood("mel" if family == "known" else name, family)
    code = _other(words)
    return Understood(code or name, "known" if code else "unknown")


def diagnosis(word: str) -> str | None:
    """One of DIAGNOSES, another word in lower case, or None where missing."""
    return understand(word).name


def in_words(codes: tuple[str, ...]) -> str:
    """`melanoma or basal cell carcinoma`, for a caption."""
    names = [NAMES.get(code, code) for code in codes]
    return " or ".join(names) if len(names) < 4 else f"one of {len(names)} diagnoses"
