import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.pool import leak, load_pool, write_pool
from data.provenance import ArchitectureRecord, GeneratorRecord, Provenance
from data.store import COLUMNS, write_dataset
from dermsynth.errors import UserError
from dermsynth.manifest import Identity, open_sealed

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


def generator_record(dataset, ids, identity=None):
    return GeneratorRecord(
        architecture=ArchitectureRecord(name="dcgan", config={}),
        dataset=str(dataset.path),
        dataset_identity=identity or dataset.identity,
        folds_hash=dataset.folds_hash,
        fold=0,
        targets="malignant",
        classes=[],
        training_ids=list(ids),
        seed=0,
        size=32,
        kimg=1.0,
        minutes=0.5,
        versions={},
    )


def leak_of(dataset, ids, identity=None):
    record = generator_record(dataset, ids, identity)
    return leak(Provenance(kind="generator", generator=record), Path("p"), dataset, 0)


def training_ids(dataset, fold):
    return dataset.table["image_id"].to_numpy()[dataset.rows("train", fold)]


def test_round_trip(tmp_path):
    pool = write_pool(tmp_path / "p", IMAGES, Provenance(kind="phantom"), png=True)
    assert (pool.images[:] == IMAGES).all()
    assert pool.info.count == 6
    assert pool.info.size == 32
    assert len(list((tmp_path / "p" / "png").glob("*.png"))) == 6


def test_the_record_of_a_generator_comes_back(tmp_path, dataset):
    record = generator_record(dataset, training_ids(dataset, 0))
    written = Provenance(kind="generator", generator=record, generator_id="0" * 64, seed=3)
    write_pool(tmp_path / "p", IMAGES, written)
    assert load_pool(tmp_path / "p").info.provenance == written


def test_the_identity_covers_images_and_provenance(tmp_path):
    declared = Provenance(kind="declared", statement="by X")
    first = write_pool(tmp_path / "a", IMAGES, declared).identity
    assert write_pool(tmp_path / "b", IMAGES, declared).identity == first
    other = write_pool(tmp_path / "c", IMAGES[::-1], declared).identity
    assert first.differences(other) == ["images"]
    other = write_pool(tmp_path / "d", IMAGES, Provenance(kind="unknown")).identity
    assert first.differences(other) == ["provenance"]


def test_a_pool_of_this_fold_is_accepted(dataset):
    assert leak_of(dataset, training_ids(dataset, 0)) is None


def test_a_pool_of_another_fold_is_refused_with_the_ids_named(dataset):
    reason = leak_of(dataset, training_ids(dataset, 1))
    assert "4 images that fold 0" in reason
    assert all(name in reason for name in ("i01", "i06", "i11", "i16"))
    assert f"gan.train --data {dataset.path} --fold 0" in reason


def test_test_images_are_held_out_too(dataset):
    assert "1 image that" in leak_of(dataset, [*training_ids(dataset, 0), "i10"])


@pytest.mark.parametrize("part", ["ids", "targets", "groups", "folds"])
def test_another_dataset_is_refused_even_where_no_id_is_known(dataset, part):
    parts = dataset.identity.parts | {part: "f" * 64}
    identity = Identity(kind="dataset", id="e" * 64, parts=parts)
    reason = leak_of(dataset, ["other1", "other2"], identity)
    assert f"another dataset or other folds (other {part} than" in reason
    assert "other1, other2" in reason


def test_the_same_dataset_at_another_size_is_accepted(dataset):
    parts = dataset.identity.parts | {"images": "f" * 64, "look": "f" * 64}
    identity = Identity(kind="dataset", id="e" * 64, parts=parts)
    assert leak_of(dataset, training_ids(dataset, 0), identity) is None


@pytest.mark.parametrize(
    "provenance",
    [
        Provenance(kind="unknown"),
        Provenance(kind="unknown", statement="trust me"),
        Provenance(kind="declared"),
        Provenance(kind="declared", statement=""),
        Provenance(kind="generator"),
    ],
)
def test_without_provenance_it_is_refused(dataset, provenance):
    reason = leak(provenance, Path("p"), dataset, 0)
    assert "does not say where its images come from" in reason
    assert "--provenance" in reason


def test_declared_and_drawn_pools_are_accepted(dataset):
    declared = Provenance(kind="declared", statement="Stable Diffusion, prompt only")
    assert leak(declared, Path("p"), dataset, 0) is None
    assert leak(Provenance(kind="phantom"), Path("p"), dataset, 0) is None


def header(**changes):
    return {
        "count": 6,
        "size": 32,
        "provenance": {"kind": "phantom"},
    } | changes


def generator(dataset, **changes):
    record = generator_record(dataset, ["i02"]).model_dump() | changes
    return header(provenance={"kind": "generator", "generator": record})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda _: [], "the whole file"),
        (lambda _: {}, "count: field required"),
        (lambda _: {"count": 6, "size": 32}, "provenance: field required"),
        (lambda _: header(provenance="made by me"), "provenance: "),
        (lambda _: header(provenance=None), "provenance: "),
        (lambda _: header(provenance={}), "provenance.kind: field required"),
        (lambda _: header(provenance={"kind": "something new"}), "provenance.kind: "),
        (lambda _: header(provenance={"kind": ["generator"]}), "provenance.kind: "),
        (lambda _: header(count=-6), "count: "),
        (lambda _: header(count=7), "192 bytes, expected 224"),
        (lambda _: header(extra=1), "extra: "),
        (lambda d: generator(d, training_ids=[]), "generator.training_ids: "),
        (lambda d: generator(d, training_ids="i02"), "generator.training_ids: "),
        (lambda d: generator(d, training_ids=[2, 3]), "generator.training_ids.0: "),
        (lambda d: generator(d, folds_hash=None), "generator.folds_hash: "),
        (lambda d: generator(d, dataset_identity={}), "generator.dataset_identity."),
    ],
)
def test_a_header_that_was_written_by_somebody_else_is_named(tmp_path, dataset, content, expected):
    write_pool(tmp_path / "p", IMAGES, Provenance(kind="phantom"))
    text = json.dumps(content(dataset)).encode()
    (tmp_path / "p" / "pool.json").write_bytes(text)
    with pytest.raises(UserError, match=r"pool\.json: it is not what was written"):
        load_pool(tmp_path / "p")
    open_sealed(tmp_path / "p", "pool", "", "").seal_again("pool.json")
    with pytest.raises(UserError, match=re.escape(expected)):
        load_pool(tmp_path / "p")


def test_damaged_images(tmp_path):
    pool = write_pool(tmp_path / "p", IMAGES, Provenance(kind="phantom"))
    (pool.path / "images.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="damaged"):
        load_pool(pool.path)


def test_no_pool_there(tmp_path):
    with pytest.raises(UserError, match=r"no synthetic pool there; .*gan\.generate"):
        load_pool(tmp_path)
