"""Depthwise convolutions by torch's own kernels give what the others give."""

import pytest
import torch
from torch import nn

from dermsynth.same_convolution import SameConv2d


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("stride", "side"), [(1, 9), (2, 16)])
def test_both_ways_have_the_same_result_and_gradient(kernel, stride, side, monkeypatch):
    torch.manual_seed(0)
    like = nn.Conv2d(6, 6, kernel, stride, groups=6).requires_grad_(False)
    like = like.to(memory_format=torch.channels_last)
    total = max(kernel - stride, 0)
    conv = SameConv2d(like, (total // 2, total - total // 2))
    images = torch.randn(3, 6, side, side).contiguous(memory_format=torch.channels_last)
    found = []
    for own in (False, True):
        monkeypatch.setattr(SameConv2d, "_starts_a_kernel_a_channel", lambda *_, own=own: own)
        x = images.clone().requires_grad_()
        y = conv(x)
        (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
        assert y.shape[-1] == -(-side // stride)
        assert y.is_contiguous(memory_format=torch.channels_last)
        found.append((y.detach(), x.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_what_learns_and_what_is_on_a_cpu_is_left_to_the_libraries():
    like = nn.Conv2d(6, 6, 3, groups=6)
    conv = SameConv2d(like, (1, 1))
    x = torch.zeros(1, 6, 4, 4)
    assert not conv._starts_a_kernel_a_channel(x)
    assert not conv._starts_a_kernel_a_channel(x.to("meta"))
