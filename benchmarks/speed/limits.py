"""The share of the machine's limit: arithmetic and memory traffic of a step against bare ones."""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from benchmarks.speed.timing import Way, in_turn, significant

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Ceilings:
    """What the device does at best, measured in the same run."""

    side: int  # of the two square matrices whose product is timed
    flops_per_second: dict[str, float]  # by precision, 2 side^3 a product
    copied_mib: int  # of a tensor that is copied
    bytes_per_second: float  # read and written


def ceilings(device: torch.device, quick: bool = False) -> Ceilings:
    """Time plain matrix products and a plain copy. bf16 only where the device computes in it."""
    on_gpu = device.type == "cuda"
    side = (8192 if on_gpu else 2048) // (2 if quick else 1)
    mib = (1024 if on_gpu else 256) // (4 if quick else 1)
    ways, bf16 = [], on_gpu or torch.cpu._is_avx512_bf16_supported()
    for name in DTYPES if bf16 else ["fp32"]:
        a, b = (torch.randn(side, side, device=device, dtype=DTYPES[name]) for _ in range(2))
        ways.append(Way(name, lambda a=a, b=b: a @ b))
    source = torch.zeros(mib * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ways.append(Way("copy", lambda: target.copy_(source)))
    least = {each.way: min(each.seconds) for each in in_turn(ways, 3 if quick else 7, device, 2)}
    copied = 2 * len(source) / least.pop("copy")
    flops = {name: significant(2 * side**3 / seconds) for name, seconds in least.items()}
    return Ceilings(side, flops, mib, significant(copied))


@dataclass(frozen=True)
class Work:
    """What one step asks of the machine."""

    flops: int  # of matrix products and convolutions, forward and backward
    bytes: int  # that its operators read and write, each for itself: what eager execution moves


def count(step: Callable[[], object]) -> Work:
    """Run a step once and count. It must run operator by operator, not from a recording."""
    formulas = {torch.ops.aten.convolution_backward: _backward_of_convolution}
    flops, traffic = FlopCounterMode(display=False, custom_mapping=formulas), _Traffic()
    with flops, traffic:
        step()
    return Work(flops.get_total_flops(), traffic.bytes)


def _backward_of_convolution(
    grad: Any, x: Any, weight: Any, *rest: Any, out_shape: Any = None, **_: Any
) -> int:
    """A forward pass for each gradient that is asked for, of `x` and of the weight.

    torch's own formula counts those of grouped convolutions as if they were full ones.
    """
    transposed, wanted = rest[4], rest[-1]
    return conv_flop_count(x, weight, grad, transposed) * sum(map(bool, wanted[:2]))


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that go into operators and come out of them."""

    bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            moved = [*tree_leaves((args, kwargs)), *tree_leaves(outputs)]
            self.bytes += sum(t.nbytes for t in moved if isinstance(t, torch.Tensor))
        return outputs


def share(
    what: str, work: Work, seconds: list[float], precision: str, best: Ceilings
) -> dict[str, Any]:
    """A row of the report: the least time of a step by either limit, and its share of the real one.

    `flops / flops a second` is exact where the whole step is matrix products in `precision`;
    `bytes / bytes a second` where nothing stays in a cache and no operators are fused. The larger
    of the two is the limit; a share above 1 says that caches or fusion moved less.
    """
    measured = statistics.median(seconds)
    by_flops = work.flops / best.flops_per_second[precision]
    by_bytes = work.bytes / best.bytes_per_second
    limit = max(by_flops, by_bytes)
    return {
        "what": what,
        "precision": precision,
        **asdict(work),
        "seconds": significant(measured),
        "seconds_by_flops": significant(by_flops),
        "seconds_by_bytes": significant(by_bytes),
        "bound_by": "flops" if limit == by_flops else "bytes",
        "share_of_limit": significant(limit / measured, 3),
        "share_of_flops": significant(by_flops / measured, 3),
    }


def busy(what: str, busy_seconds: float, seconds: float) -> dict[str, Any]:
    """A row of the report: how much of a step's time by the clock the GPU works."""
    return {
        "what": what,
        "seconds": significant(seconds),
        "busy_seconds": significant(busy_seconds),
        "busy_share": significant(busy_seconds / seconds, 3),
    }
