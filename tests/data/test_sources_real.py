"""Each source as people download it: the counts that its publishers name."""

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from data.preparation.options import Tabular
from data.sources import READERS, read_source
from data.sources.diagnoses import DIAGNOSES
from data.sources.listing import COLUMNS, SourceOptions
from data.sources.vocabulary import SITES

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def read(name, ask=None):
    if not (SHARED / name).exists():
        pytest.skip(f"no {name} at {SHARED}")
    found = read_source(name, SHARED / name, ask or SourceOptions())
    assert list(found.table.columns) == COLUMNS
    assert found.table["image_id"].is_monotonic_increasing
    assert found.table["image_id"].is_unique
    assert found.table["target"].dtype == found.table["age"].dtype == np.float64
    assert len(found.files) == len(found.table)
    assert not found.faults
    assert found.global_ids
    return found


def test_ham10000():
    found = read("ham10000")
    table = found.table
    assert (len(table), table["target"].sum(), table["lesion_id"].nunique()) == (10015, 1113, 7470)
    assert table["age"].isna().sum() == 57
    assert set(table["site"].dropna()) == set(SITES)
    assert table["site"].value_counts()["torso"] == 2192 + 1404 + 1022 + 407
    assert set(table["diagnosis"]) == set(DIAGNOSES) - {"scc"}
    assert all(file.path.stem == name for file, name in zip(found.files, table.image_id, strict=1))
    assert (found.unlisted, found.copies) == (0, 0)


def test_isic2019_with_most_images_absent():
    found = read("isic2019")
    table, there = found.table, np.array([file is not None for file in found.files])
    assert (len(table), there.sum(), table["target"][there].sum()) == (25331, 2065, 411)
    assert table["target"].sum() == 4522
    assert table["lesion_id"].isna().sum() == 2084
    assert not table["image_id"].str.contains("_downsampled").any()
    assert sum(file.path.stem.endswith("_downsampled") for file in found.files if file) == 1294
    assert set(table["diagnosis"]) == set(DIAGNOSES)
    assert set(table["site"].dropna()) == set(SITES)
    assert found.unlisted == 0


def test_isic2019_positive_is_a_choice():
    table = read("isic2019", SourceOptions(positive=("melanoma", "BCC", "scc"))).table
    assert table["target"].sum() == 4522 + 3323 + 628


def test_siim2020():
    found = read("siim2020", SourceOptions(tables_only=True))
    table = found.table
    assert (len(table), table["target"].sum(), table["patient_id"].nunique()) == (33126, 584, 2056)
    assert found.same.shape == (425, 2)
    assert (found.same[:, 0] < found.same[:, 1]).all()
    names = table["image_id"].to_numpy()[found.same]
    assert {"ISIC_0079038", "ISIC_8521950"} in [set(pair) for pair in names]
    assert not any(found.files)
    assert (table["diagnosis"] == "mel").equals(table["target"] == 1)


def test_siim2020_another_positive_keeps_the_benign_benign(capsys):
    table = read("siim2020", SourceOptions(tables_only=True, positive=("mel", "bcc"))).table
    assert table["target"].sum() == 584
    assert table["target"].notna().all()


def test_siim2020_benign_without_a_diagnosis_may_be_any_benign_one(capsys):
    table = read("siim2020", SourceOptions(tables_only=True, positive=("mel", "bkl"))).table
    assert table["target"].sum() == 584 + 223
    assert table["target"].isna().sum() == 27_125
    assert "27,125 rows have no diagnosis that decides" in capsys.readouterr().out


def test_tfrecords_have_the_words_of_the_csv():
    records = read("tfrecords").table.set_index("image_id")
    csv = read("ham10000").table.set_index("image_id").loc[records.index]
    for column in ("site", "sex", "age"):
        pd.testing.assert_series_equal(records[column], csv[column])


def test_every_source_has_a_reader():
    assert set(READERS) == set(get_args(Tabular))
