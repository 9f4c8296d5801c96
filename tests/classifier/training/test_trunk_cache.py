import shutil

import numpy as np
import pytest
import torch

from classifier.augment import Views, draw_views, load_batch
from classifier.model.classifier import Classifier, ModelSpec
from classifier.options import AugmentationOptions
from classifier.training.trunk_cache import PLAIN, FeatureCache, ImageSet, Trunk
from data.store import load_dataset, write_dataset
from dermsynth.device import resolve


def make_trunk(cache, frozen=4, views=3, precision="fp32", batch_norm="fixed", size=32):
    torch.manual_seed(0)
    model = Classifier(ModelSpec("efficientnet-lite0", size, frozen, batch_norm)).eval()
    return Trunk(model, resolve("cpu", precision), cache, AugmentationOptions(views=views))


@pytest.fixture
def images(tiny):
    return ImageSet.stored("real", tiny)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cached_equals_computed_in_any_order(images, precision):
    cached = make_trunk(FeatureCache(1), precision=precision)
    uncached = make_trunk(FeatureCache(0), precision=precision)
    rows, views = np.array([7, 3, 90, 3, 7]), np.array([0, 2, 1, PLAIN, 0])
    assert cached.keeps(images)
    assert not uncached.keeps(images)
    first = cached.features(images, rows, views)
    assert torch.equal(first, uncached.features(images, rows, views))
    assert torch.equal(first[0], first[4])
    list(cached.fill(images, cached.missing(images, np.arange(120), np.full(120, 1))))
    assert len(cached.missing(images, rows, views)) == 0
    back = np.array([4, 3, 2, 1, 0])
    assert torch.equal(first[back], cached.features(images, rows[back], views[back]))


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("bf16", 0.03)])
def test_cached_equals_the_plain_model(images, precision, error):
    trunk = make_trunk(FeatureCache(1), precision=precision)
    rows = np.arange(6)
    with torch.no_grad():
        expected = trunk.model.trunk(load_batch(images.images[rows], 32, None))
    found = trunk.features(images, rows, np.full(6, PLAIN))
    assert found.dtype == torch.float32
    assert (found - expected).norm() < error * expected.norm()


def test_nothing_is_computed_twice(images, monkeypatch):
    cache = FeatureCache(1)
    rows, views = np.arange(10), np.zeros(10, int)
    make_trunk(cache).features(images, rows, views)
    again = make_trunk(cache)  # another seed or arm: the same weights
    monkeypatch.setattr(again, "_run", None)
    again.features(images, rows, views)
    assert len(make_trunk(cache, frozen=5).missing(images, rows, views)) == 10


def test_features_belong_to_the_images_wherever_they_lie(tiny, tmp_path):
    moved, swapped = tmp_path / "moved", tmp_path / "swapped"
    shutil.copytree(tiny.path, moved)
    images = np.asarray(tiny.images)[::-1].copy()
    write_dataset(swapped, images, tiny.table, {})
    one, same, other = (load_dataset(path) for path in (tiny.path, moved, swapped))
    cache, rows, views = FeatureCache(1), np.arange(10), np.zeros(10, int)
    make_trunk(cache).features(ImageSet.stored("real", one), rows, views)
    again = make_trunk(cache)
    assert len(again.missing(ImageSet.stored("real", same), rows, views)) == 0
    assert len(again.missing(ImageSet.stored("real", other), rows, views)) == 10


def test_old_features_make_room_but_not_those_in_use(images, other):
    external = ImageSet.stored("real", other)
    one = make_trunk(FeatureCache(1))
    size = one._store(images).nbytes
    cache = FeatureCache(1.1 * size / 2**30)
    trunk = make_trunk(cache)
    assert trunk.keeps(images)
    assert not trunk.keeps(external)
    assert make_trunk(cache).keeps(external)
    assert len(cache._stores) == 1


def test_a_trunk_that_changes_is_never_kept(images):
    for trunk in (
        make_trunk(FeatureCache(1), frozen=0),
        make_trunk(FeatureCache(1), 3, 3, "fp32", "adapt"),
    ):
        assert not trunk.keeps(images)
        found = trunk.features(images, np.arange(2), np.array([0, PLAIN]))
        assert found.requires_grad == (trunk.model.spec.frozen > 0)


def still(n):
    return Views(
        np.zeros(n, int), np.tile(np.eye(3, dtype=np.float32), (n, 1, 1)), np.ones(n, "f4")
    )


def test_eight_symmetries():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    views = still(8)
    turned = load_batch(
        np.repeat(image, 8, 0), 8, Views(np.arange(8), views.colour, views.contrast)
    )
    plain = load_batch(image, 8, None)[0]
    torch.testing.assert_close(turned[0], plain)
    assert len({t.numpy().round(4).tobytes() for t in turned}) == 8
    for each in turned:
        torch.testing.assert_close(each.sum((1, 2)), plain.sum((1, 2)))
    torch.testing.assert_close(turned[1], torch.rot90(plain, 1, (1, 2)))
    torch.testing.assert_close(turned[4], plain.flip(2))


def test_colour_changes_are_mild_and_in_range():
    images = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    views = draw_views(np.random.default_rng(1), 50)
    changed = load_batch(images, 16, Views(np.zeros(50, int), views.colour, views.contrast))
    plain = load_batch(images, 16, None)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert 0.01 < (changed - plain).abs().mean() < 0.15
    assert changed.is_contiguous(memory_format=torch.channels_last)


def test_contrast_keeps_the_mean_colour():
    image = np.random.default_rng(0).integers(100, 150, (1, 16, 16, 3), dtype=np.uint8)
    views = still(1)
    low = load_batch(image, 16, Views(views.symmetry, views.colour, np.array([0.5], "f4")))
    plain = load_batch(image, 16, None)
    torch.testing.assert_close(low.mean((2, 3)), plain.mean((2, 3)))
    torch.testing.assert_close(low.std(), plain.std() / 2, rtol=0.1, atol=0)


def test_every_size_takes_the_same_path():
    image = np.full((2, 40, 40, 3), 77, np.uint8)
    for size in (32, 40, 64):
        batch = load_batch(image, size, None)
        assert batch.shape == (2, 3, size, size)
        assert torch.all(batch == 77 / 255)
