"""A tiny dataset of blobs on skin, and options for runs of seconds."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import gan.training_run
from data.store import COLUMNS, write_dataset
from dermsynth.options import replace
from gan.networks import make_config
from gan.train import TrainOptions, train

NARROW = {
    "lesiongan": {"ngf": 4, "ndf": 4},
    "sngan": {"width": 32},
    "dcgan": {"width": 4},
    "wgan-gp": {"width": 32},
    "acgan": {"width": 4},
    "fastgan": {"ngf": 8, "ndf": 8, "z_dim": 32},
    "stylegan2": {"channel_base": 256, "channel_max": 16, "z_dim": 32},
    "projected": {"ngf": 4, "mix": 8, "z_dim": 32},
}


def lesions(count: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, size, size, 3]: a dark ellipse on pink, no two alike."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-1, 1, size)
    images = []
    for _ in range(count):
        x, y = axis[None] - rng.uniform(-0.3, 0.3), axis[:, None] - rng.uniform(-0.3, 0.3)
        wide, high = rng.uniform(0.25, 0.8, 2)
        inside = 1 / (1 + np.exp(12 * ((x / wide) ** 2 + (y / high) ** 2 - 1)))
        skin, pigment = rng.uniform([180, 130, 110], [240, 190, 180]), rng.uniform(20, 110, 3)
        image = skin + inside[..., None] * (pigment - skin) + rng.normal(0, 4, (size, size, 3))
        images.append(image.clip(0, 255).astype(np.uint8))
    return np.stack(images)


def write_lesions(out, count=60, size=32, folds=4, target=None, seed=0, diagnosis=None):
    """A dataset of `lesions`, one a group, in turn to the test part and `folds` folds."""
    table = pd.DataFrame({name: [None] * count for name in COLUMNS})
    table["image_id"] = [f"img{i:04d}" for i in range(count)]
    table["group"] = [f"g{i:04d}" for i in range(count)]
    table["target"] = 1 if target is None else target
    table["diagnosis"] = diagnosis
    table["fold"] = [i % (folds + 1) - 1 for i in range(count)]
    return write_dataset(out, lesions(count, size, seed), table, {})


@pytest.fixture(scope="session")
def make_dataset():
    return write_lesions


@pytest.fixture(scope="session")
def make_lesions():
    return lesions


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    return write_lesions(tmp_path_factory.mktemp("data") / "blobs")


def narrow_config(name, size):
    return dataclasses.replace(make_config(name, size), **NARROW.get(name, {}))


@pytest.fixture(scope="session")
def narrow():
    """The config of an architecture, by name and size, with few channels."""
    return narrow_config


@pytest.fixture
def options(dataset, tmp_path, monkeypatch):
    """A run of 6 steps of narrow networks."""
    monkeypatch.setattr(gan.training_run, "make_config", narrow_config)
    return replace(
        TrainOptions(),
        data=dataset.path,
        kimg=0.024,
        batch=4,
        device="cpu",
        precision="fp32",
        tracking="none",
        evaluations=0,
        out=tmp_path / "run",
    )


@pytest.fixture(scope="session")
def make_run():
    """Train 6 steps of narrow networks into a folder, with any options."""

    def make(out, **changes):
        options = replace(
            TrainOptions(), kimg=0.024, batch=4, device="cpu", tracking="none", precision="fp32"
        )
        options = replace(options, evaluations=0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gan.training_run, "make_config", narrow_config)
            return train(replace(options, out=out, **changes))

    return make


@pytest.fixture(scope="session")
def run(dataset, tmp_path_factory, make_run):
    """A finished run; tests must not change it."""
    return make_run(tmp_path_factory.mktemp("runs") / "blobs", data=dataset.path)
