"""Diagnoses as people write them: what they mean, and what nobody may take for benign."""

import pytest

from data.sources.diagnoses import DIAGNOSES, NOT_MELANOMA, diagnosis, plain, understand

MELANOMAS = """
melanoma;MEL;Mel;melanomas;Melanoma, NOS;Melanoma not otherwise specified;
melanoma (in situ);melanoma-in-situ;Melanoma in situ, Lentigo maligna type;MEL_insitu;MIS;
MM in situ;malignant melanoma;MM;nodular melanoma;nodular-melanoma-(nm);NM;
superficial spreading melanoma ssm;SSM;SSM, Breslow 0.6 mm;lentigo maligna;LM;
Lentigo Maligna Melanoma;LMM;melanoma-acral-lentiginous;ALM;Amelanotic melanoma;
melanoma (less than 0.76 mm);melanoma (0.76 to 1.5 mm);melanoma (more than 1.5 mm);
melanoma metastasis;Melanoma Invasive, Associated with a nevus;
Malignant melanocytic proliferations (Melanoma);uveal melanoma;
Malignant::Malignant melanocytic proliferations (Melanoma)::Melanoma in situ;
Hutchinson's melanotic freckle;Mélanome;malignes Melanom;Melanom;melanoom;czerniak;
меланома;黑色素瘤;メラノーマ;흑색종;melanoma_1"""
IN_DOUBT = """
suspected melanoma;melanoma?;mel?;nevus vs melanoma;r/o melanoma;melonoma;malanoma;
melanona;melamona;Melanoma-like;pseudomelanoma;nevus/melanoma;melano;LM vs SK;
benign melanoma;juvenile melanoma;history of melanoma;no melanoma seen;melanoma or nevus;
V.a. Melanom, Verdacht"""
NO_MELANOMAS = {
    "nv": """
nevus;naevus;nevi;Nävus;NV;NEV;melanocytic-nevi;nevocytic nevus;
Nevus, Atypical, Dysplastic, or Clark;clark nevus;reed or spitz nevus;dysplastic-nevus;
blue nevus;nevus 5 mm;Nevus, BAP-1 deficient""",
    "bcc": """
BCC;basal cell carcinoma;basal-cell-carcinoma;Basal cell carcinoma, Nodular;Basaliom;
basal cell carcinoma morpheiform;solid cystic basal cell carcinoma""",
    "scc": """
SCC;squamous cell carcinoma;Squamous cell carcinoma, Invasive;keratoacanthoma;SCCKA;KA""",
    "akiec": """
AK;ACK;AKIEC;actinic keratosis;Solar or actinic keratosis;Bowen's disease;bowen;
squamous-cell-carcinoma-in-situ;actinic keratoses / intraepithelial carcinoma""",
    "bkl": """
BKL;SK;SEK;BK;seborrheic keratosis;Seborrhoeic Keratosis;seborrheic-keratosis-irritated;
pigmented_benign_keratosis;Lichen planus like keratosis;LPLK;solar lentigo;lentigo;
lentigo NOS""",
    "df": """
DF;dermatofibroma;fibrous histiocytoma""",
    "vasc": """
VASC;vascular lesion;haemangioma;cherry angioma;granuloma pyogenic;port wine stain;
Benign soft tissue proliferations - Vascular""",
    NOT_MELANOMA: """
Non-melanoma;non_melanoma;notmelanoma;not melanoma;no melanoma;kein Melanom;nonmel""",
}
OTHERS = """
melanosis;melasma;melanocytoma;Melanoacanthoma;mucosal melanotic macule;
longitudinal melanonychia;psoriasis;acne;miscellaneous;myeloma;
nevus sebaceous of jadassohn;epidermal nevus;verruca-vulgaris;Scar;lipoma;lymphoma;
cafe-au-lait macule;other;angiosarcoma"""


def words(text):
    return [word.strip() for word in text.replace("\n", "").split(";")]


@pytest.mark.parametrize("word", words(MELANOMAS))
def test_the_melanoma_family(word):
    meant = understand(word)
    assert (meant.name, meant.kind) == ("mel", "known")


@pytest.mark.parametrize("word", words(IN_DOUBT))
def test_what_may_be_a_melanoma_is_in_doubt(word):
    assert understand(word).kind == "doubtful"


@pytest.mark.parametrize(
    ("word", "code"), [(word, code) for code, text in NO_MELANOMAS.items() for word in words(text)]
)
def test_the_common_diagnoses(word, code):
    meant = understand(word)
    assert (meant.name, meant.kind) == (code, "known")


@pytest.mark.parametrize("word", words(OTHERS))
def test_other_words_stay_as_they_are(word):
    meant = understand(word)
    assert (meant.name, meant.kind) == (word.lower(), "unknown")


@pytest.mark.parametrize(
    "word",
    [
        "Atypical intraepithelial melanocytic proliferation",
        "atypical melanocytic proliferation",
        "Indeterminate melanocytic proliferations",
        "MELTUMP",
        "Atypical Spitz tumor",
    ],
)
def test_neither_benign_nor_malignant(word):
    assert understand(word).kind == "indeterminate"


@pytest.mark.parametrize("word", ["", " ", "unknown", "UNK", "n/a", "-", "?"])
def test_missing(word):
    assert (understand(word).name, understand(word).kind) == (None, "missing")


def test_the_codes_are_themselves():
    assert all(diagnosis(code) == code for code in DIAGNOSES)


def test_spelling_is_folded():
    assert plain("Bowen's  Disease_(Early)") == "bowen disease early"
    assert plain("MÉLANOME") == "melanome"
