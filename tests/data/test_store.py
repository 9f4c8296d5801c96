import errno
import json

import numpy as np
import pandas as pd
import pytest

from data import store
from data.store import COLUMNS, TEST, folds_hash, load_dataset, save_images, write_dataset
from dermsynth.errors import UserError


def small(count=24, size=32):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({column: [None] * count for column in COLUMNS})
    table["image_id"] = [f"i{k:03d}" for k in range(count)]
    table["target"] = (np.arange(count) % 3 == 0).astype(np.uint8)
    table["group"] = np.arange(count) // 2
    table["fold"] = np.arange(count) // 2 % 4 - 1
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8), table


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "d", *small(), {"licence": "none"})


def test_round_trip(dataset):
    images, table = small()
    assert (dataset.images == images).all()
    assert isinstance(dataset.images, np.memmap)
    assert list(dataset.table.columns) == COLUMNS
    assert (dataset.table["fold"] == table["fold"]).all()
    assert dataset.info["licence"] == "none"
    assert dataset.size == 32


def test_parts_divide_the_rows(dataset):
    for fold in range(3):
        train, val, test = (dataset.rows(part, fold) for part in ("train", "val", "test"))
        assert sorted([*train, *val, *test]) == list(range(24))
        groups = [set(dataset.table["group"].to_numpy()[rows]) for rows in (train, val, test)]
        assert sum(map(len, groups)) == len(set.union(*groups))
    assert (dataset.targets(np.array([0, 1, 3])) == [1, 0, 1]).all()
    for fold in (3, TEST):
        with pytest.raises(UserError, match=r"has folds \[0, 1, 2\]"):
            dataset.rows("val", fold)


def test_folds_hash_tells_splits_apart_and_ignores_order():
    _, table = small()
    assert folds_hash(table) == folds_hash(table.sample(frac=1, random_state=0))
    assert len(folds_hash(table)) == 64
    for column, value in (("fold", 2), ("group", 99), ("image_id", "other")):
        changed = table.copy()
        changed.loc[0, column] = value
        assert folds_hash(changed) != folds_hash(table)


def test_written_in_pieces_equals_written_at_once(tmp_path):
    images, _ = small(30)
    save_images(tmp_path / "one.npy", images)
    with store.image_writer(tmp_path / "pieces.npy", 32) as append:
        for start in (0, 7, 20):
            append(images[start : {0: 7, 7: 20, 20: 30}[start]])
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "pieces.npy").read_bytes()
    assert (np.load(tmp_path / "pieces.npy") == images).all()
    with store.image_writer(tmp_path / "none.npy", 32):
        pass
    assert np.load(tmp_path / "none.npy").shape == (0, 32, 32, 3)


def test_full_disk_raises_and_leaves_nothing(tmp_path, monkeypatch, dataset):
    """/dev/full answers every write as a full disk does."""
    before = sorted(path.name for path in dataset.path.iterdir())
    images, table = small(1000)
    full = open("/dev/full", "wb")  # noqa: SIM115 - closed by the writer
    monkeypatch.setattr(store, "open", lambda path, mode: full, raising=False)
    with pytest.raises(OSError, match="No space left") as caught:
        write_dataset(dataset.path, images, table, {}, overwrite=True)
    assert caught.value.errno == errno.ENOSPC
    assert sorted(path.name for path in dataset.path.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert len(load_dataset(dataset.path).images) == 24


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def pickled(path):
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("images.npy", cut, "damaged"),
        ("images.npy", lambda path: path.unlink(), "damaged"),
        ("images.npy", lambda path: path.write_bytes(b""), "damaged"),
        ("images.npy", pickled, "damaged"),
        ("images.npy", lambda path: np.save(path, np.zeros((24, 32, 32, 3))), "float64"),
        ("images.npy", lambda path: np.save(path, np.zeros((3, 32, 32, 3), np.uint8)), r"\[3, "),
        ("table.parquet", cut, "damaged"),
        ("table.parquet", lambda path: path.unlink(), "damaged"),
        ("dataset.json", lambda path: path.unlink(), "no prepared dataset there"),
        ("dataset.json", lambda path: path.write_text("{"), "not JSON"),
        ("dataset.json", lambda path: path.write_text("[]"), "schema version None"),
        ("dataset.json", lambda path: path.write_text('{"schema_version": 1}'), "folds"),
    ],
)
def test_damage_is_named(dataset, name, damage, expected):
    damage(dataset.path / name)
    with pytest.raises(UserError, match=expected) as caught:
        load_dataset(dataset.path)
    assert str(dataset.path) in str(caught.value)


def test_changed_folds_are_noticed(dataset):
    table = dataset.table.copy()
    table.loc[0, "fold"] = 2
    table.to_parquet(dataset.path / "table.parquet")
    with pytest.raises(UserError, match="changed after it was prepared"):
        load_dataset(dataset.path)
    table.drop(columns="group").to_parquet(dataset.path / "table.parquet")
    with pytest.raises(UserError, match=r"table\.parquet has no group"):
        load_dataset(dataset.path)


def test_newer_schema_is_refused(dataset):
    info = json.loads((dataset.path / "dataset.json").read_text())
    (dataset.path / "dataset.json").write_text(json.dumps(info | {"schema_version": 2}))
    with pytest.raises(UserError, match="schema version 2, expected 1"):
        load_dataset(dataset.path)
