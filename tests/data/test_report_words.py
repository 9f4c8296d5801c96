"""What the dataset card says of the target, and of images without ids."""

import re

import pandas as pd
from card_pages import make_dataset, make_table, page_of, words_of

from data import store


def cancers() -> pd.DataFrame:
    """Six images in ten are nevi, one each of four others; one nevus counts as melanoma."""
    table = make_table()
    names = ["nv", "nv", "nv", "nv", "nv", "nv", "mel", "bcc", "xanthoma", None]
    table["diagnosis"] = pd.array(names * 24, dtype="str")
    table["target"] = (table["diagnosis"] == "mel").fillna(False).astype("UInt8")
    table.loc[0, "target"] = 1
    return table


def test_the_target_is_defined_once_with_its_diagnoses(tmp_path):
    page = page_of(make_dataset(tmp_path / "d", cancers(), target=store.MELANOMA))
    said = re.search(r"<p><strong>1 means.*?</p>", page, re.S)[0]
    assert re.sub(r"<[^>]*>", "", said) == (
        "1 means melanoma, told by the diagnosis: mel (melanoma) 24, nv (nevus) 1. 0 means not "
        "melanoma: nv (nevus) 143, bcc (basal cell carcinoma, a cancer) 24, xanthoma 24, without "
        "a diagnosis 24."
    )


def test_no_word_of_the_card_calls_a_carcinoma_benign(tmp_path):
    folder = make_dataset(tmp_path / "d", cancers(), target=store.MELANOMA)
    words = words_of(page_of(folder))
    assert "benign" not in words.lower()
    assert "malignant" not in words.lower()
    assert "25 of them melanoma (10.4%)" in words


def test_one_image_of_each_diagnosis_says_what_it_counts_as(tmp_path):
    folder = make_dataset(tmp_path / "d", cancers(), target=store.MELANOMA)
    page = page_of(folder)
    shown = page[page.index("One of each diagnosis") : page.index("<h3>Melanoma</h3>")]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", shown) == [
        "nv: nevus (144); 143 not melanoma and 1 melanoma",
        "bcc: basal cell carcinoma (24); not melanoma",
        "mel: melanoma (24); melanoma",
        "xanthoma (24); not melanoma",
    ]
    first, table = re.search(r'title="(IMG_\d+)"', shown)[1], cancers()
    assert table["diagnosis"][table["image_id"] == first].item() == "nv"


def test_images_without_ids_are_announced_in_place_of_the_green_word(tmp_path):
    table = make_table().assign(patient_id=None)
    table.loc[table.index[:150], "lesion_id"] = None
    page = page_of(make_dataset(tmp_path / "d", table))
    words, unknown = words_of(page), int((table["fold"][:150] != -3).sum())
    assert page.index('role="alert"') < page.index('class="lead"')
    assert f"Ids are missing. {unknown} of 200 images have neither a patient nor a lesion" in words
    assert "Their groups are made of near-duplicates alone" in words
    assert '<span class="good">No group lies in two parts' not in page
    assert "No group lies in two parts, but a lesion may" in words
    assert f"{unknown} images have no id to look for" in words


def test_images_with_a_lesion_id_alone_get_a_milder_note(tmp_path):
    page = page_of(make_dataset(tmp_path / "d", make_table().assign(patient_id=None)))
    assert 'role="alert"' not in page
    assert "All 200 images have a lesion id but no patient id" in words_of(page)
    assert '<span class="good">No group lies in two parts' in page
