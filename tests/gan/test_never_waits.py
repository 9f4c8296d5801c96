"""No step reads anything back from where it computes.

The meta device stands for one: its tensors have no data, so `.item()`, `.cpu()`, `if tensor:`
raise. One such read in a step makes a GPU idle, and XLA compile the step in pieces.
"""

import dataclasses

import pytest
import torch
from torch.optim import adam

from dermsynth.device import Compute
from gan.ada import ADAPTIVE, STEPS
from gan.hyperparameters import Hyperparameters
from gan.networks import ARCHITECTURES
from gan.spectra import SpectralDistance
from gan.trainer import Trainer

META = Compute(torch.device("meta"), "fp32")


@pytest.fixture(autouse=True)
def _meta_counts_as_accelerator(monkeypatch):
    """Adam keeps its step counts on devices that it knows."""
    known = [*adam._get_capturable_supported_devices(), "meta"]
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda: known)


def _step(
    arch: str, config: Hyperparameters, labels: torch.Tensor | None = None, **options
) -> Trainer:
    config = dataclasses.replace(config, batch=4, **options)
    trainer = Trainer(arch, config, 0, META)
    if config.spectrum_weight:  # what else begins from images is computed once
        trainer.spectral = SpectralDistance(torch.zeros(8, 3, 32, 32, device="meta"))
    for _ in range(STEPS if config.augment in ADAPTIVE else 1):
        images = torch.zeros(trainer.images_a_step, 32, 32, 3, dtype=torch.uint8)
        trainer.step(images, labels)
    return trainer


# StyleGAN2 asks autocast about its device, and meta has none
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("sngan", "wgan-gp", "projected")]


@pytest.mark.parametrize("arch", ["lesiongan", "dcgan", "acgan", "fastgan", *SLOW])
def test_a_step_reads_nothing_back(arch, narrow):
    labelled = ARCHITECTURES[arch].config.labels == "always"
    count = 4 * ARCHITECTURES[arch].config.critic_steps
    labels = torch.zeros(count, dtype=torch.int64) if labelled else None
    trainer = _step(arch, narrow(arch, 32), labels, **({"classes": 2} if labelled else {}))
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        trainer.take_means(1)  # which says that it waits


@pytest.mark.parametrize(
    "options", [{"augment": "ada"}, {"augment": "translation"}, {"loss": "relativistic"}]
)
def test_nor_does_what_a_step_may_have(options, narrow):
    _step("dcgan", narrow("dcgan", 32), **options)
