"""Training steps by way of XLA: the CPU's results, few compilations, nothing read back."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

import classifier.training.loop
from classifier.train import TrainOptions, train
from data.prepare import PrepareOptions, prepare
from data.store import load_dataset
from dermsynth.device import Compute
from dermsynth.options import replace
from gan.evaluation import diagnosis_network
from gan.networks import make_config
from gan.trainer import Trainer

STEPS = 6
CPU = Compute(torch.device("cpu"), "fp32")
NARROW = {"lesiongan": {"ngf": 4, "ndf": 4}, "dcgan": {"width": 8}}

pytestmark = pytest.mark.slow


def _play(
    arch: str, compute: Compute, counted: Callable | None = None, **settings
) -> tuple[list[dict[str, float]], list, torch.Tensor]:
    """Means of the first step and of two more, counts of each step, and the average's images."""
    config = dataclasses.replace(make_config(arch, 32), batch=4, **NARROW[arch], **settings)
    trainer, rows, seen = Trainer(arch, config, 0, compute), [], []
    rng = np.random.default_rng(0)
    trainer.begin_from(rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    for step in range(1, STEPS + 1):
        real = torch.from_numpy(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
        if counted is not None:
            seen.append(counted(lambda real=real: trainer.step(real)))
        else:
            trainer.step(real)
        if step in (1, 3):
            rows.append(trainer.take_means(1 if step == 1 else 2))
    z = torch.from_numpy(rng.standard_normal((4, trainer.ema.latent_dim), np.float32))
    with torch.no_grad():
        images = trainer.ema(z.to(compute.device)).cpu()
    return rows, seen, images


@pytest.mark.parametrize("arch", ["lesiongan", "dcgan"])
def test_steps_of_a_generator(arch, xla, counted, same_draws):
    here, _, drawn_here = _play(arch, CPU)
    there, seen, drawn_there = _play(arch, xla, counted)
    assert there[0] == pytest.approx(here[0], rel=1e-3, abs=1e-4)
    assert there[1] == pytest.approx(here[1], rel=0.05, abs=0.02)
    assert (drawn_here - drawn_there).abs().mean() < 0.01
    # that a row was written makes no difference
    assert [each.compilations for each in seen] == [1, 0, 0, 0, 0, 0]
    assert [(each.to_host, each.on_host) for each in seen] == [(0, [])] * STEPS


def test_steps_with_adaptive_augmentation(xla, counted):
    _, seen, _ = _play("dcgan", xla, counted, augment="ada")
    # every fourth step moves ADA's p as well
    assert [each.compilations for each in seen] == [1, 0, 0, 1, 0, 0]
    assert [(each.to_host, each.on_host) for each in seen] == [(0, [])] * STEPS


def test_a_step_depends_on_its_seed_alone(xla):
    """Whatever was drawn before it: a resumed run is an unbroken one."""
    first, again = _play("dcgan", xla), _play("dcgan", xla)
    assert again[0] == first[0]
    torch.testing.assert_close(again[2], first[2], rtol=0, atol=0)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "phantom"
    return prepare(replace(PrepareOptions(), patients=60, size=64, out=out)).path


@pytest.mark.parametrize(
    ("backbone", "augment"), [("vanilla-cnn", "siim"), ("efficientnet-lite0", "dihedral-colour")]
)
def test_a_training_of_a_classifier(
    backbone, augment, phantom, xla, counted, same_draws, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(classifier.training.loop, "SMOKE_STEPS", STEPS)
    step = classifier.training.loop.Loop.step

    def watched(self, number: int) -> None:
        if self.compute.device.type == "xla":
            seen.append(counted(lambda: step(self, number)))
        else:
            step(self, number)

    monkeypatch.setattr(classifier.training.loop.Loop, "step", watched)
    scores = []
    for place in ("cpu", "xla"):
        options = replace(
            TrainOptions(),
            **{"data": phantom, "backbone": backbone, "augment": augment},
            **{"smoke": True, "dropout": 0.0},
            **{"device": place, "precision": "fp32", "tracking": "none", "out": tmp_path / place},
        )
        train(options)
        scores.append(pd.read_parquet(tmp_path / place / "predictions.parquet")["score"])
    np.testing.assert_allclose(*scores, atol=0.02)
    assert [each.compilations for each in seen] == [1, 0, 0, 0, 0, 0]
    assert [(each.to_host, each.on_host) for each in seen] == [(0, [])] * STEPS


def test_epochs_compile_nothing_anew(phantom, xla, counted, tmp_path):
    """With an average of the weights, which validation exchanges for the model's own."""

    def training(epochs: int) -> None:
        options = replace(
            TrainOptions(),
            **{"data": phantom, "backbone": "vanilla-cnn", "weights": "none", "size": 32},
            **{
                "batch": 16,
                "epochs": epochs,
                "patience": 0,
                "ema": 0.9,
                "out": tmp_path / f"{epochs}",
            },
            **{"device": "xla", "precision": "fp32", "tracking": "none"},
        )
        train(options)

    # what is drawn at first, the step, its losses, what it said, validation, references, a record
    assert counted(lambda: training(1)).compilations <= 7
    assert counted(lambda: training(2)).compilations == 0


def test_the_evaluation_network(phantom, xla, counted, monkeypatch):
    for name, value in {"WIDTH": 4, "LEAST_STEPS": 6, "SEEN": 1}.items():
        monkeypatch.setattr(diagnosis_network, name, value)
    seen = counted(lambda: diagnosis_network.load_diagnosis_network(load_dataset(phantom), 0, xla))
    # what there is at first, the step, what it sees of images, the scale
    assert (seen.compilations, seen.on_host) == (4, [])
