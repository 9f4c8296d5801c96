from dataclasses import dataclass

import cv2
import numpy as np
import pytest

import gan.evaluation.audit
import gan.evaluation.metrics
from data.phantom import render
from data.phantom.config import PhantomConfig
from data.phantom.sampling import sample_malignant
from data.pool import Pool, load_pool, write_pool
from data.pool_quality import compare_pixels, pixel_quality, quality_warning
from data.provenance import Provenance
from data.store import Dataset
from dermsynth.device import resolve
from dermsynth.options import replace
from dermsynth.symmetries import turn
from gan.evaluate import EvaluateOptions, evaluate
from gan.evaluation.gate import PoolQualityRecord, pool_quality
from gan.evaluation.records import read_evaluation
from gan.generate import GenerateOptions, generate
from gan.training_images import held_out_rows, training_rows

CPU = resolve("cpu", "fp32", cpu_auto="fp32")


@dataclass(frozen=True)
class Real:
    """A dataset with 80 training and 40 held-out images."""

    dataset: Dataset
    train: np.ndarray
    held_out: np.ndarray


@pytest.fixture(scope="module")
def real(make_dataset, tmp_path_factory):
    made = make_dataset(tmp_path_factory.mktemp("data") / "real", 160, 32, folds=3)
    return Real(made, training_rows(made, 0), held_out_rows(made, 0))


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(gan.evaluation.audit, "STEPS", 40)
    monkeypatch.setattr(gan.evaluation.audit, "REPLICATES", 100)
    monkeypatch.setattr(gan.evaluation.metrics, "PERMUTATIONS", 199)


@pytest.fixture
def judge(real, tmp_path):
    def judge(images: np.ndarray | Pool) -> PoolQualityRecord:
        pool = images
        if isinstance(images, np.ndarray):
            unknown = Provenance(kind="unknown")
            pool = write_pool(tmp_path / "judged", images, unknown, overwrite=True)
        return pool_quality(pool, real.dataset, real.train, real.held_out, CPU)

    return judge


def flat(count=80, size=32):
    """One colour, with the grain of a network that learned nothing else."""
    grain = np.random.default_rng(0).integers(0, 2, (count, size, size, 3))
    return (np.array([140, 90, 140]) + grain).astype(np.uint8)


def noisy(images, seed=0):
    """With noise of 5 grey levels."""
    noise = np.random.default_rng(seed).normal(0, 5, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


def test_new_lesions_of_the_same_kind_pass(judge, make_lesions):
    found = judge(make_lesions(80, 32, seed=9))
    assert found.quality.findings == []
    assert found.quality.not_checked == []
    assert found.quality.words == ""
    assert found.near_copies < 0.02
    assert found.audit.synthetic.low < 0.6


def test_a_flat_colour_is_collapsed_and_not_praised_for_copying_nothing(judge):
    found = judge(flat())
    assert found.quality.words == "collapsed, easily-told (warning)"
    assert found.quality.failed
    assert "100% of the images are all but one flat colour" in found.quality.findings[0].sentence
    assert found.near_copies is None
    assert "Whether they copy training images cannot be said" in found.quality.not_checked[0]


@pytest.mark.parametrize("kinds", [1, 3])
def test_images_repeated_with_noise_and_turned_are_collapsed(judge, make_lesions, kinds):
    few = make_lesions(kinds, 32, seed=9)
    repeated = np.stack([turn(few[i % kinds], i % 8) for i in range(80)])
    found = judge(noisy(repeated))
    assert found.quality.found("collapsed", "fail")
    assert "All but one and the same images" in found.quality.findings[0].sentence


def test_copies_are_said_and_no_collapse(judge, real):
    training = np.array(real.dataset.images[real.train])
    found = judge(noisy(np.stack([turn(image, i % 8) for i, image in enumerate(training)])))
    assert found.quality.found("copies", "fail")
    assert found.near_copies > 0.5
    assert not found.quality.found("collapsed")


def test_blurred_real_images_are_blurred_and_told_from_sharp_ones(judge, real, make_lesions):
    new = make_lesions(80, 32, seed=9)
    found = judge(np.stack([cv2.GaussianBlur(image, (0, 0), 1.5) for image in new]))
    assert found.quality.found("blurred", "fail")
    assert found.quality.found("easily-told", "warning")
    assert not found.quality.found("collapsed")
    assert not found.quality.found("copies")


def test_a_generator_of_two_steps_is_barely_trained(make_run, real, judge, tmp_path):
    run = make_run(tmp_path / "run", data=real.dataset.path, kimg=0.008)
    options = replace(GenerateOptions(run), count=60, out=tmp_path / "pool")
    pool = load_pool(generate(options))
    found = judge(pool)
    assert found.quality.found("barely-trained", "fail")
    (sentence,) = (f.sentence for f in found.quality.findings if f.code == "barely-trained")
    assert sentence == "Barely trained: 8 images seen (bound 1,000)."


def test_the_evaluation_says_it_everywhere_alike(real, tmp_path, capsys):
    pool = write_pool(tmp_path / "pool", flat(), Provenance(kind="unknown"))
    options = replace(
        EvaluateOptions(), pool=pool.path, data=real.dataset.path, device="cpu", precision="fp32"
    )
    result = evaluate(options)
    assert result["memorisation"] is None
    assert result["memorisation_flagged"] is None
    record = read_evaluation(pool.path)
    assert record.quality.found("collapsed", "fail")
    assert record.model_dump() == result
    printed = capsys.readouterr().out
    assert "FAIL collapsed: 100% of the images are all but one flat colour" in printed
    assert "memorisation: not defined" in printed
    assert "no copying seen" not in printed
    page = (pool.path / "evaluation" / "evaluation.html").read_text()
    assert "<strong>Collapsed.</strong> 100% of the images" in page
    assert "No copying" not in page
    assert "none seen" not in page


def test_rows_of_the_other_class_do_not_count(make_dataset, make_lesions, tmp_path):
    target = [int(i % 5 < 3) for i in range(300)]
    both = make_dataset(tmp_path / "both", 300, 32, folds=3, target=target)
    pool = write_pool(tmp_path / "pool", make_lesions(80, 32, 9), Provenance(kind="unknown"))
    train, held_out = both.rows("train", 0), both.rows("val", 0)
    found = pool_quality(pool, both, train, held_out, CPU)
    assert found.audit.synthetic.n_real == int(both.targets(held_out).sum())


def test_what_could_not_be_looked_at_is_said(judge, make_lesions, make_dataset, tmp_path):
    small = judge(make_lesions(12, 32, seed=9))
    assert "12 synthetic images, 60 are needed" in small.quality.not_checked[0]
    assert small.audit.synthetic.auc is None
    other = judge(make_lesions(70, 48, seed=9))
    assert other.audit is None
    assert "they have 48 px, real ones 32 px" in other.quality.not_checked[0]
    assert pixel_quality(compare_pixels(flat(5), flat(9), 0)).not_checked


def test_a_pool_is_warned_about_in_one_line_or_not_at_all(real, make_lesions):
    images = real.dataset.images
    assert quality_warning(make_lesions(60, 32, seed=9), images, real.train) is None
    line = quality_warning(flat(), images, real.train)
    assert line.startswith("100% of the images are all but one flat colour")
    assert "\n" not in line


@pytest.fixture(scope="module")
def phantom():
    """Real malignant, perfect and broken images of 64 px."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "cores", lambda: 1)
        config = PhantomConfig(size=64)
        return [
            sample_malignant(n, seed, quality, config)
            for n, seed, quality in ((100, 1, "oracle"), (60, 2, "oracle"), (60, 2, "broken"))
        ]


def test_the_phantoms_sampler_passes_and_its_broken_one_does_not(phantom):
    training, oracle, broken = phantom
    assert pixel_quality(compare_pixels(oracle, training, 0)).findings == []
    found = pixel_quality(compare_pixels(broken, training, 0))
    assert found.found("collapsed", "warning")
