import errno
import hashlib
import os
import re

import numpy as np
import pandas as pd
import pytest

from data import store
from data.images import stored
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
    assert (dataset.images[:] == images).all()
    assert (np.asarray(dataset.images) == images).all()
    assert list(dataset.table.columns) == COLUMNS
    assert (dataset.table["fold"] == table["fold"]).all()
    assert dataset.info.facts["licence"] == "none"
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
    for name in ("one", "pieces", "none"):
        (tmp_path / name).mkdir()
    save_images(tmp_path / "one", images)
    with store.image_writer(tmp_path / "pieces", 32) as append:
        for start in (0, 7, 20):
            append(images[start : {0: 7, 7: 20, 20: 30}[start]])
    for name in (store.IMAGES, store.HASHES):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()
    assert (np.load(tmp_path / "pieces" / store.IMAGES) == images).all()
    assert store.stored_hashes(tmp_path / "one") == [
        hashlib.sha256(image.tobytes()).hexdigest() for image in images
    ]
    with store.image_writer(tmp_path / "none", 32):
        pass
    assert np.load(tmp_path / "none" / store.IMAGES).shape == (0, 32, 32, 3)


def test_what_was_appended_is_counted_as_far_as_it_is_whole(tmp_path):
    images, _ = small(30)
    save_images(tmp_path, images)
    assert stored.count_intact(tmp_path, 32, [10, 10, 10]) == 3
    content = (tmp_path / store.IMAGES).read_bytes()
    flipped = bytearray(content)
    flipped[-11 * 32 * 32 * 3] ^= 1  # in image 19
    for damaged, good in ((flipped, 1), (content[:-1], 2), (content[:200], 0), (b"", 0)):
        (tmp_path / store.IMAGES).write_bytes(damaged)
        assert stored.count_intact(tmp_path, 32, [10, 10, 10]) == good
    (tmp_path / store.HASHES).unlink()
    assert stored.count_intact(tmp_path, 32, [10, 10, 10]) == 0


def test_full_disk_raises_and_leaves_nothing(tmp_path, monkeypatch, dataset):
    """/dev/full answers every write as a full disk does."""
    before = sorted(path.name for path in dataset.path.iterdir())
    images, table = small(1000)
    with monkeypatch.context() as patch:
        patch.setattr(stored, "open", lambda *_: open("/dev/full", "wb"), raising=False)  # noqa: SIM115
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


def to_pipe(path):
    path.unlink()
    os.mkfifo(path)


CHANGED = "is not what was written"


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("images.npy", cut, "damaged"),
        ("images.npy", lambda path: path.unlink(), "missing"),
        ("images.npy", lambda path: path.write_bytes(b""), "damaged"),
        ("images.npy", pickled, "damaged"),
        ("images.npy", lambda path: np.save(path, np.zeros((24, 32, 32, 3))), "float64"),
        ("images.npy", lambda path: np.save(path, np.zeros((3, 32, 32, 3), np.uint8)), r"\[3, "),
        ("images.npy", to_pipe, "missing, or no file"),
        ("images.sha256", cut, CHANGED),
        ("images.sha256", lambda path: path.unlink(), "cannot be read"),
        ("table.parquet", cut, CHANGED),
        ("table.parquet", lambda path: path.unlink(), "cannot be read"),
        ("table.parquet", to_pipe, "a pipe or a device, expected a file"),
        ("dataset.json", lambda path: path.unlink(), "cannot be read"),
        ("dataset.json", lambda path: path.write_text("{"), CHANGED),
        ("manifest.json", lambda path: path.unlink(), "no prepared dataset there"),
        ("manifest.json", lambda path: path.write_text("{"), "not JSON"),
        ("manifest.json", lambda path: path.write_text("[]"), "schema version None"),
        ("manifest.json", to_pipe, "a pipe or a device, expected a file"),
    ],
)
def test_damage_is_named(dataset, name, damage, expected):
    damage(dataset.path / name)
    with pytest.raises(UserError, match=expected) as caught:
        load_dataset(dataset.path)
    assert str(dataset.path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", "dataset.json: the whole file: "),
        ("{}", "dataset.json: folds_hash: field required"),
        ('{"folds_hash": 5}', "dataset.json: folds_hash: "),
        ('{"folds_hash": "%s", "look": {"size": 1e999}}' % ("0" * 64), "no finite number"),
        ('{"folds_hash": "%s", "look": {"size": 64}}' % ("0" * 64), "look.fit: field required"),
        ('{"folds_hash": "%s", "dropped": []}' % ("0" * 64), "dropped: "),
    ],
)
def test_a_header_that_was_written_by_somebody_else_is_named(dataset, content, expected):
    (dataset.path / "dataset.json").write_text(content)
    store.open_dataset_folder(dataset.path).seal_again("dataset.json")
    with pytest.raises(UserError, match=re.escape(expected)):
        load_dataset(dataset.path)


def test_one_flipped_bit_of_an_image_is_noticed_when_it_is_read(dataset):
    content = bytearray((dataset.path / "images.npy").read_bytes())
    content[-1] ^= 1
    (dataset.path / "images.npy").write_bytes(content)
    again = load_dataset(dataset.path)
    assert (again.images[:23] == dataset.images[:23]).all()
    with pytest.raises(UserError, match=r"image 23 .* is not what was written"):
        again.images[23]


def test_changed_folds_are_noticed(dataset):
    table = dataset.table.copy()
    table.loc[0, "fold"] = 2
    table.to_parquet(dataset.path / "table.parquet")
    with pytest.raises(UserError, match=f"table.parquet: it {CHANGED}"):
        load_dataset(dataset.path)
    table.drop(columns="group").to_parquet(dataset.path / "table.parquet")
    store.open_dataset_folder(dataset.path).seal_again("table.parquet")
    with pytest.raises(UserError, match=r"table\.parquet: no column group"):
        load_dataset(dataset.path)


@pytest.mark.parametrize(
    ("column", "value", "part"),
    [
        ("target", 0, "targets"),
        ("fold", 2, "folds"),
        ("group", 99, "groups"),
        ("image_id", "x", "ids"),
    ],
)
def test_the_identity_says_what_is_other(dataset, tmp_path, column, value, part):
    images, table = small()
    table.loc[0, column] = value
    other = write_dataset(tmp_path / "other", images, table, {}).identity
    assert other.id != dataset.identity.id
    differences = dataset.identity.differences(other)
    assert part in differences
    assert len(differences) == 1 or part == "ids"  # the others are hashed beside their ids


def test_the_identity_covers_pixels_and_not_where_it_lies(dataset, tmp_path):
    images, table = small()
    order = np.random.default_rng(1).permutation(len(table))
    moved = write_dataset(
        tmp_path / "moved", images[order], table.iloc[order].reset_index(drop=True), {}
    )
    assert moved.identity == dataset.identity
    images[3, 0, 0, 0] ^= 1
    other = write_dataset(tmp_path / "other", images, table, {})
    assert dataset.identity.differences(other.identity) == ["images"]


def test_other_schema_is_refused(dataset):
    text = (dataset.path / "manifest.json").read_text()
    changed = text.replace('"schema_version": 2', '"schema_version": 3')
    (dataset.path / "manifest.json").write_text(changed)
    with pytest.raises(UserError, match="schema version 3, expected 2"):
        load_dataset(dataset.path)


def test_a_folder_of_an_earlier_version_is_refused_in_one_line(dataset):
    (dataset.path / "manifest.json").unlink()
    with pytest.raises(
        UserError, match=r"earlier versions have no manifest\.json: make them again"
    ):
        load_dataset(dataset.path)
