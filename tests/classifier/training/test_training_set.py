import os

import numpy as np
import pytest

from classifier.options import TrainOptions
from classifier.targets import BINARY
from classifier.training import pools, training_set
from data.pool import write_pool
from data.provenance import GeneratorRecord, Provenance
from dermsynth.errors import UserError
from dermsynth.manifest import begin, digest, open_sealed, seal
from dermsynth.options import flat, replace
from dermsynth.records import write_record
from gan import generate

OPTIONS = replace(TrainOptions(), seed=3, device="cpu")
LEAKY = replace(OPTIONS, allow_leakage=True)


@pytest.fixture
def provenance(generator_record):
    def provenance(dataset, fold=0, training_ids=None, **changes):
        made = generator_record(dataset, fold, training_ids, **changes)
        return Provenance(kind="generator", generator=made, generator_id="0" * 64, seed=0)

    return provenance


def other_folds(dataset):
    """The identity of the same images in other folds."""
    parts = dataset.identity.parts | {"folds": "f" * 64}
    return dataset.identity.model_copy(update={"id": "e" * 64, "parts": parts})


def pool_at(path, count, provenance, size=32):
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return write_pool(path, images, provenance, overwrite=True)


def test_extra_images_are_the_asked_share_of_the_final_set(tiny):
    targets = tiny.targets(tiny.rows("train", 0))
    for share in (0.1, 0.3, 0.5):
        n = training_set.extra_count(targets, share)
        assert n / (n + len(targets)) == pytest.approx(share, abs=0.5 / len(targets))
    n = training_set.extra_count(targets, "balanced")
    assert targets.sum() + n == (targets == 0).sum()
    assert training_set.extra_count(targets, 0.0) == 0


def listed(dataset, synthetic, oversampled):
    n = len(dataset.rows("train", 0))
    shares = {"synthetic": synthetic, "oversample": oversampled}
    shares = {name: str(count / (count + n)) for name, count in shares.items()}
    return training_set.build_training_set(dataset, BINARY, replace(OPTIONS, **shares))


def test_the_training_set_keeps_every_real_image_and_adds_malignant_ones(tiny):
    real = listed(tiny, 0, 0)
    synthetic = listed(tiny, 25, 0)
    duplicated = listed(tiny, 0, 25)
    for extended in (synthetic, duplicated):
        assert len(extended) == len(real) + 25
        assert np.array_equal(extended.rows[: len(real)], real.rows)
        assert extended.targets[len(real) :].all()
    assert not duplicated.synthetic.any()
    assert synthetic.synthetic.sum() == 25
    assert np.array_equal(synthetic.rows[len(real) :], np.arange(25))
    copies = duplicated.rows[len(real) :]
    assert tiny.targets(copies).all()
    times = np.unique(copies, return_counts=True)[1]
    assert times.max() - times.min() <= 1
    assert set(copies) <= set(real.rows)


def test_order_goes_through_the_list_evenly_and_from_any_step():
    order = training_set.DataOrder(seed=3, n=10, batch=4)
    drawn = [order.positions(step) for step in range(10)]
    positions = np.concatenate([p for p, _ in drawn])
    rounds = np.concatenate([r for _, r in drawn])
    assert np.array_equal(np.bincount(positions), np.full(10, 4))
    for number in range(4):
        assert sorted(positions[rounds == number]) == list(range(10))
    assert not np.array_equal(positions[:10], positions[10:20])
    assert np.array_equal(training_set.DataOrder(3, 10, 4).positions(7)[0], drawn[7][0])
    assert not np.array_equal(training_set.DataOrder(4, 10, 4).positions(7)[0], drawn[7][0])
    assert len(training_set.DataOrder(0, 3, 8).positions(5)[0]) == 8  # a batch of several rounds


def test_pool_from_other_folds_is_refused_with_ids(tiny, tmp_path, provenance):
    held_out = tiny.table["image_id"].to_numpy()[tiny.rows("val", 0)].tolist()
    path = pool_at(tmp_path / "p", 30, provenance(tiny, 1, held_out)).path
    with pytest.raises(UserError, match=held_out[0]):
        pools.open_pool(OPTIONS, tiny, path, 10)
    _, reason = pools.open_pool(LEAKY, tiny, path, 10)
    assert held_out[0] in reason
    path = pool_at(tmp_path / "q", 30, provenance(tiny, dataset_identity=other_folds(tiny))).path
    with pytest.raises(UserError, match=r"other folds \(other folds than"):
        pools.open_pool(OPTIONS, tiny, path, 10)


def test_a_generator_of_the_same_split_may_have_seen_other_pixels(tiny, tmp_path, provenance):
    """The same images prepared at another size: what is held out is held out there, too."""
    parts = tiny.identity.parts | {"images": "1" * 64, "look": "2" * 64}
    other = tiny.identity.model_copy(update={"id": "3" * 64, "parts": parts})
    path = pool_at(tmp_path / "p", 30, provenance(tiny, dataset_identity=other)).path
    assert pools.open_pool(OPTIONS, tiny, path, 10)[1] is None


def test_pool_without_provenance_is_refused_unless_declared(tiny, tmp_path):
    path = pool_at(tmp_path / "p", 30, Provenance(kind="unknown")).path
    with pytest.raises(UserError, match="does not say where its images come from"):
        pools.open_pool(OPTIONS, tiny, path, 10)
    path = pool_at(tmp_path / "p", 30, Provenance(kind="declared", statement="drawn by hand")).path
    assert pools.open_pool(OPTIONS, tiny, path, 10)[1] is None


def test_pool_too_small_names_the_command(tiny, tmp_path, provenance):
    path = pool_at(tmp_path / "p", 5, provenance(tiny)).path
    with pytest.raises(UserError, match=r"holds 5 images, needed: 6.*gan.generate.*--count 6"):
        pools.open_pool(OPTIONS, tiny, path, 6)
    with pytest.raises(UserError, match="no synthetic pool there"):
        pools.open_pool(OPTIONS, tiny, tmp_path / "absent", 6)


@pytest.fixture
def generators(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "gan"


@pytest.fixture
def generator_run(generator_record):
    def generator_run(folder, dataset, fold=0, age=0, **changes):
        folder.mkdir(parents=True)
        write_record(folder / "generator.json", generator_record(dataset, fold, **changes))
        seal(folder, "generator", {"name": digest(folder.name)})
        when = 1_700_000_000 - age
        os.utime(folder / "manifest.json", (when, when))
        return folder

    return generator_run


def test_newest_generator_that_fits(tiny, generators, generator_run):
    with pytest.raises(UserError, match=r"python -m gan.train --data \S+ --fold 0"):
        pools.newest_generator(tiny, 0)
    generator_run(generators / "old", tiny, age=50)
    generator_run(generators / "best", tiny, age=10)
    generator_run(generators / "other-fold", tiny, fold=1)
    generator_run(generators / "other-data", tiny, dataset_identity=other_folds(tiny))
    begin(generator_run(generators / "unfinished", tiny), "generator", {}, {})
    (generator_run(generators / "damaged", tiny) / "generator.json").write_text("[]")
    generator_run(generators / "of-before", tiny).joinpath("manifest.json").unlink()
    assert pools.newest_generator(tiny, 0).name == "best"
    assert pools.newest_generator(tiny, 1).name == "other-fold"


def test_pool_of_a_generator_is_made_once(tiny, generators, generator_run, monkeypatch):
    run = generator_run(generators / "g", tiny)
    calls = []

    def make(options):
        calls.append(flat(options))
        sealed = open_sealed(run, "generator", "", "")
        record = sealed.record("generator.json", GeneratorRecord)
        asked = {"seed": options.seed, "truncation": options.truncation}
        made = Provenance(
            kind="generator", generator=record, generator_id=sealed.identity.id, **asked
        )
        pool_at(calls[-1]["out"], calls[-1]["count"], made)

    monkeypatch.setattr(generate, "generate", make)
    first = pools.pool_of_generator(OPTIONS, tiny, run, 7)
    assert first == run / "pools" / "7-seed3"
    asked = {"generator": run, "count": 7, "seed": 3, "device": "cpu", "overwrite": True}
    assert asked.items() <= calls[0].items()
    assert pools.pool_of_generator(OPTIONS, tiny, run, 7) == first
    assert pools.pool_of_generator(OPTIONS, tiny, run, 5) == first  # big enough
    assert len(calls) == 1
    assert pools.pool_of_generator(replace(OPTIONS, seed=4), tiny, run, 5).name == "5-seed4"
    assert len(calls) == 2
    seal(run, "generator", {"name": digest("trained further")})
    pools.pool_of_generator(OPTIONS, tiny, run, 7)
    assert len(calls) == 3


def test_leaky_generator_is_refused_before_anything_is_made(
    tiny, generators, generator_run, monkeypatch
):
    held_out = tiny.table["image_id"].to_numpy()[tiny.rows("test", 0)].tolist()
    run = generator_run(generators / "g", tiny, training_ids=held_out)
    monkeypatch.setattr(generate, "generate", None)
    with pytest.raises(UserError, match=held_out[0]):
        pools.pool_of_generator(replace(OPTIONS, seed=0), tiny, run, 7)
    with pytest.raises(UserError, match="no finished generator there"):
        pools.pool_of_generator(replace(OPTIONS, seed=0), tiny, generators / "absent", 7)


def test_images_of_another_class_are_no_malignant_ones(tiny, tmp_path):
    for label, allowed in (("benign", False), ("nv", False), ("mel", True), ("malignant", True)):
        made = Provenance(kind="declared", statement="drawn", label=label)
        path = write_pool(tmp_path / label, tiny.images[:6], made).path
        if allowed:
            assert pools.open_pool(OPTIONS, tiny, path, 5)[1] is None
        else:
            with pytest.raises(UserError, match=f"its images are {label}; synthetic images count"):
                pools.open_pool(OPTIONS, tiny, path, 5)
