import dataclasses

import numpy as np
import pytest

from data.images.skin_tone import BANDS
from data.provenance import Provenance
from data.store import MELANOMA
from gan.evaluation import card
from gan.evaluation.drift import ATTRIBUTES, compare, measure
from gan.evaluation.subject import Images, Subject

SPECTRUM = {key: [0.1, 0.4] for key in ("frequency", "synthetic", "held_out")}
PAIRS = {kind: {"n": 9, **dict.fromkeys(card.PAIRS, 0.5)} for kind in card.PAIR_KINDS}


@pytest.fixture(scope="module")
def measured(make_lesions):
    kinds = ("synthetic", "training", "held_out")
    return {kind: measure(make_lesions(40, 32, seed=s), kind) for s, kind in enumerate(kinds)}


AUC = {"auc": 0.51, "low": 0.45, "high": 0.57, "n_real": 40, "n_other": 700}


@pytest.fixture
def result(measured):
    found = compare(*measured.values(), (np.arange(40), np.arange(40)), 0)
    space = {"ratio": 1.0, "near_copies": 0.0, "share_nearest_training": 0.7, "share_expected": 0.7}
    space |= {"p_permutation": 0.5, "p_mann_whitney": 0.5, "flagged": False}
    scores = {"precision": 0.8, "recall": 0.8, "density": 0.9, "coverage": 0.95}
    return {
        **{"kid": 0.01, "kid_std": 0.01, "kid_floor": 0.0, "kid_floor_std": 0.01},
        **{"kid_other": None, "evaluation_network": "some network", "independent": True},
        **{"n_real": 40, "n_synthetic": 40, "n_training": 700, **scores, "floor": scores},
        "memorisation_flagged": False,
        "quality": {"findings": [], "not_checked": []},
        "audit": {"missing": "too few", "spectrum": SPECTRUM},
        "texture": {
            **{"synthetic": None, "blur": 1.0, "spectrum_synthetic": 2.5},
            **{"spectrum_real": 0.3, "spectrum_blurred": 9.4},
            **{"weave_synthetic": 3.1, "weave_real": 0.6},
        },
        "membership": {
            **dict.fromkeys(("pool_features", "pool_pixels"), AUC),
            **{"discriminator": None, "no_discriminator": "a pool has none", "n_synthetic": 40},
        },
        "memorisation_in": {"features": space, "pixels": space},
        "drift": {
            name: dataclasses.asdict(one) | {"verdict": "same", "narrower": False}
            for name, one in found.items()
        },
        "pairs": PAIRS,
        "diagnosis_network": None,
        **{"fold": 0, "folds_hash": 64 * "0"},
    }


def skin(angle):
    return {"skin_tone": np.full(100, angle)}


def test_a_good_generator_has_no_failings_but_its_skin(result):
    everyone = {"skin_tone": np.array([60.0, 45, 30, 20, 0, -40])}
    assert card.failures(result, everyone) == []
    (sentence,) = card.failures(result, skin(60.0))
    assert "hardly any tan or brown or dark skin" in sentence


def test_each_failing_has_its_sentence(result):
    everyone = {"skin_tone": np.array([60.0, 45, 30, 20, 0, -40])}

    def said(**change):
        return " ".join(card.failures({**result, **change}, everyone))

    def drifting(name, **change):
        return said(drift={**result["drift"], name: {**result["drift"][name], **change}})

    collapsed = {"code": "collapsed", "severity": "fail", "sentence": "All but one image."}
    gate = {"findings": [collapsed], "not_checked": []}
    assert said(quality=gate, n_training=90).startswith("All but one image. Learned from no more")
    assert "no more than 90 images" in said(n_training=90)
    assert "KID lies 5 standard errors above" in said(kid=0.05)
    assert "Little variety: 0.10 is the share" in said(recall=0.1)
    lost = {"verdict": "less", "difference": -0.4, "share_synthetic": 0.0, "share_training": 0.17}
    expected = (
        "Hairs are lost (0% of images have any; training images 17%): 0.4 standard deviations"
    )
    assert expected in drifting("hair", **lost)
    assert "noise: 4.6" in drifting("noise", verdict="more", difference=4.6)
    assert "varies less than the training images in skin tone" in drifting(
        "skin_tone", narrower=True
    )


def test_every_attribute_has_its_words():
    assert set(card.COMPARED) == set(ATTRIBUTES)
    assert set(card.bands(np.array([60.0, 120.0, np.nan]))) == {*BANDS, "none"}
    assert card.bands(np.array([60.0, 120.0]))["none"] == 0.5


def test_the_page_escapes_names_and_says_where_images_come_from(
    result, measured, make_dataset, make_lesions, tmp_path
):
    dataset = make_dataset(tmp_path / "<b>blobs", 60, 32)
    dataset = dataclasses.replace(
        dataset,
        info=dataset.info.model_copy(update={"source": "<i>here", "licence": "CC BY-NC 4.0"}),
    )
    lesions = make_lesions(64, 32)
    images = Images(lesions, lesions, lesions, np.arange(128))
    provenance = Provenance(kind="declared", statement="drawn by <script>somebody</script>")
    subject = Subject(tmp_path / "<u>pool", False, provenance, dataset, 0, "malignant", images)
    page = card.render(subject, result, measured, lesions[0], {})
    for tag in ("<b>", "<i>here", "<u>", "<script>somebody"):
        assert tag not in page
    assert "CC BY-NC 4.0" in page
    assert "&lt;script&gt;somebody" in page
    assert "Origin unknown" not in page


def test_the_page_calls_the_target_what_the_dataset_calls_it(
    result, measured, make_dataset, make_lesions, tmp_path
):
    dataset = make_dataset(tmp_path / "blobs", 60, 32)
    info = dataset.info.model_copy(update={"target": MELANOMA})
    dataset, lesions = dataclasses.replace(dataset, info=info), make_lesions(64, 32)
    images = Images(lesions, lesions, lesions, np.arange(128))
    provenance = Provenance(kind="declared", statement="drawn by hand")
    subject = Subject(tmp_path / "pool", False, provenance, dataset, 0, "malignant", images)
    page = card.render(subject, result, measured, lesions[0], {})
    assert "40 synthetic lesions, meant as melanoma, made by" in page
    assert "Real (melanoma), held out" in page
    assert "benign" not in page
    assert "malignant" not in page


def test_several_sources_each_have_their_licence():
    two = [{"name": "one", "licence": "CC0", "rows": 3}, {"name": "two"}]
    assert card.licences({"sources": two}) == [{"name": "one", "licence": "CC0"}, {"name": "two"}]


def test_numbers_read_well():
    assert [card.figure(x) for x in (None, 0.00312, -1.042, 91.47)] == [
        "–",
        "0.003",
        "−1.04",
        "91.5",
    ]
    assert [card.signed(x) for x in (0.5, -0.5, -0.001)] == ["+0.50", "−0.50", "+0.00"]
    assert card.bar(None, 1.0) == "display:none"
    assert card.bar(-1.0, 1.0) == "left:25.0%;width:50.0%"
    assert card.bar(4.0, 5.0) == "left:98.0%;width:2.0%"
