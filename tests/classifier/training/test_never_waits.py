"""No step reads anything back from where it computes.

The meta device stands for one: its tensors have no data, so `.item()`, `.cpu()`, `if tensor:`
raise. One such read in a step makes a GPU idle, and XLA compile the step in pieces.
"""

import pytest
import torch
from torch.optim import adam

from classifier.options import TrainOptions
from classifier.training.loop import Loop
from classifier.training.setup import build_model, resolve
from classifier.training.trunk_cache import FeatureCache
from dermsynth import device
from dermsynth.options import replace

META = device.Compute(torch.device("meta"), "fp32")


@pytest.fixture
def steps(tiny, tmp_path, monkeypatch):
    """steps(**options): a training after three steps on a device without data."""
    known = [*adam._get_capturable_supported_devices(), "meta"]
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda: known)
    monkeypatch.setattr(device, "resolve", lambda *_, **__: META)

    def run(**options) -> Loop:
        given = {"data": tiny.path, "size": 32, "weights": "none", "batch": 16} | options
        given |= {"tracking": "none", "out": tmp_path / "run"}
        setup = resolve(replace(TrainOptions(), **given))
        model, _ = build_model(setup)
        monkeypatch.setattr(type(model), "trunk_sha256", lambda _: "")  # before the first step
        loop = Loop(setup, model, META, FeatureCache(), tmp_path)
        if loop.batches.keeps:  # in memory; computed before the first step too
            loop.trunk._store(loop.batches.real).known[:] = True
        for step in range(3):
            loop.step(step)
        return loop

    return run


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "vanilla-cnn"},
        {"backbone": "vanilla-cnn", "ema": 0.9, "clip": 1.0, "accumulate": 2},
        {"backbone": "vanilla-cnn", "mixup": 0.5},
        {"backbone": "efficientnet-lite0", "frozen": 7},
        {"backbone": "efficientnet-lite0", "frozen": 7, "mixstyle": 0.5},
        {"backbone": "efficientnet-lite0", "frozen": 7, "views": 0},
        {"backbone": "efficientnet-lite0", "frozen": 7, "batch_norm": "adapt"},
    ],
)
def test_a_step_reads_nothing_back(options, steps):
    loop = steps(**options)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        loop._read_losses()  # which says that it waits
