import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from data.pool import write_pool
from gan.augment import symmetry
from gan.evaluate import EvaluateOptions, evaluate
from gan.train import training_rows
from runtime.errors import UserError

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
        pool = write_pool(tmp_path / "pool", images, {"kind": "unknown"}, overwrite=True)
        options = EvaluateOptions(pool=pool.path, data=blobs.path, device="cpu", precision="fp32")
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
    gallery = np.asarray(Image.open(tmp_path / "pool" / "memorisation.png"))
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
    assert result["evaluation_network"] == "efficientnet-lite0-imagenet"
    assert json.loads((tmp_path / "pool" / "evaluation.json").read_text()) == result


def test_noise_scores_far_worse_than_real_images(score):
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    result = score(noise)
    assert result["kid"] > result["kid_floor"] + 5 * result["kid_std"]
    assert result["coverage"] < 0.5 * result["floor"]["coverage"]


def test_a_run_is_scored_on_its_own_dataset_and_fold(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    options = EvaluateOptions(generator=copy, count=12, device="cpu", precision="fp32")
    result = evaluate(options)
    assert result["fold"] == 0
    assert result["n_synthetic"] == 12
    assert (copy / "evaluation.json").exists()
    assert evaluate(options) == result


def test_bad_input_is_refused(run, blobs, dataset, make_dataset, tmp_path):
    base = EvaluateOptions(generator=run, device="cpu")

    def refused(message, **change):
        with pytest.raises(UserError, match=message):
            evaluate(dataclasses.replace(base, **change))

    refused("one of --generator RUN and --pool POOL", generator=None)
    refused("one of --generator RUN and --pool POOL", pool=tmp_path)
    refused("no synthetic pool there", generator=None, pool=tmp_path)
    refused("no GAN run there", generator=tmp_path)
    refused("no prepared dataset", data=tmp_path)
    refused("--count 3", count=3)
    refused("--fold 9", fold=9)
    refused("was trained on 12 images that fold 1", fold=1)
    large = make_dataset(tmp_path / "large", 60, 64)
    pool = write_pool(tmp_path / "pool", np.array(dataset.images[:12]), {"kind": "unknown"})
    refused("32 px against real ones of 64", generator=None, pool=pool.path, data=large.path)
    target = [int(i % 5 != 1) for i in range(60)]
    benign = make_dataset(tmp_path / "benign", 60, 32, target=target)
    refused("0 malignant images in the validation part", pool=pool.path, generator=None,
            data=benign.path)  # fmt: skip
    assert not (run / "evaluation.json").exists()
