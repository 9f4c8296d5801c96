import subprocess
import sys

import pytest
import torch

from dermsynth.optimizers import Adam, AdamW

STEP = """
import sys, torch
from dermsynth.optimizers import Adam, AdamW
layer = torch.nn.Linear(2, 1)
for made in (Adam, AdamW):
    optimizer = made(layer.parameters(), 0.1)
    before = layer.weight.detach().clone()
    optimizer.zero_grad(set_to_none=True)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert not torch.equal(before, layer.weight)
assert "torch._dynamo" not in sys.modules, "the compiler was loaded"
"""


def test_an_optimizer_steps_without_loading_the_compiler():
    subprocess.run([sys.executable, "-c", STEP], check=True)


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("ours", [Adam, AdamW])
def test_ours_steps_as_torchs_does(ours, fused):
    weights = []
    for made in (ours, ours.__base__):
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 1)
        optimizer = made(layer.parameters(), 0.01, weight_decay=0.1, fused=fused)
        for _ in range(5):
            optimizer.zero_grad()
            layer(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
        weights.append(layer.weight.detach().clone())
        assert layer.weight.requires_grad
    assert torch.equal(*weights)
