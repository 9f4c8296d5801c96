import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.pool import leak
from data.provenance import ArchitectureRecord, GeneratorRecord, Provenance
from data.store import COLUMNS, TEST, Dataset, DatasetRecord, write_dataset
from data.view import view
from dermsynth.errors import UserError

FOLDS = 4


def table(count=240, test=False):
    made = pd.DataFrame({column: [None] * count for column in COLUMNS})
    made["image_id"] = [f"i{k:03d}" for k in range(count)]
    made["group"] = [f"g{k // 2}" for k in range(count)]
    made["target"] = (np.arange(count) // 2 % 3 == 0).astype(np.uint8)
    made["fold"] = np.arange(count) // 2 % FOLDS - test
    return made


def dataset(test=False):
    return Dataset("d", None, table(test=test), DatasetRecord(folds_hash="0" * 64), None)


def malignant_groups(seen, fold):
    rows = seen.rows("train", fold)
    return set(seen.table["group"].iloc[rows[seen.targets(rows) == 1]])


def test_rotation_tests_every_image_once_and_chooses_nothing_on_what_is_tested():
    whole = dataset()
    tested = []
    for k in range(FOLDS):
        seen = view(whole, (k + 1) % FOLDS, k)
        parts = {part: set(seen.rows(part, (k + 1) % FOLDS)) for part in ("train", "val", "test")}
        assert set(whole.table["fold"].iloc[sorted(parts["test"])]) == {k}
        assert set(whole.table["fold"].iloc[sorted(parts["val"])]) == {(k + 1) % FOLDS}
        assert set.union(*parts.values()) == set(range(len(whole.table)))
        assert sum(map(len, parts.values())) == len(whole.table)
        tested += sorted(parts["test"])
    assert sorted(tested) == list(range(len(whole.table)))
    assert (whole.table["fold"] != TEST).all()  # the dataset itself is as it was


@given(st.integers(0, 3), st.floats(0.01, 1), st.floats(0.01, 1))
def test_subsets_are_nested_and_leave_the_other_parts_alone(fold, one, other):
    whole, (less, more) = dataset(), sorted((one, other))
    small, large = view(whole, fold, None, less), view(whole, fold, None, more)
    assert malignant_groups(small, fold) <= malignant_groups(large, fold)
    every = len(malignant_groups(whole, fold))
    assert len(malignant_groups(small, fold)) == int(np.ceil(round(less * every, 6)))
    assert set(small.rows("val", fold)) == set(whole.rows("val", fold))
    benign = whole.rows("train", fold)
    benign = benign[whole.targets(benign) == 0]
    assert set(benign) <= set(small.rows("train", fold))


@pytest.mark.parametrize(
    ("test", "fold", "test_fold", "words"),
    [
        (False, 1, 9, "has folds"),
        (False, 1, 1, "must not choose the checkpoint"),
        (True, 1, 0, "--test-fraction 0"),
    ],
)
def test_what_cannot_be_rotated_is_refused(test, fold, test_fold, words):
    with pytest.raises(UserError, match=words):
        view(dataset(test), fold, test_fold)


def test_two_folds_are_too_few():
    made = dataset()
    made.table["fold"] = made.table["fold"] % 2
    with pytest.raises(UserError, match="leave none to train on"):
        view(made, 0, 1)


def test_a_generator_that_saw_the_tested_fold_leaks(tmp_path):
    rng = np.random.default_rng(0)
    rows = table()
    images = rng.integers(0, 256, (len(rows), 32, 32, 3), dtype=np.uint8)
    whole = write_dataset(tmp_path / "d", images, rows, {})
    seen = view(whole, 1, 0)

    def provenance(trained):
        ids = trained.table["image_id"].iloc[trained.rows("train", 1)].tolist()
        record = GeneratorRecord(
            architecture=ArchitectureRecord(name="lesiongan", config={}),
            dataset="d",
            dataset_identity=whole.identity,
            folds_hash=whole.folds_hash,
            fold=1,
            targets="malignant",
            classes=[],
            training_ids=ids,
            seed=0,
            size=32,
            kimg=1,
            minutes=1,
            versions={},
        )
        return Provenance(kind="generator", generator=record)

    assert leak(provenance(seen), tmp_path, seen, 1) is None
    reason = leak(provenance(whole), tmp_path, seen, 1)
    assert "60 images" in reason
    assert "--fold 1 --test-fold 0" in reason
