"""A block of an EfficientNet (Tan and Le 2019), forward: the libraries' results, sooner.

Squeeze and excitation in matrix products and one function with a gradient of its own, because
torch's writes the gradient of a mean out at every position and adds it up in a pass of its own;
drop connect only where it drops.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dermsynth.efficientnet_lite import activated
from dermsynth.same_convolution import differentiated_on_cpu


def mbconv(block: nn.Module, inputs: torch.Tensor, drop_rate: float) -> torch.Tensor:
    """`block(inputs, drop_rate)` of a lukemelas MBConvBlock, [n, c, h, w] to [n, d, h', w'].

    `drop_rate` is the share of images whose block is skipped in training.
    """
    b: Any = block
    x = inputs
    if hasattr(b, "_expand_conv"):
        x = activated(b, "_expand_conv", "_bn0", x)
    x = activated(b, "_depthwise_conv", "_bn1", x)
    if b.has_se:
        x = excited(x, b._se_reduce, b._se_expand)
    x = b._bn2(b._project_conv(x))
    if not skips(b):
        return x
    if drop_rate and b.training:
        keep = 1 - drop_rate
        drawn = torch.rand([len(x), 1, 1, 1], dtype=x.dtype, device=x.device)
        x = x * ((keep + drawn).floor() / keep)
    return x + inputs


def skips(block: Any) -> bool:
    """Whether the input is added to what comes out."""
    made = block._block_args
    return bool(made.id_skip and made.stride == 1 and made.input_filters == made.output_filters)


def excited(x: torch.Tensor, reduce: nn.Conv2d, expand: nn.Conv2d) -> torch.Tensor:
    """Channels weighed by what their means say: squeeze and excitation.

    x [n, c, h, w]; `reduce` and `expand` are 1x1 convolutions, used as matrices.
    """
    weights = (reduce.weight.flatten(1), reduce.bias, expand.weight.flatten(1), expand.bias)
    if differentiated_on_cpu(x):
        return _Excitation.apply(x, *weights)
    return x * _gate(x.mean((2, 3)), *weights)[2][:, :, None, None]


def _gate(
    means: torch.Tensor, w1: torch.Tensor, b1: Any, w2: torch.Tensor, b2: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden values before and after their activation, and the channels' weights [n, c]."""
    hidden = F.linear(means, w1, b1)
    active = F.silu(hidden)
    return hidden, active, F.linear(active, w2, b2).sigmoid()


class _Excitation(torch.autograd.Function):
    """`x * gate(mean(x))`, in three passes over x backward in place of eight."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        w1: torch.Tensor,
        b1: torch.Tensor,
        w2: torch.Tensor,
        b2: torch.Tensor,
    ) -> torch.Tensor:
        means = x.mean((2, 3))
        hidden, active, gate = _gate(means, w1, b1, w2, b2)
        ctx.save_for_backward(x, w1, w2, means, hidden, active, gate)
        return x * gate[:, :, None, None]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
        x, w1, w2, means, hidden, active, gate = ctx.saved_tensors
        by_gate = (grad * x).sum((2, 3)) * gate * (1 - gate)  # before the sigmoid, [n, c]
        by_hidden = torch.ops.aten.silu_backward(by_gate @ w2, hidden)
        by_mean = (by_hidden @ w1) / x[0, 0].numel()
        by_x = torch.addcmul(by_mean[:, :, None, None], grad, gate[:, :, None, None])
        return (
            by_x,
            by_hidden.t() @ means,
            by_hidden.sum(0),
            by_gate.t() @ active,
            by_gate.sum(0),
        )
