import json

import numpy as np
import pandas as pd
import pytest

from data.pool import leak, load_pool, write_pool
from data.store import COLUMNS, write_dataset
from dermsynth.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def dataset(tmp_path):
    table = pd.DataFrame({column: [None] * 20 for column in COLUMNS})
    table["image_id"] = [f"i{k:02d}" for k in range(20)]
    table["target"] = np.arange(20, dtype=np.uint8) % 2
    table["group"] = np.arange(20)
    table["fold"] = np.arange(20) % 5 - 1  # test: 0, 5, 10, 15; fold 0: 1, 6, 11, 16
    images = np.zeros((20, 32, 32, 3), np.uint8)
    return write_dataset(tmp_path / "d", images, table, {})


def made_by_generator(tmp_path, folds_hash, ids, name="p"):
    record = {"folds_hash": folds_hash, "fold": 0, "training_ids": list(ids)}
    return write_pool(tmp_path / name, IMAGES, {"kind": "generator", "generator": record})


def training_ids(dataset, fold):
    return dataset.table["image_id"].to_numpy()[dataset.rows("train", fold)]


def test_round_trip(tmp_path):
    pool = write_pool(tmp_path / "p", IMAGES, {"kind": "phantom"}, png=True)
    assert (pool.images == IMAGES).all()
    assert pool.info["count"] == 6
    assert pool.info["size"] == 32
    assert len(list((tmp_path / "p" / "png").glob("*.png"))) == 6


def test_a_pool_of_this_fold_is_accepted(tmp_path, dataset):
    ids = training_ids(dataset, 0)
    assert leak(made_by_generator(tmp_path, dataset.folds_hash, ids), dataset, 0) is None


def test_a_pool_of_another_fold_is_refused_with_the_ids_named(tmp_path, dataset):
    pool = made_by_generator(tmp_path, dataset.folds_hash, training_ids(dataset, 1))
    reason = leak(pool, dataset, 0)
    assert "4 images that fold 0" in reason
    assert all(name in reason for name in ("i01", "i06", "i11", "i16"))
    assert f"gan.train --data {dataset.path} --fold 0" in reason


def test_test_images_are_held_out_too(tmp_path, dataset):
    ids = [*training_ids(dataset, 0), "i10"]
    assert "1 images" in leak(made_by_generator(tmp_path, dataset.folds_hash, ids), dataset, 0)


def test_other_folds_are_refused_even_where_no_id_is_known(tmp_path, dataset):
    reason = leak(made_by_generator(tmp_path, "f" * 64, ["other1", "other2"]), dataset, 0)
    assert "other folds" in reason
    assert "ffffffffffff" in reason
    assert "other1, other2" in reason


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"kind": "unknown"},
        {"kind": "something new"},
        {"kind": "declared"},
        {"kind": "declared", "statement": ""},
        {"kind": ["generator"]},
        "made by me",
        None,
    ],
)
def test_without_provenance_it_is_refused(tmp_path, dataset, provenance):
    reason = leak(write_pool(tmp_path / "p", IMAGES, provenance), dataset, 0)
    assert "does not say where its images come from" in reason
    assert "--provenance" in reason


def test_declared_and_drawn_pools_are_accepted(tmp_path, dataset):
    declared = {"kind": "declared", "statement": "Stable Diffusion, prompt only"}
    assert leak(write_pool(tmp_path / "a", IMAGES, declared), dataset, 0) is None
    assert leak(write_pool(tmp_path / "b", IMAGES, {"kind": "phantom"}), dataset, 0) is None


@pytest.mark.parametrize(
    "generator",
    [
        None,
        [],
        {},
        {"training_ids": ["i02"]},
        {"folds_hash": "f" * 64},
        {"folds_hash": "f" * 64, "training_ids": []},
        {"folds_hash": "f" * 64, "training_ids": "i02"},
        {"folds_hash": "f" * 64, "training_ids": [2, 3]},
        {"folds_hash": None, "training_ids": ["i02"]},
    ],
)
def test_a_generator_that_does_not_say_what_it_saw(tmp_path, dataset, generator):
    pool = write_pool(tmp_path / "p", IMAGES, {"kind": "generator", "generator": generator})
    with pytest.raises(UserError, match="lacks training_ids"):
        leak(pool, dataset, 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "not JSON"),
        ("[]", "schema version None"),
        ("{}", "schema version None"),
        ('{"schema_version": 1}', "a count"),
        ('{"schema_version": 9, "count": 6}', "schema version 9"),
        ('{"schema_version": 1, "count": 7}', r"expected uint8 \[7, "),
    ],
)
def test_damaged_header(tmp_path, content, expected):
    write_pool(tmp_path / "p", IMAGES, {"kind": "phantom"})
    (tmp_path / "p" / "pool.json").write_text(content)
    with pytest.raises(UserError, match=expected):
        load_pool(tmp_path / "p")


def test_header_without_provenance_opens_and_is_refused(tmp_path, dataset):
    write_pool(tmp_path / "p", IMAGES, {"kind": "phantom"})
    header = {"schema_version": 1, "count": 6}
    (tmp_path / "p" / "pool.json").write_text(json.dumps(header))
    assert "does not say" in leak(load_pool(tmp_path / "p"), dataset, 0)


def test_damaged_images(tmp_path):
    pool = write_pool(tmp_path / "p", IMAGES, {"kind": "phantom"})
    (pool.path / "images.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="damaged"):
        load_pool(pool.path)


def test_no_pool_there(tmp_path):
    with pytest.raises(UserError, match=r"no synthetic pool there .* gan\.generate"):
        load_pool(tmp_path)
