"""A tiny dataset on which a classifier can learn something within seconds."""

import numpy as np
import pandas as pd
import pytest

from data.provenance import ArchitectureRecord, GeneratorRecord
from data.store import COLUMNS, write_dataset
from dermsynth.files import sha256
from dermsynth.manifest import seal


def _table(targets, folds, seed=0):
    table = pd.DataFrame({column: [""] * len(targets) for column in COLUMNS})
    table["image_id"] = [f"s{seed}-{i:04d}" for i in range(len(targets))]
    table["group"] = table["lesion_id"] = [f"g{i // 2}" for i in range(len(targets))]
    table["sha256"] = [f"{seed:032x}{i:032x}" for i in range(len(targets))]
    return table.assign(target=targets, fold=folds)


def _images(targets, size, seed=0):
    """Noise; malignant ones have a dark half, turned at random by nobody."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 200, (len(targets), size, size, 3), dtype=np.uint8)
    images[np.asarray(targets) == 1, size // 4 : -size // 4, size // 4 : -size // 4] //= 3
    return images


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """120 images of 32 px, 30 malignant, three folds and a test part."""
    targets = np.arange(120) % 4 == 0
    folds = np.repeat(np.arange(30) % 4 - 1, 4)
    out = tmp_path_factory.mktemp("data") / "tiny"
    return write_dataset(out, _images(targets, 32), _table(targets.astype(int), folds), {})


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """An external dataset: 40 images of 48 px, all in the test part."""
    targets = np.arange(40) % 2 == 0
    table = _table(targets.astype(int), np.full(40, -1), seed=1)
    out = tmp_path_factory.mktemp("data") / "other"
    return write_dataset(out, _images(targets, 48, seed=1), table, {})


@pytest.fixture(scope="session")
def make_table():
    return _table


@pytest.fixture(scope="session")
def make_images():
    return _images


def _seal_run(folder, kind="classifier", inputs=None, options=None):
    """Finish a folder as a run's, or again after its files were changed."""
    parts = (
        {"predictions": sha256(path)} if (path := folder / "predictions.parquet").exists() else {}
    )
    seal(folder, kind, parts, inputs or {}, options or {})


@pytest.fixture(scope="session")
def seal_run():
    return _seal_run


def _generator_record(dataset, fold=0, training_ids=None, **changes):
    """What a generator that was trained on a fold says of itself."""
    if training_ids is None:
        rows = dataset.rows("train", fold)
        training_ids = dataset.table["image_id"].to_numpy()[rows].tolist()
    return GeneratorRecord(
        **{
            "architecture": ArchitectureRecord(name="dcgan", config={}),
            "dataset": str(dataset.path),
            "dataset_identity": dataset.identity,
            "folds_hash": dataset.folds_hash,
            "fold": fold,
            "targets": "malignant",
            "classes": [],
            "training_ids": training_ids,
            "seed": 0,
            "size": 32,
            "kimg": 1.0,
            "minutes": 1.0,
            "versions": {},
        }
        | changes
    )


@pytest.fixture(scope="session")
def generator_record():
    return _generator_record
