import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import gan.generate
import gan.sampling
from data.pool import leak, load_pool
from dermsynth import manifest
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.options import replace
from gan.generate import GenerateOptions, generate
from gan.weights import load_generator, open_generator, read_description


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
    provenance = pool.info.provenance
    generator = open_generator(run)
    assert provenance.kind == "generator"
    assert provenance.generator == read_description(run)
    assert provenance.generator_id == generator.identity.id
    assert provenance.seed == 4
    assert pool.identity.parts["from generator"] == generator.identity.id
    assert leak(provenance, pool.path, dataset, 0) is None
    assert "fold 1" in leak(provenance, pool.path, dataset, 1)


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


def test_an_unfinished_run_is_refused_with_the_command_that_goes_on(options, broken_run):
    there = manifest.read_manifest(broken_run, "")
    manifest.begin(broken_run, there.kind, there.options, there.inputs)
    command = f"--config {broken_run}/config.yaml --out {broken_run} --resume"
    refused(replace(options, generator=broken_run), f"not finished.*{command}")


def test_a_run_of_an_earlier_version_is_refused(options, broken_run):
    (broken_run / "manifest.json").unlink()
    refused(replace(options, generator=broken_run), "no GAN run there.*earlier versions")


@pytest.mark.parametrize("name", ["generator.safetensors", "generator.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "zeroed", "deleted", "folder", "list"])
def test_a_damaged_run_is_refused(options, broken_run, name, damage):
    path = broken_run / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "deleted":
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 4
        changed = {"truncated": content[:-10], "flipped": flipped, "list": b"[]"}
        path.write_bytes(changed.get(damage, bytes(len(content))))
    refused(replace(options, generator=broken_run), "broken")


def forged(broken_run, change):
    """A run whose description is another one, sealed as if it were its own."""
    path = broken_run / "generator.json"
    description = json.loads(path.read_text())
    change(description["architecture"])
    path.write_text(json.dumps(description))
    manifest.seal(broken_run, "generator", {})
    return broken_run


def test_an_unknown_architecture_is_refused(options, broken_run):
    run = forged(broken_run, lambda architecture: architecture.update(name="x"))
    refused(replace(options, generator=run), "architecture 'x' is not known.*another version")


def test_weights_of_another_width_are_refused(options, broken_run):
    run = forged(broken_run, lambda architecture: architecture["config"].update(ngf=8))
    refused(replace(options, generator=run), "does not fit the architecture")


def test_a_hyperparameter_of_another_type_is_refused(options, broken_run):
    run = forged(broken_run, lambda architecture: architecture["config"].update(ngf="8"))
    refused(replace(options, generator=run), r"generator.json: architecture.config.ngf")


def test_a_pool_that_does_not_fit_on_the_disk_is_refused_beforehand(options, monkeypatch):
    monkeypatch.setattr(gan.generate, "free_space", lambda path: 5 * 2**20)
    refused(replace(options, count=2_500_000), r"--count 2500000: takes 7,760,000,000 bytes.*5,2")
    refused(replace(options, count=1000, png=True), "--count 1000")
    assert len(load_pool(generate(replace(options, count=20))).images) == 20


def test_never_more_than_a_few_batches_are_in_memory(run, monkeypatch):
    made = []
    render = gan.sampling.render
    monkeypatch.setattr(gan.sampling, "render", lambda *args: made.append(1) or render(*args))
    network, _ = load_generator(run)
    batches = gan.sampling.sample_batches(network, 10_000, 0, Compute(torch.device("cpu"), "fp32"))
    for _ in range(3):
        next(batches)
    batches.close()
    assert len(made) < 10


def test_a_count_of_none_is_refused(options):
    refused(replace(options, count=0), "--count 0")
