"""Optimizers and moving averages that never wait for an accelerator, nor make it compile anew."""

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from dermsynth.tensors import send

OWN = ("fused", "foreach", "capturable")  # what a device decides, not the checkpoint
# Where the rate is a tensor Adam divides by it: a weight that never had a gradient would be 0/0 at
# the end of a schedule that falls to 0.
LEAST_RATE = 1e-12


def _spare_the_compiler() -> None:
    """Keep optimizers from loading torch.compile, a third of torch, which takes seconds.

    Some of their methods are marked as never to be compiled, and the mark loads the compiler when
    they are first called. Nothing here is compiled, so a method stands for its marked self. A torch
    that marks them in another way is left as it is.
    """
    for method in vars(torch.optim.Optimizer).values():
        if getattr(method, "__globals__", None) is vars(torch._compile):
            plain = getattr(method, "__wrapped__", None)
            if plain is not None:
                vars(plain).setdefault("__dynamo_disable", plain)


_spare_the_compiler()


class Adam(torch.optim.Adam):
    """torch's; its `step` loads no compiler either, and is not differentiable."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))  # type: ignore[assignment]


class AdamW(torch.optim.AdamW):
    """torch's, likewise."""

    step = Adam.step


def lives_on_device(device: torch.device) -> bool:
    """Whether step counts and rates are tensors there: a CUDA graph, or XLA, takes a Python number
    for a constant.
    """
    return device.type != "cpu"


def adam_options(device: torch.device, fused: bool = False) -> dict[str, Any]:
    """Arguments of Adam and AdamW on a device. `fused`: in one kernel on a CPU, too."""
    one_kernel = device.type == "cuda" or (fused and device.type == "cpu")
    # None, not False: that would also turn off what takes all parameters at a time
    return {"fused": True if one_kernel else None, "capturable": lives_on_device(device)}


def set_rate(optimizer: torch.optim.Optimizer, rate: float, device: torch.device) -> None:
    """The learning rate of the next step."""
    there = np.array([max(rate, LEAST_RATE)], np.float32)
    for group in optimizer.param_groups:
        if not lives_on_device(device):
            group["lr"] = rate
        elif isinstance(group["lr"], torch.Tensor):
            group["lr"].copy_(send(there, device)[0])
        else:
            group["lr"] = send(there, device)[0].clone()


@torch.no_grad()
def settle(
    device: torch.device,
    optimizers: Iterable[torch.optim.Optimizer],
    networks: Iterable[torch.nn.Module],
    others: Iterable[torch.Tensor] = (),
) -> None:
    """Where XLA computes, make the first step like all others, or it would compile for itself.

    What a step of Adam makes on its way is made now, and all that a step changes is changed by
    nothing: until then a copy shares its original's memory, and views and norms are made otherwise.
    `Compute.step` is to follow.
    """
    if device.type != "xla":
        return
    tensors, learnt = list(others), []
    for network in networks:
        tensors += [*network.parameters(), *network.buffers()]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            tensors += [rate] if isinstance(rate := group["lr"], torch.Tensor) else []
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                if not state:
                    state["step"] = torch.zeros((), device=device if group["capturable"] else None)
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                tensors += state.values()
                learnt.append(parameter)
    for tensor in tensors:
        if tensor.device == device and tensor.dtype != torch.bool:
            tensor.mul_(1)
    for parameter in learnt:  # by Adam's operation: a result's declared type depends on it
        nothing = torch.zeros_like(parameter)
        parameter.addcdiv_(nothing, nothing + 1)


def rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the last step. Waits for the device."""
    return float(optimizer.param_groups[0]["lr"])


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up a `state_dict()` that was saved on this or on another kind of device."""
    own = [{name: group[name] for name in OWN} for group in optimizer.param_groups]
    groups = [
        {**group, **ours, "lr": float(group["lr"])}
        for group, ours in zip(state["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                # the strides of their parameter: fused steps go by memory order
                values[name] = torch.empty_like(parameter).copy_(value)


def move_average(
    ours: list[torch.Tensor], theirs: list[torch.Tensor], weight: torch.Tensor
) -> None:
    """Move tensors of `ours` towards those of `theirs` by a share `weight`, 0-dimensional."""
    if weight.device.type == "cpu":
        torch._foreach_lerp_(ours, theirs, [weight] * len(ours))
        return
    way = torch._foreach_sub(theirs, ours)
    torch._foreach_mul_(way, weight)
    torch._foreach_add_(ours, way)
