"""Which target the images of a pool are of: by their label, their class, the dataset's meaning."""

import dataclasses

import pytest

from data.pool import is_malignant
from data.provenance import ArchitectureRecord, ClassRecord, GeneratorRecord, Provenance
from data.store import MELANOMA, TargetMeaning


def generator(dataset) -> GeneratorRecord:
    """One that learned nevi, melanomas and carcinomas; only the last two are target 1."""
    targets = {"bcc": 1, "mel": 1, "nv": 0}
    return GeneratorRecord(
        architecture=ArchitectureRecord(name="fastgan", config={}),
        dataset="d",
        dataset_identity=dataset.identity,
        folds_hash=dataset.folds_hash,
        fold=0,
        targets="diagnosis",
        classes=[ClassRecord(name=name, target=t, count=9) for name, t in targets.items()],
        training_ids=["a"],
        seed=0,
        size=32,
        kimg=1.0,
        minutes=1.0,
        versions={},
    )


@pytest.mark.parametrize(
    ("label", "meaning", "expected"),
    [
        ("malignant", MELANOMA, True),
        ("mel", MELANOMA, True),
        ("nv", MELANOMA, False),
        ("bcc", MELANOMA, False),
        ("benign", MELANOMA, False),
        ("bcc", TargetMeaning(positive=("mel", "bcc")), True),
    ],
)
def test_by_the_label_and_what_the_dataset_means(make_dataset, tmp_path, label, meaning, expected):
    dataset = make_dataset(tmp_path / "d", 60, 32)
    info = dataset.info.model_copy(update={"target": meaning})
    dataset = dataclasses.replace(dataset, info=info)
    assert (
        is_malignant(Provenance(kind="declared", statement="x", label=label), dataset) is expected
    )


@pytest.mark.parametrize(("label", "expected"), [("bcc", True), ("mel", True), ("nv", False)])
def test_by_the_class_where_a_column_tells_the_target(make_dataset, tmp_path, label, expected):
    dataset = make_dataset(tmp_path / "d", 60, 32)  # names no diagnoses
    made = Provenance(kind="generator", generator=generator(dataset), label=label)
    assert is_malignant(made, dataset) is expected
