"""Operators that torch_xla would leave to the CPU, and Adam's step where the rate is a tensor."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from classifier.augment import draw_views
from dermsynth.optimizers import adam_options, set_rate
from dermsynth.seeds import seed_torch


@pytest.mark.parametrize(
    ("side", "how"),
    [
        ((5, 7), {"scale_factor": 2.0}),
        ((8, 8), {"size": (5, 5)}),
        ((5, 7), {"size": (9, 4), "align_corners": True}),
        ((1, 1), {"scale_factor": 2.0}),
    ],
)
def test_the_gradient_of_bilinear_upsampling(xla, counted, side, how):
    gradients = []

    def learn(place: torch.device) -> None:
        x = torch.arange(6.0 * side[0] * side[1]).sin().view(2, 3, *side).to(place)
        y = F.interpolate(x.requires_grad_(), mode="bilinear", **how)
        (y * torch.linspace(0, 1, y.numel()).view_as(y).to(place)).sum().backward()
        gradients.append(x.grad.cpu())

    learn(torch.device("cpu"))
    assert counted(lambda: learn(xla.device)).on_host == []
    torch.testing.assert_close(*gradients)


def test_spectral_norm_stays_on_the_device(xla, counted):
    torch.manual_seed(0)
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(3, 4, 3))
    x = torch.randn(2, 3, 8, 8)
    layer.eval()
    here = layer(x)
    layer.to(xla.device)
    there = []
    assert counted(lambda: there.append(layer(x.to(xla.device)))).on_host == []
    torch.testing.assert_close(here, there[0].cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("augment", ["rotate", "siim"])
def test_views_that_move_images(xla, counted, augment):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8))
    views = draw_views(np.random.default_rng(1), 4, augment)
    there = []
    assert counted(lambda: there.append(views.apply_in_batch(images.to(xla.device)))).on_host == []
    torch.testing.assert_close(there[0].cpu(), views.apply_in_batch(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["zeros", "border", "reflection"])
def test_the_gradients_of_looking_up_pixels(xla, counted, mode):
    gradients = []

    def learn(place: torch.device) -> None:
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(2, 3, 6, 5, generator=rng).to(place).requires_grad_()
        grid = (3 * torch.rand(2, 4, 4, 2, generator=rng) - 1.5).to(place).requires_grad_()
        y = F.grid_sample(x, grid, "bilinear", mode, align_corners=False)
        (y * torch.linspace(0, 1, y.numel()).view(y.shape).to(place)).sum().backward()
        gradients.append((x.grad.cpu(), grid.grad.cpu()))

    learn(torch.device("cpu"))
    assert counted(lambda: learn(xla.device)).on_host == []
    for here, there in zip(*gradients, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)


def test_seeds_reach_the_device(xla):
    drawn = []
    for seed in (3, 4, 3):
        seed_torch(seed, "noise")
        drawn.append(torch.randn(8, device=xla.device).cpu())
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_a_rate_of_zero_leaves_weights_as_they_are(xla):
    """Those included that never had a gradient: Adam divides their moments by the rate."""
    weights = torch.nn.Parameter(torch.ones(3, device=xla.device))
    optimizer = torch.optim.AdamW([weights], weight_decay=0.1, **adam_options(xla.device))
    weights.grad = torch.tensor([0.0, 1.0, -2.0]).to(xla.device)
    set_rate(optimizer, 0.0, xla.device)
    optimizer.step()
    np.testing.assert_allclose(weights.detach().cpu(), 1, atol=1e-6)


def test_batches_have_one_shape(xla):
    assert list(xla.filled(np.array([4, 7]), 4)) == [4, 7, 7, 7]
    assert list(xla.filled(np.array([4, 7]), 2)) == [4, 7]
