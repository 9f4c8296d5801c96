"""Batch norm over the whole batch where several processes have a share of it each.

torch.nn.SyncBatchNorm does so on GPUs only. Statistics, gradients and what is kept of them are
those of one process that has the whole batch, but for rounding.
"""

import functools
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dermsynth.distributed import Processes


def share_statistics(network: nn.Module, processes: Processes) -> None:
    """Turn every batch norm of a network into one over the shares of all processes.

    They must be of one size. Parameters, buffers and their names stay as they are.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.processes = processes  # type: ignore[assignment] - no module of its own
            module.__class__ = _shared(type(module))


class _Shared:
    """In front of a class of batch norm: its forward in training."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)  # type: ignore[misc]
        axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        values, processes = x.float(), self.processes
        variance, mean = torch.var_mean(values, axes, correction=0)
        # all means and variances, not their sums: no small difference of large numbers
        own = torch.stack([mean, variance])[None]
        rows = F.pad(own, (0, 0, 0, 0, processes.rank, processes.count - processes.rank - 1))
        means, variances = _Sum.apply(rows, processes).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        count = processes.count * x.numel() // x.shape[1]
        self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        normal = (values - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)
        normal = normal.to(x.dtype)
        if hasattr(self, "act"):  # timm's, with an activation inside
            normal = self.act(self.drop(normal))
        return normal

    @torch.no_grad()
    def _remember(self: Any, mean: torch.Tensor, variance: torch.Tensor) -> None:
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


@functools.cache
def _shared(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Shared{kind.__name__}", (_Shared, kind), {})


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes. Its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, processes: Processes) -> torch.Tensor:
        ctx.processes = processes
        return processes.sum_(tensor.contiguous().clone())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return ctx.processes.sum_(gradients[0].contiguous().clone()), None
