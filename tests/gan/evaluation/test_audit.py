import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data.provenance import ArchitectureRecord, ClassRecord, GeneratorRecord, Provenance
from dermsynth.device import resolve
from dermsynth.manifest import Identity
from gan.evaluation import audit
from gan.evaluation.audit import audit_pool, benign_words, shortcut_score
from gan.evaluation.power import BINS

CPU = resolve("cpu", "fp32", cpu_auto="fp32")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(audit, "STEPS", 40)
    monkeypatch.setattr(audit, "REPLICATES", 100)


def conditional(*targets):
    classes = [ClassRecord(name=f"c{i}", target=t, count=9) for i, t in enumerate(targets)]
    record = GeneratorRecord(
        architecture=ArchitectureRecord(name="acgan", config={}),
        dataset="somewhere",
        dataset_identity=Identity(kind="dataset", id=64 * "0", parts={}),
        folds_hash=64 * "0",
        fold=0,
        targets="target",
        classes=classes,
        training_ids=["a"],
        seed=0,
        size=32,
        kimg=9.0,
        minutes=1.0,
        versions={},
    )
    return Provenance(kind="generator", generator=record)


def test_new_lesions_are_not_told_apart_and_blurred_ones_are(make_lesions):
    real = make_lesions(180, 32, seed=1)
    train, held_out = real[:120], real[120:]
    new = make_lesions(80, 32, seed=2)
    groups = np.array([f"g{i // 2}" for i in range(180)])
    found = audit_pool(new, train, held_out, groups, CPU, 0)
    assert found.synthetic.low < 0.5 + 0.1 < found.blurred.low
    assert found.real.low < 0.6
    assert (found.synthetic.n_real, found.synthetic.n_other) == (60, 40)
    assert found.missing is None
    sides = audit._halves(audit._Side(train, groups[:120]), 0, "halves")
    assert [len(side) for side in sides] == [60, 60]
    assert not set(sides[0].groups) & set(sides[1].groups)


def test_the_same_seed_gives_the_same_figures(make_lesions, monkeypatch):
    monkeypatch.setattr(audit, "STEPS", 3)
    real, new = make_lesions(100, 32, seed=1), make_lesions(60, 32, seed=2)
    first, again, other = (
        audit_pool(new, real[:70], real[70:], np.arange(100), CPU, seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.blurred != other.blurred


def test_too_few_images_are_said_and_the_spectrum_is_there_all_the_same(make_lesions):
    real = make_lesions(90, 32, seed=1)
    found = audit_pool(real[:70], real[:70], real[70:], np.arange(90), CPU, 0)
    assert found.missing.startswith("20 held-out images, 30 are needed")
    assert found.synthetic.auc is None
    assert found.spectrum.synthetic == pytest.approx([0] * BINS, abs=0.01)


def test_the_shortcut_score_is_an_auc_with_groups():
    rng = np.random.default_rng(0)
    synthetic, real = rng.normal(1, 1, 80), rng.normal(0, 1, 120)
    found = shortcut_score(synthetic, real, np.arange(120) // 2)
    target = np.arange(200) < 80
    assert found.auc == pytest.approx(roc_auc_score(target, np.concatenate([synthetic, real])))
    assert 0.5 < found.low < found.auc < found.high
    same = shortcut_score(real[:60], real[60:])
    assert same.low < 0.5 < same.high
    assert shortcut_score(synthetic[:1], real).auc is None


def test_whether_benign_images_can_be_had_is_said():
    assert "makes them too" in benign_words(conditional(0, 1))
    assert "--classes target" in benign_words(conditional())
    assert "--classes target" in benign_words(conditional(1))
    assert "not known" in benign_words(Provenance(kind="unknown"))
