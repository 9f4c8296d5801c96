import json
import shutil

import numpy as np
import pytest
from PIL import Image

import gan.sampling
from data.pool import leak, load_pool
from dermsynth.errors import UserError
from dermsynth.files import sha256
from dermsynth.options import replace
from gan.generate import GenerateOptions, generate


@pytest.fixture
def options(run, tmp_path):
    return replace(
        GenerateOptions(run), count=10, out=tmp_path / "pool", device="cpu", precision="fp32"
    )


@pytest.fixture
def broken_run(run, tmp_path):
    return shutil.copytree(run, tmp_path / "broken")


def images(options):
    return np.array(load_pool(generate(options)).images)


def test_the_same_call_gives_the_same_pool(options, tmp_path):
    first = images(options)
    assert first.shape == (10, 32, 32, 3)
    assert (images(replace(options, out=tmp_path / "again")) == first).all()
    assert (images(replace(options, out=tmp_path / "s", seed=1)) != first).any()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_larger_count_only_adds_images(options, tmp_path, precision):
    options = replace(options, precision=precision)
    few = images(options)
    many = images(replace(options, count=70, out=tmp_path / "many"))
    assert (many[:10] == few).all()
    assert len({image.tobytes() for image in many}) == 70


def test_another_batch_size_changes_no_more_than_rounding(options, tmp_path, monkeypatch):
    first = images(options).astype(int)
    monkeypatch.setattr(gan.sampling, "BATCH", 3)
    second = images(replace(options, out=tmp_path / "again")).astype(int)
    assert np.abs(first - second).max() <= 1


def test_the_pool_carries_its_whole_provenance(options, run, dataset):
    pool = load_pool(generate(replace(options, seed=4)))
    provenance = pool.info["provenance"]
    assert provenance["kind"] == "generator"
    assert provenance["generator"] == json.loads((run / "generator.json").read_text())
    assert provenance["sha256"] == sha256(run / "generator.safetensors")
    assert provenance["seed"] == 4
    assert leak(pool, dataset, 0) is None
    assert "fold 1" in leak(pool, dataset, 1)


def test_png_files_hold_the_same_pixels(options):
    out = generate(replace(options, png=True))
    files = sorted((out / "png").iterdir())
    assert len(files) == 10
    assert (np.asarray(Image.open(files[3])) == load_pool(out).images[3]).all()


def test_an_existing_pool_is_kept_unless_overwrite(options):
    before = images(options)
    with pytest.raises(UserError, match="--overwrite"):
        generate(replace(options, seed=1))
    assert (load_pool(options.output.out).images == before).all()
    assert (images(replace(options, seed=1, overwrite=True)) != before).any()


def refused(options, message):
    with pytest.raises(UserError, match=message):
        generate(options)
    assert not options.output.out.exists()


def test_a_missing_run_is_refused(options, tmp_path):
    refused(replace(options, generator=tmp_path / "no"), "no GAN run there")


def test_an_unfinished_run_is_refused(options, broken_run):
    (broken_run / "generator.json").unlink()
    refused(replace(options, generator=broken_run), "not finished.*--resume")


def test_truncated_weights_are_refused(options, broken_run):
    path = broken_run / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    refused(replace(options, generator=broken_run), "missing or damaged")


def test_an_unknown_architecture_is_refused(options, broken_run):
    path = broken_run / "generator.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps(description | {"architecture": {"name": "x", "config": {}}}))
    refused(replace(options, generator=broken_run), "another version")


def test_weights_of_another_width_are_refused(options, broken_run):
    path = broken_run / "generator.json"
    description = json.loads(path.read_text())
    description["architecture"]["config"]["ngf"] = 8
    path.write_text(json.dumps(description))
    refused(replace(options, generator=broken_run), "does not fit the architecture")


def test_a_description_that_is_not_one_is_refused(options, broken_run):
    (broken_run / "generator.json").write_text("{")
    refused(replace(options, generator=broken_run), "not JSON")
    (broken_run / "generator.json").write_text("[]")
    refused(replace(options, generator=broken_run), "not a generator's description")


def test_a_count_of_none_is_refused(options):
    refused(replace(options, count=0), "--count 0")
