"""Who and what was read, left out and used."""

import pandas as pd

from experiments.flow import flow, part_record


def test_a_part_is_counted_by_its_units():
    table = pd.DataFrame(
        {
            "target": [1, 0, 0, 1],
            "group": [0, 0, 1, 2],
            "lesion_id": ["a", "a", None, ""],
            "patient_id": ["p", "p", "p", None],
            "diagnosis": ["mel", None, "nv", "mel"],
            "age": [50.0, float("nan"), 0.0, 61.0],
            "sex": ["female", "unknown", "", "male"],
            "site": [None] * 4,
        }
    )
    part = part_record(table)
    assert (part.images, part.malignant, part.groups) == (4, 2, 3)
    assert (part.lesions, part.without_lesion) == (1, 2)
    assert (part.patients, part.without_patient) == (1, 1)
    assert part.missing == {"diagnosis": 1, "age": 1, "sex": 2, "site": 4}


def test_the_flow_says_what_is_counted():
    info = {
        "rows": 20,
        "dropped": {"unreadable file": ["a", "b"], "no label": ["c"]},
        "duplicates": {"identical_pairs": 3, "near_pairs": 5},
        "counts": {"images": 14, "parts": {"no part": {"images": 2}}},
        "files_without_row": 4,
    }
    assert flow(info) == [
        ("rows of the source's table", 20, "rows"),
        ("dropped: unreadable file", 2, "images"),
        ("dropped: no label", 1, "images"),
        ("dropped: byte-identical to an image that was kept", 3, "images"),
        ("files that no row names, passed over", 4, "files"),
        ("kept", 14, "images"),
        ("of them in no part (no label, or tied to an image)", 2, "images"),
        ("near-duplicates, kept in one group", 5, "pairs"),
    ]


def test_nothing_dropped_is_said_as_0():
    info = {"duplicates": {"identical_pairs": 0, "near_pairs": 0}, "counts": {"images": 7}}
    assert flow(info) == [
        ("dropped: byte-identical to an image that was kept", 0, "images"),
        ("kept", 7, "images"),
        ("near-duplicates, kept in one group", 0, "pairs"),
    ]
    assert flow({}) == []
