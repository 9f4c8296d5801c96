"""Operators that torch_xla would leave to the CPU, and Adam's step where the rate is a tensor."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dermsynth.optimizers import adam_options, set_rate


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
