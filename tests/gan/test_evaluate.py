import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gan.evaluation.diagnosis_network
from data.pool import write_pool
from data.provenance import Provenance
from dermsynth.device import resolve
from dermsynth.errors import UserError
from dermsynth.options import ComputeOptions, replace
from dermsynth.symmetries import turn as symmetry
from dermsynth.verify import verify
from gan.evaluate import EvaluateOptions, evaluate
from gan.evaluation import records
from gan.evaluation.records import open_evaluation, read_evaluation
from gan.evaluation.subject import open_source, open_subject
from gan.networks import ARCHITECTURES
from gan.training_images import training_rows

UNKNOWN = Provenance(kind="unknown")
BENIGN = Provenance(kind="declared", statement="drawn", label="benign")
CPU = resolve("cpu", "fp32")
CONTRACT = {
    *("kid", "kid_std", "kid_floor", "precision", "recall", "density", "coverage"),
    *("memorisation", "evaluation_network", "n_real", "n_synthetic"),
}


@pytest.fixture(scope="module")
def blobs(make_dataset, tmp_path_factory):
    """Enough images for distances to mean something: 48 training, 24 held out, 24 test."""
    return make_dataset(tmp_path_factory.mktemp("data") / "many", 96, 32, folds=3)


@pytest.fixture
def score(blobs, tmp_path):
    def score(images):
        pool = write_pool(tmp_path / "pool", images, UNKNOWN, overwrite=True)
        options = replace(
            EvaluateOptions(), pool=pool.path, data=blobs.path, device="cpu", precision="fp32"
        )
        return evaluate(options)

    return score


def test_a_copying_generator_is_flagged_even_when_it_flips(score, blobs, tmp_path):
    training = blobs.images[training_rows(blobs, 0)]
    copies = np.stack([symmetry(image, i % 8) for i, image in enumerate(training)])
    result = score(copies)
    assert result["memorisation_flagged"]
    assert result["memorisation"] < 0.3
    for part in result["memorisation_in"].values():
        assert part["flagged"]
    gallery = np.asarray(Image.open(tmp_path / "pool" / "evaluation" / "memorisation.png"))
    assert gallery.shape == (3 * 32, 10 * 32, 3)
    shown, nearest = gallery[:32, :32], gallery[32:64, :32]
    assert any((symmetry(nearest, number) == shown).all() for number in range(8))


def test_new_lesions_of_the_same_kind_pass(score, make_lesions, tmp_path):
    result = score(make_lesions(60, 32, seed=9))
    assert not result["memorisation_flagged"]
    assert 0.7 < result["memorisation"] < 1.4
    assert abs(result["kid"] - result["kid_floor"]) < 4 * (
        result["kid_std"] + result["kid_floor_std"]
    )
    assert set(result) >= CONTRACT
    assert result["n_real"] == 24
    assert result["n_synthetic"] == 48
    assert result["evaluation_network"] == "efficientnet-lite0-imagenet"  # nothing to tell apart
    assert result["kid_other"] is None
    assert result["fid"] is None
    assert json.loads((tmp_path / "pool" / "evaluation" / "evaluation.json").read_text()) == result


@pytest.mark.slow
def test_pairs_of_copies_are_perfect_and_of_new_lesions_as_real_ones_are(
    score, blobs, make_lesions
):
    training = blobs.images[training_rows(blobs, 0)]
    copied = score(np.stack([symmetry(image, i % 8) for i, image in enumerate(training)]))["pairs"]
    assert copied["synthetic_to_training"]["psnr"] == pytest.approx(80)
    assert copied["synthetic_to_training"]["ssim"] == pytest.approx(1)
    new = score(make_lesions(60, 32, seed=9))["pairs"]
    assert new["synthetic_to_training"]["n"] == 60
    assert new["held_out_to_training"]["n"] == 24
    for name in ("psnr", "ssim", "haarpsi"):
        real = new["held_out_to_training"][name]
        assert new["synthetic_to_training"][name] == pytest.approx(real, rel=0.1)


def test_the_page_says_what_is_wrong_and_loads_nothing(score, blobs, tmp_path):
    framed = np.array(blobs.images[training_rows(blobs, 0)])
    framed[:, :5] = framed[:, -5:] = 0
    result = score(framed)
    assert result["drift"]["frame"]["verdict"] == "more"
    page = (tmp_path / "pool" / "evaluation" / "evaluation.html").read_text()
    assert "Black frames are amplified (100% of images have any; training images 0%)" in page
    assert "Origin unknown" in page
    assert "licence" in page
    sources = re.findall(r"<(?:img|script|link|iframe)[^>]*?(?:src|href)=\"([^\"]*)", page)
    assert len(sources) == 3  # synthetic, real, closest
    assert all(source.startswith("data:image/") for source in sources)
    assert page.count("<svg") == 4  # spectrum, histograms, both also narrow
    assert not re.search(r"url\((?!#)", page)
    assert page.count("text/csv") == page.count("<table") == 7
    # scores, fine detail, copies, membership, drift, pairs, skin


@pytest.mark.slow
def test_the_default_network_learned_the_datasets_diagnoses(make_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(gan.evaluation.diagnosis_network, "LEAST_STEPS", 5)
    monkeypatch.setattr(gan.evaluation.diagnosis_network, "EPOCHS", 1)
    target = [int(i % 5 < 3) for i in range(96)]
    both = make_dataset(tmp_path / "both", 96, 32, folds=3, target=target)
    pool = write_pool(tmp_path / "pool", np.array(both.images[:30]), UNKNOWN)
    options = replace(
        EvaluateOptions(), pool=pool.path, data=both.path, device="cpu", precision="fp32"
    )
    by_imagenet = evaluate(replace(options, network="imagenet"))
    assert by_imagenet["evaluation_network_other"] is None  # it is not there, and not asked for
    result = evaluate(options)
    assert result["evaluation_network"].startswith("diagnosis-resnet18-")
    assert result["evaluation_network_other"] == "efficientnet-lite0-imagenet"
    assert result["kid_other"] == by_imagenet["kid"]
    assert result["kid_other_floor"] == by_imagenet["kid_floor"]
    assert result["memorisation_in"] == by_imagenet["memorisation_in"]
    assert result["diagnosis_network"]["classes"] == ["benign", "malignant"]
    again = evaluate(replace(options, network="imagenet"))
    assert again["kid_other"] == result["kid"]


@pytest.mark.slow
def test_a_discriminator_that_saw_akin_features_is_no_independent_judge(
    run, tmp_path, monkeypatch, capsys
):
    copy = shutil.copytree(run, tmp_path / "run")
    options = replace(EvaluateOptions(), generator=copy, count=12, device="cpu", precision="fp32")
    assert evaluate(options)["independent"] is False
    assert "choose --network diagnosis" in capsys.readouterr().out
    assert "Not independent" in (copy / "evaluation" / "evaluation.html").read_text()
    monkeypatch.setattr(ARCHITECTURES["lesiongan"].discriminator, "sees", "")
    assert evaluate(options)["independent"] is True


def test_noise_scores_far_worse_than_real_images(score):
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    result = score(noise)
    assert result["kid"] > result["kid_floor"] + 5 * result["kid_std"]
    assert result["coverage"] < 0.5 * result["floor"]["coverage"]


def test_a_run_is_scored_on_its_own_dataset_and_fold(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    options = replace(EvaluateOptions(), generator=copy, count=12, device="cpu", precision="fp32")
    result = evaluate(options)
    assert result["fold"] == 0
    assert result["n_synthetic"] == 12
    assert (copy / "evaluation" / "evaluation.json").exists()
    page = (copy / "evaluation" / "evaluation.html").read_text()
    assert "images of the training part of fold 0 of blobs, malignant only" in page
    assert 'alt="interpolation"' in page
    assert evaluate(options) == result


@pytest.mark.parametrize(("provenance", "target"), [(UNKNOWN, 1), (BENIGN, 0)])
def test_a_pool_is_compared_with_real_images_of_its_own_target(
    provenance, target, make_dataset, tmp_path
):
    targets = [int(i // 6 % 2) for i in range(96)]
    dataset = make_dataset(tmp_path / "both", 96, 32, target=targets, folds=3)
    pool = write_pool(tmp_path / "pool", np.array(dataset.images[:12]), provenance)
    options = replace(EvaluateOptions(), pool=pool.path, data=dataset.path)
    subject = open_subject(options, open_source(options), CPU)
    assert subject.meant == dataset.info.target.words[target]
    for part, images in (("train", subject.images.training), ("val", subject.images.held_out)):
        rows = dataset.rows(part, 0)
        assert (images == dataset.images[rows[dataset.targets(rows) == target]]).all()


def test_bad_input_is_refused(run, blobs, dataset, make_dataset, tmp_path):
    base = replace(EvaluateOptions(), generator=run, device="cpu")

    def refused(message, **change):
        with pytest.raises(UserError, match=message):
            evaluate(replace(base, **change))

    refused("one of --generator RUN and --pool POOL", generator=None)
    refused("one of --generator RUN and --pool POOL", pool=tmp_path)
    refused("no synthetic pool there", generator=None, pool=tmp_path)
    refused("no GAN run there", generator=tmp_path)
    refused("no prepared dataset", data=tmp_path)
    refused("--count 3", count=3)
    refused("--fold 9", fold=9)
    refused("was trained on 12 images that fold 1", fold=1)
    large = make_dataset(tmp_path / "large", 60, 64)
    pool = write_pool(tmp_path / "pool", np.array(dataset.images[:12]), UNKNOWN)
    refused("32 px against real ones of 64", generator=None, pool=pool.path, data=large.path)
    target = [int(i % 5 != 1) for i in range(60)]
    benign = make_dataset(tmp_path / "benign", 60, 32, target=target)
    refused("0 malignant images in the validation part", pool=pool.path, generator=None,
            data=benign.path)  # fmt: skip
    naevi = Provenance(kind="declared", statement="drawn", label="nv")
    pool = write_pool(tmp_path / "naevi", np.array(dataset.images[:12]), naevi)
    refused("its images are nv", generator=None, pool=pool.path, data=dataset.path)
    pool = write_pool(tmp_path / "benign-pool", np.array(dataset.images[:12]), BENIGN)
    refused("--label malignant: the images of .* are benign", generator=None, pool=pool.path,
            data=dataset.path, label="malignant")  # fmt: skip
    refused("--label benign: this generator makes malignant images only", label="benign")
    assert not (run / "evaluation").exists()


@pytest.mark.slow
def test_an_evaluation_is_sealed_replaced_and_known_by_its_subject(score, make_lesions, tmp_path):
    pool = tmp_path / "pool"
    first = score(make_lesions(60, 32, seed=9))
    assert read_evaluation(pool).model_dump() == first
    sealed = open_evaluation(pool)
    assert set(sealed.manifest.inputs) == {"subject", "dataset"}
    assert {records.HEADER, records.PAGE, records.CLOSEST} == set(sealed.manifest.files)
    assert not [check for check in verify(pool) if check.faults]
    options = EvaluateOptions(
        pool=pool, data=Path(first["dataset"]), seed=1, compute=ComputeOptions("cpu", "fp32")
    )
    again = evaluate(options)
    assert again["seed"] == 1
    assert read_evaluation(pool).seed == 1
    kept = shutil.copytree(pool / "evaluation", tmp_path / "kept")
    write_pool(pool, make_lesions(60, 32, seed=8), UNKNOWN, overwrite=True)
    with pytest.raises(UserError, match="not evaluated"):
        read_evaluation(pool)
    shutil.copytree(kept, pool / "evaluation")
    with pytest.raises(UserError, match="is of another pool; evaluate again"):
        read_evaluation(pool)


@pytest.mark.slow
def test_a_moved_dataset_is_found_by_data_and_another_is_refused(make_run, make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "mine")
    run = make_run(tmp_path / "run", data=dataset.path)
    options = replace(EvaluateOptions(), generator=run, count=12, device="cpu", precision="fp32")
    first = evaluate(options)
    moved = dataset.path.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"its dataset is not at .*mine any more; give --data"):
        evaluate(options)
    assert read_evaluation(run).kid == first["kid"]  # what was there stays
    second = evaluate(replace(options, data=moved))
    assert {**second, "dataset": ""} == {**first, "dataset": ""}
    other = make_dataset(dataset.path, seed=5)  # the same table, other images
    with pytest.raises(UserError, match=r"\(dataset: other images\); give --data"):
        evaluate(options)
    with pytest.raises(UserError, match="other images"):
        evaluate(replace(options, data=other.path))
