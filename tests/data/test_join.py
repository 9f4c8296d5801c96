"""Listings joined: what stays, what goes and why, and lesions that contradict themselves."""

import numpy as np
import pandas as pd
import pytest

from data.images.files import Encoded
from data.preparation.assemble import settle_copies, split
from data.preparation.ingest import IngestResult
from data.preparation.join import join, settle
from data.preparation.options import SplitOptions
from data.sources.listing import COLUMNS, Fault, Listing
from data.store import EXTRA, MELANOMA, NO_PART, TEST
from dermsynth.errors import UserError

WORDS = pd.DataFrame(columns=["word", "kind", "target", "n"])


def listing(ids, target, lesion=None, patient=None, same=(), global_ids=True, source="a"):
    table = pd.DataFrame({column: [None] * len(ids) for column in COLUMNS})
    table = table.assign(image_id=list(ids), target=np.array(target, float), source=source)
    table["lesion_id"] = lesion or [f"l{name}" for name in ids]
    table["patient_id"] = patient or None
    files = [Encoded(f"{name}.jpg") for name in ids]
    pairs = np.array(same, np.int64).reshape(-1, 2)
    fault = Fault("x", "row 1", "odd")
    return Listing(table, files, {}, [fault], pairs, MELANOMA, WORDS, 0, 0, global_ids)


NO_PAIRS = pd.DataFrame({"one": [], "other": [], "kind": []})


def test_external_rows_come_behind_and_know_it():
    joined = join([("a", listing("12", [0, 1])), ("b", listing("34", [1, 0], same=[(0, 1)]))])
    assert joined.table["image_id"].tolist() == ["1", "2", "3", "4"]
    assert joined.table["external"].tolist() == [False, False, True, True]
    assert joined.same.tolist() == [[2, 3]]
    assert [file.path for file in joined.files] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert len(joined.faults) == 2
    assert joined.dropped == {}


def test_what_an_external_source_cannot_bring():
    second = listing("2345", [1, np.nan, 0, 1], same=[(0, 2), (2, 3)])
    joined = join([("a", listing("12", [0, np.nan])), ("b", second)])
    assert joined.table["image_id"].tolist() == ["1", "2", "4", "5"]
    assert joined.dropped == {
        "external image without a label": ["3"],
        "external image that an earlier source has": ["2"],
    }
    assert joined.same.tolist() == [[2, 3]]  # the pair of a row that went is gone


def test_own_ids_of_two_clinics_are_not_mixed_up():
    own = {"patient": ["7", "8"], "global_ids": False}
    joined = join([("folder", listing("12", [0, 1], **own)), ("isic2019", listing("12", [0, 1]))])
    assert joined.table["image_id"].tolist() == ["folder-1", "folder-2", "1", "2"]
    assert joined.table["patient_id"].tolist()[:2] == ["folder-7", "folder-8"]
    alone = join([("folder", listing("12", [0, 1], **own))])
    assert alone.table["image_id"].tolist() == ["1", "2"]


@pytest.fixture
def contradicting():
    return join([("a", listing("1234", [0, 1, 1, np.nan], lesion=["l", "l", "m", "l"]))])


def test_conflicting_lesions(contradicting):
    with pytest.raises(UserError, match=r"1 lesion .* l \(2 malignant, 1 benign\).*--conflicts"):
        settle(contradicting, "fail")
    kept = settle(contradicting, "keep")
    assert kept.table["target"].tolist()[:3] == [0, 1, 1]
    assert kept.conflicts == [{"lesion_id": "l", "malignant": ["2"], "benign": ["1"]}]
    assert settle(contradicting, "malignant").table["target"].tolist()[:3] == [1, 1, 1]
    assert settle(contradicting, "malignant").table["target"].isna().tolist()[3]
    dropped = settle(contradicting, "drop")
    assert dropped.table["image_id"].tolist() == ["3"]
    assert dropped.dropped == {"lesion with conflicting targets": ["1", "2", "4"]}


def test_no_conflict_changes_nothing():
    joined = join([("a", listing("12", [0, 1]))])
    assert settle(joined, "fail") is joined


def taken(kept, copies):
    frame = pd.DataFrame(copies, columns=["row", "first"], dtype=np.int64)
    return IngestResult(pd.DataFrame({"row": kept}), frame, {})


@pytest.mark.parametrize(
    ("policy", "target"), [("keep", 0.0), ("malignant", 1.0), ("drop", np.nan)]
)
def test_one_image_under_two_names_and_targets(policy, target):
    joined = join([("a", listing("123", [0, 1, 1]))])
    found = taken([0, 1], [(2, 0)])
    with pytest.raises(UserError, match="1 image has both targets under two names: 1 and 3"):
        settle_copies(joined, found, "fail")
    settled = settle_copies(joined, found, policy)
    assert settled.table["target"][0] == pytest.approx(target, nan_ok=True)
    assert settled.conflicts == [{"images": ["1", "3"]}]
    agreeing = taken([0, 1], [(2, 1)])
    assert settle_copies(joined, agreeing, "fail") is joined


def test_a_dropped_copy_still_ties_its_patient():
    """Image 1 is, byte for byte, image 3 of a patient who has image 2 as well."""
    ids, patients = "1234", ["p", "q", "q", "r"]
    joined = join([("a", listing(ids, [0, 1, 0, 1], patient=patients))])
    pairs = pd.DataFrame({"one": [0], "other": [2], "kind": ["identical"]})
    given = joined.table.assign(given_fold=[0.0, 0.0, 0.0, 1.0])
    table = split(given, pairs, np.array([0, 1, 3]), SplitOptions(2, 0))
    assert table["group"].tolist() == [0, 0, 1]
    assert table["image_id"].tolist() == ["1", "2", "4"]
    assert table["fold"].tolist() == [0, 0, 1]


def test_external_images_never_meet_what_is_measured():
    first = listing([f"a{k}" for k in range(60)], [k % 3 == 0 for k in range(60)])
    second = listing([f"b{k}" for k in range(5)], [1, 0, 1, 0, 1], lesion=["x", "x", "y", "z", "u"])
    joined = join([("a", first), ("b", second)])
    pairs = pd.DataFrame({"one": [7], "other": [60], "kind": ["near"]})  # a7 and b0 of lesion x
    table = split(joined.table, pairs, np.arange(65), SplitOptions(3))
    fold = dict(zip(table["image_id"], table["fold"], strict=True))
    assert [fold[f"b{k}"] for k in range(5)] == [NO_PART, NO_PART, EXTRA, EXTRA, EXTRA]
    assert set(table["fold"][:60]) == {TEST, 0, 1, 2}
    measured = table["group"][table["fold"] >= TEST]
    assert not set(measured) & set(table["group"][table["fold"] == EXTRA])


def test_without_labels_there_are_no_folds():
    joined = join([("a", listing("123", [np.nan] * 3))])
    table = split(joined.table, NO_PAIRS, np.arange(3), SplitOptions())
    assert set(table["fold"]) == {NO_PART}
