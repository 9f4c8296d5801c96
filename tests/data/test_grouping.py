"""Images without a patient or a lesion id: counted, recorded and said."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import store
from data.grouping import Grouping, count_ids
from data.preparation.assemble import print_summary
from data.store import COLUMNS, NO_PART, TargetMeaning, load_table, seal_dataset

SUMMARY = {
    "options": {"tables_only": True},
    "counts": {"images": 4, "malignant": 2, "groups": 4, "largest_group": 1, "parts": {}},
    "duplicates": {"identical_pairs": 0, "declared_pairs": 0},
}


def table(patients: list, lesions: list, folds: list | None = None) -> pd.DataFrame:
    n = len(patients)
    rows = pd.DataFrame({column: [None] * n for column in COLUMNS})
    return rows.assign(
        image_id=[f"i{k}" for k in range(n)],
        patient_id=pd.array(patients, dtype="str"),
        lesion_id=pd.array(lesions, dtype="str"),
        target=np.arange(n) % 2,
        group=np.arange(n),
        fold=np.arange(n) % 2 if folds is None else folds,
    )


def dataset(folder: Path, rows: pd.DataFrame, **info) -> Path:
    folder.mkdir()
    seal_dataset(folder, rows, SUMMARY | info)
    return folder


def summary(folder: Path) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print_summary(folder, load_table(folder)[1])
    return out.getvalue()


def test_ids_are_counted():
    rows = table(["p", None, None, ""], ["l", "m", None, None])
    found = count_ids(rows)
    assert found == Grouping(images=4, with_patient=1, with_lesion=2, with_neither=2)
    assert found.lesion_alone == 1


def test_the_warning_has_the_numbers_and_names_the_consequence():
    found = Grouping(images=10015, with_patient=0, with_lesion=410, with_neither=9605)
    assert found.warning == (
        "9,605 of 10,015 images have neither a patient nor a lesion id: images of one lesion may "
        "lie in training and in test; the scores may be too high"
    )
    assert found.note == (
        "410 of 10,015 images have a lesion id but no patient id: images of one patient may lie "
        "in training and in test"
    )
    assert Grouping(images=3, with_neither=3).warning.startswith("all 3 images have neither")
    assert Grouping(images=3, with_patient=2, with_neither=1).warning.startswith("1 of 3 images h")


def test_with_a_patient_id_for_all_nothing_is_to_be_said():
    found = count_ids(table(["p", "q"], [None, None]))
    assert found.warning is None
    assert found.note is None
    assert found.of_external("clinic") is None


def test_it_is_recorded_for_images_that_are_in_a_part(tmp_path):
    rows = table([None] * 4, ["l", None, None, None], [0, 1, -1, NO_PART])
    folder = dataset(tmp_path / "d", rows)
    recorded = json.loads((folder / store.HEADER).read_text())["grouping"]
    assert recorded == {"images": 3, "with_patient": 0, "with_lesion": 1, "with_neither": 2}


def test_a_dataset_of_before_is_counted_when_it_is_read(tmp_path):
    rows = table([None] * 4, ["l", None, None, None]).assign(diagnosis=["nv", "mel"] * 2)
    folder = dataset(tmp_path / "d", rows)
    record = json.loads((folder / store.HEADER).read_text())
    del record["grouping"], record["target"]
    (folder / store.HEADER).write_text(json.dumps(record))
    store.open_dataset_folder(folder).seal_again(store.HEADER)
    info = load_table(folder)[1]
    assert info.grouping == Grouping(images=4, with_lesion=1, with_neither=3)
    assert info.target.words == ("not melanoma", "melanoma")


def test_a_dataset_of_before_whose_target_is_wider_says_malignant(tmp_path):
    rows = table([None] * 4, [None] * 4).assign(diagnosis=["nv", "mel", "nv", "bcc"])
    folder = dataset(tmp_path / "d", rows)
    record = json.loads((folder / store.HEADER).read_text())
    del record["target"]
    (folder / store.HEADER).write_text(json.dumps(record))
    store.open_dataset_folder(folder).seal_again(store.HEADER)
    assert load_table(folder)[1].target == TargetMeaning()


def test_the_summary_warns_and_says_what_would_mend_it(tmp_path):
    said = summary(dataset(tmp_path / "d", table([None] * 4, ["l", None, None, None])))
    assert "\nWARNING: 3 of 4 images have neither a patient nor a lesion id" in said
    assert "A CSV with a patient_id or a lesion_id for every image" in said
    assert "--table FILE" in said
    assert "--group-column" in said


def test_the_summary_is_milder_where_every_lesion_is_known(tmp_path):
    said = summary(dataset(tmp_path / "d", table([None] * 4, list("abcd"))))
    assert "WARNING" not in said
    assert "\nnote: all 4 images have a lesion id but no patient id" in said


def test_the_summary_is_silent_where_every_patient_is_known(tmp_path):
    said = summary(dataset(tmp_path / "d", table(list("abcd"), [None] * 4)))
    assert "WARNING" not in said
    assert "note:" not in said


@pytest.mark.parametrize(
    ("meaning", "head"),
    [
        (store.MELANOMA, "target 1: melanoma, told by the diagnosis; 0: not melanoma"),
        (TargetMeaning(told_by="the column dx"), "target 1: malignant, told by the column dx"),
    ],
)
def test_the_summary_says_what_the_target_is(tmp_path, meaning, head):
    rows = table(list("abcd"), [None] * 4)
    said = summary(dataset(tmp_path / "d", rows, target=meaning))
    assert head in said
    assert f"  {meaning.one}   share" in said
