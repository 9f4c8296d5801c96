"""Images, views and steps where the network computes. What a GPU alone does needs one."""

import contextlib
import json
import random

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from classifier.augment import Views, _turn_hue, draw_views, load_batch
from classifier.options import AugmentationOptions, TrainOptions
from classifier.published_augment import B3, PIPELINES
from classifier.train import train
from classifier.training.mixup import mix_batch
from data import on_device
from data.on_device import DeviceImages
from dermsynth import symmetries
from dermsynth.options import replace

NAMES = ("dihedral-colour", *PIPELINES)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


def smooth(n, side):
    noise = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), side / 10) for image in noise])
    return np.clip(4.0 * blurred - 3 * blurred.mean(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_a_view_is_the_same_wherever_it_is_computed(name):
    images = smooth(12, 64)
    views = draw_views(np.random.default_rng(3), 12, name)
    here = load_batch(images, 64, views)
    there = views.apply_in_batch(torch.from_numpy(images)).permute(0, 3, 1, 2)
    # OpenCV rounds to 1/32 px and to whole grey levels where it moves an image
    assert (here - there).abs().mean() < 0.002
    assert (here - there).abs().max() < (0.03 if views.moves is not None else 1e-5)


def test_a_symmetry_is_three_flips():
    images = torch.from_numpy(smooth(8, 16))
    numbers = np.arange(8)
    expected = torch.stack([symmetries.turn(images[k], k) for k in numbers])
    assert torch.equal(symmetries._turn_all(images, numbers), expected)


def moved(turns, most):
    limits = {
        "scale": (1 - most.zoom, 1 + most.zoom),
        "translate_percent": (-most.shift, most.shift),
        "shear": {axis: (-far, far) for axis, far in zip("xy", most.shear, strict=True)},
        "border_mode": cv2.BORDER_REPLICATE,
        "p": 1.0,
    }
    return A.OneOf([A.Affine(rotate=(-angle, angle), **limits) for angle in turns], p=1.0)


FLIPS = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
TURN = A.Rotate((-180, 180), border_mode=cv2.BORDER_REFLECT_101, p=1.0)
REFERENCES = {
    "rotate": [TURN],
    "student": [*FLIPS, TURN, A.RandomBrightnessContrast(0.2, 0.2, p=0.5)],
    "siim-b3": [
        *FLIPS,
        A.ColorJitter((1.0, 1.0), (0.8, 1.2), (0.7, 1.3), (-0.01, 0.01), p=1.0),
        A.RandomBrightnessContrast(0.1, 0.0, brightness_by_max=True, p=1.0),
        moved((26, 180), B3),
    ],
}


@pytest.mark.parametrize("name", REFERENCES)
def test_views_are_distributed_as_those_of_albumentations(name):
    """Means, deviations and quantiles over many views of one image that nothing leaves as it is."""
    side, n = 24, 1500
    across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    image = np.stack([0.3 + 0.5 * across, 0.2 + 0.5 * down, 0.6 - 0.3 * across * down], -1)
    image[6:10, 4:15] = (0.8, 0.2, 0.3)
    image = (255 * image).astype(np.uint8)
    theirs = np.empty((n, side, side, 3))
    pipeline = A.Compose(REFERENCES[name])
    for seed in range(n):
        # not by Compose's own seed: that gives every step the same dice
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        theirs[seed] = pipeline(image=image)["image"] / 255
    views = draw_views(np.random.default_rng(0), n, name)
    ours = load_batch(np.repeat(image[None], n, 0), side, views).permute(0, 2, 3, 1).numpy()
    # albumentations cuts off to whole grey levels after each of its steps: about half a level each
    assert theirs.mean((0, 1, 2)) == pytest.approx(ours.mean((0, 1, 2)), abs=0.012)
    assert np.abs(theirs.mean(0) - ours.mean(0)).mean() < 0.015
    assert theirs.std(0).mean() == pytest.approx(ours.std(0).mean(), rel=0.04)
    edges = [np.abs(np.diff(each, axis=1)).mean() for each in (theirs, ours)]
    assert edges[0] == pytest.approx(edges[1], rel=0.06)
    means = [np.quantile(each.mean((1, 2)), np.linspace(0.05, 0.95, 7)) for each in (theirs, ours)]
    np.testing.assert_allclose(*means, atol=0.025)


def test_an_opencv_hue_is_that_of_the_formula():
    pixels = torch.rand(40, 8, 3, generator=torch.Generator().manual_seed(0))
    for by in (-0.4, 0.01, 0.3):
        hsv = cv2.cvtColor(pixels.numpy(), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + 360 * by) % 360
        expected = torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
        torch.testing.assert_close(_turn_hue(pixels, torch.tensor(by)), expected, atol=1e-4, rtol=0)


def test_views_of_several_tables_are_joined_in_order():
    rng = np.random.default_rng(0)
    tables = [draw_views(rng, 5, "siim") for _ in range(2)]
    joined = Views.joined([table.take(np.array([4, 1])) for table in tables])
    images = smooth(2, 16)
    apart = [load_batch(images, 16, table.take(np.array([4, 1]))) for table in tables]
    assert torch.equal(load_batch(np.tile(images, (2, 1, 1, 1)), 16, joined), torch.cat(apart))


def test_images_of_several_stores_are_numbered_through():
    first, second = smooth(5, 16), smooth(4, 32)
    images = DeviceImages([first, second], 16, torch.device("cpu"))
    taken = images.take(np.array([6, 0, 4, 8]))
    small = on_device.resized(second, 16)
    expected = np.stack([small[1], first[0], first[4], small[3]])
    np.testing.assert_array_equal(taken.numpy(), expected)


# --- on a GPU


@gpu
@pytest.mark.parametrize("name", NAMES)
def test_views_of_a_gpu(name):
    images = smooth(12, 64)
    views = draw_views(np.random.default_rng(3), 12, name)
    there = load_batch(torch.from_numpy(images).cuda(), 64, views).cpu()
    difference = (load_batch(images, 64, views) - there).abs()
    assert difference.mean() < 0.002
    assert difference.max() < (0.03 if views.moves is not None else 1e-4)


@gpu
def test_a_store_larger_than_the_device_is_read_ahead(monkeypatch, capsys):
    images, rows = smooth(40, 16), np.array([3, 39, 0])
    held = DeviceImages([images], 16, torch.device("cuda"))
    monkeypatch.setattr(on_device, "free_bytes", lambda _: 10 * 16 * 16 * 3)
    streamed = DeviceImages([images], 16, torch.device("cuda"))
    assert "40 images of 16 px" in (said := capsys.readouterr().out)
    assert "5 of them would fit" in said
    for _ in range(3):
        assert torch.equal(held.take(rows), streamed.take(rows))
        rows = (rows + 7) % 40
        streamed.expect(lambda now=rows: now)


@gpu
def test_mixing_does_not_wait(sync_is_an_error):
    x, targets = torch.rand(8, 3, 16, 16).cuda(), torch.eye(8).cuda()
    with sync_is_an_error():
        mixed, soft = mix_batch(
            x, targets, np.random.default_rng(0), AugmentationOptions(cutmix=1.0)
        )
    here = mix_batch(
        x.cpu(), targets.cpu(), np.random.default_rng(0), AugmentationOptions(cutmix=1.0)
    )
    torch.testing.assert_close((mixed.cpu(), soft.cpu()), here)


@pytest.fixture
def sync_is_an_error():
    """A context in which to wait for the GPU raises RuntimeError."""

    @contextlib.contextmanager
    def context():
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return context


SMALL = {"batch": 16, "size": 32, "weights": "none", "dropout": 0.0, "precision": "fp32"}
KINDS = {
    "scratch": {"backbone": "vanilla-cnn", "frozen": 0},
    "kept": {"backbone": "vanilla-cnn", "frozen": 2},
    "averaged": {"backbone": "vanilla-cnn", "frozen": 0, "ema": 0.9, "augment": "siim"},
    "parts": {"backbone": "vanilla-cnn", "frozen": 0, "accumulate": 2, "clip": 1.0},
    "mixed": {"backbone": "vanilla-cnn", "frozen": 2, "cutmix": 0.5, "mixup": 0.2},
}


@gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_on_a_gpu_is_that_on_a_cpu(kind, tiny, tmp_path, monkeypatch):
    """Recorded steps from the fourth on: the losses of two epochs, and the scores."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    losses = {}
    for where in ("cpu", "cuda"):
        options = replace(
            TrainOptions(),
            **{**SMALL, **KINDS[kind], "epochs": 3, "data": tiny.path, "fold": 0},
            **{"device": where, "out": tmp_path / where, "tracking": "none"},
        )
        train(options)
        rows = map(json.loads, (tmp_path / where / "metrics.jsonl").read_text().splitlines())
        losses[where] = [(row["train_loss"], row["val_loss"]) for row in rows]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=0.02)
