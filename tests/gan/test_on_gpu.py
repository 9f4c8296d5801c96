"""The generator's step on a GPU; passed over where there is none."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from dermsynth import checkpoint, cuda_graph
from dermsynth.device import Compute
from gan.networks import ARCHITECTURES
from gan.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


def reals(trainer):
    draw = torch.Generator().manual_seed(trainer.steps)
    side = trainer.config.size
    shape = (trainer.images_a_step, side, side, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw).cuda()


def play(trainer, steps, record=True):
    trainer._graph.record = record
    if trainer.spectral is None:
        shown, labels = reals(trainer).cpu().numpy(), None
        if trainer.config.classes:
            labels = np.arange(len(shown)) % 2
        trainer.begin_from(shown, labels)
    for _ in range(steps):
        labels = None
        if trainer.config.classes:
            labels = torch.arange(trainer.images_a_step).cuda() % 2
        trainer.step(reals(trainer), labels)
    return trainer


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.ema.parameters()])


def apart(trainer, other, start):
    """The distance of two trainings' weights, as a share of the way that one of them went.

    Adam makes whole steps of gradients near zero, whose sign is that of a rounding.
    """
    ours, theirs = weights(trainer), weights(other)
    return ((ours - theirs).norm() / (theirs - start).norm()).item()


@pytest.fixture(autouse=True)
def same_bits():
    """What cuDNN may choose between is fixed."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_recorded_step_is_the_step(arch, narrow, tmp_path, monkeypatch):
    config = dataclasses.replace(narrow(arch, 32), batch=4)
    if config.labels != "never":
        config = dataclasses.replace(config, classes=2)
    if config.penalty != "none":
        config = dataclasses.replace(config, penalty_every=2)
    gpu = Compute(torch.device("cuda"), "fp32")
    checkpoint.save(tmp_path, play(Trainer(arch, config, 0, gpu), 4, record=False).state())
    monkeypatch.setattr(cuda_graph, "EAGER_STEPS", 0)  # a restored optimizer has settled
    ours, theirs = Trainer(arch, config, 0, gpu), Trainer(arch, config, 0, gpu)
    for trainer in (ours, theirs):
        trainer.restore(checkpoint.load(tmp_path))
    start = weights(ours).clone()
    for steps, most in ((1, 0.1), (1, 0.2), (4, 0.7)):
        play(ours, steps)
        play(theirs, steps, record=False)
        assert apart(ours, theirs, start) < most
    assert ours._graph._recorded
    assert not theirs._graph._recorded
    assert ours.take_means(6) == pytest.approx(theirs.take_means(6), rel=0.1, abs=0.05)


def test_a_recorded_step_never_waits(narrow):
    trainer = Trainer(
        "lesiongan", narrow("lesiongan", 32), 0, Compute(torch.device("cuda"), "bf16")
    )
    play(trainer, 6)
    images = [copy.copy(reals(trainer)) for _ in range(3)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for image in images:
            trainer.step(image)
    finally:
        torch.cuda.set_sync_debug_mode("default")
