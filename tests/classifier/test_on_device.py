"""Images, views and steps where the network computes. What a GPU alone does needs one."""

import contextlib
import json

import cv2
import numpy as np
import pytest
import torch

from classifier import tta
from classifier.augment import Views, _turn_hue, draw_views, load_batch
from classifier.options import AugmentationOptions, TrainOptions
from classifier.published_augment import PIPELINES
from classifier.train import train
from classifier.training.mixup import mix_batch
from data import on_device
from data.on_device import DeviceImages
from dermsynth import symmetries
from dermsynth.options import replace

NAMES = ("dihedral-colour", "strong-colour", *PIPELINES)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


def smooth(n, side):
    noise = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), side / 10) for image in noise])
    return np.clip(4.0 * blurred - 3 * blurred.mean(), 0, 255).astype(np.uint8)


def farthest(views, rounding):
    """A power makes much of a rounded dark pixel."""
    return 0.06 if views.gamma is not None else 0.03 if views.moves is not None else rounding


@pytest.mark.parametrize("name", NAMES)
def test_a_view_is_the_same_wherever_it_is_computed(name):
    images = smooth(12, 64)
    views = draw_views(np.random.default_rng(3), 12, name)
    here = load_batch(images, 64, views)
    there = views.apply_in_batch(torch.from_numpy(images)).permute(0, 3, 1, 2)
    # OpenCV rounds to 1/32 px and to whole grey levels where it moves an image
    assert (here - there).abs().mean() < 0.002
    assert (here - there).abs().max() < farthest(views, 1e-5)


@pytest.mark.parametrize("number", range(1, 8))
def test_a_test_view_is_the_same_wherever_it_is_computed(number):
    images = smooth(4, 64)
    views = tta._views(number, "clinics", 4, "none")
    here = load_batch(images, 64, views)
    there = views.apply_in_batch(torch.from_numpy(images)).permute(0, 3, 1, 2)
    assert (here - there).abs().max() < 0.03


def test_a_symmetry_is_three_flips():
    images = torch.from_numpy(smooth(8, 16))
    numbers = np.arange(8)
    expected = torch.stack([symmetries.turn(images[k], k) for k in numbers])
    assert torch.equal(symmetries._turn_all(images, numbers), expected)


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
    assert difference.max() < farthest(views, 1e-4)


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
    "styles": {"backbone": "vanilla-cnn", "frozen": 2, "mixstyle": 0.5, "augment": "strong-colour"},
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
        epochs = [row for row in rows if "train_loss" in row]
        losses[where] = [(row["train_loss"], row["val_loss"]) for row in epochs]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=0.02)
