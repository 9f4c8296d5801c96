"""What an experiment's record says of images without ids, in its dataset and in external sets."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classifier.options import TrainOptions
from data.store import COLUMNS, Dataset, write_dataset
from dermsynth.options import replace
from experiments.config import Arm, Source, Split, Trial
from experiments.results import data_warnings


def dataset(folder: Path, lesions: list, unlabelled: int = 0) -> Dataset:
    n = len(lesions)
    table = pd.DataFrame({column: [None] * n for column in COLUMNS})
    target = pd.array(np.arange(n) % 2, dtype="UInt8")
    target[n - unlabelled :] = pd.NA
    table = table.assign(image_id=[f"i{k}" for k in range(n)], target=target, group=range(n))
    table = table.assign(lesion_id=lesions, fold=np.arange(n) % 3)
    return write_dataset(folder, np.zeros((n, 8, 8, 3), np.uint8), table, {})


def trial(arm: str, external: tuple[str, ...] = (), source: Source | None = None) -> Trial:
    options = replace(TrainOptions(), external=external)
    return Trial(Arm(arm, source, options), Split(0, None), 0, None)


@pytest.fixture
def known(tmp_path) -> Dataset:
    return dataset(tmp_path / "known", list("abcdef"))


def test_nothing_is_said_where_every_image_has_an_id(known):
    assert data_warnings(known, [trial("real", (f"clinic={known.path}",))]) == []


def test_dataset_and_external_set_are_said_once_each(tmp_path, known):
    bare = dataset(tmp_path / "bare", ["a", "b", None, None, None, None])
    clinic = dataset(tmp_path / "clinic", ["a", "b", None, None, None, None], unlabelled=3)
    external = (f"good={known.path}", f"clinic={clinic.path}")
    said = data_warnings(bare, [trial("real", external), trial("synthetic", external)])
    assert len(said) == 2
    assert said[0].startswith("4 of 6 images have neither a patient nor a lesion id")
    assert said[1].startswith("external set clinic: 1 of 3 images has neither")  # labelled ones
    assert "intervals may be too narrow" in said[1]
