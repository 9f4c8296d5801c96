"""A training step's kernels, recorded once and started as one: `torch.cuda.CUDAGraph`.

At 128 px and small batches a GPU takes less time for a kernel than Python takes to start it.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch

EAGER_STEPS = 3  # before a step is recorded: optimizers and cuDNN settle in them


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[torch.Tensor | None, ...]
    outputs: Any


class Graphed:
    """`function(key, *inputs)` on a GPU from a recording, elsewhere as it stands.

    What it does must depend on its key and inputs alone, and on tensors that stay where they are.
    It returns tensors, or None. Nothing in it may wait for the device, nor seed its generator; its
    Python runs a few times only. A function that cannot be recorded is run as it stands, and said.

    Parameters
    ----------
    function : its inputs are tensors of the device, or None
    name : for messages
    record : False: always as it stands
    """

    def __init__(self, function: Callable[..., Any], name: str, record: bool = True) -> None:
        self.function, self.name, self.record = function, name, record
        self._calls: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Recorded] = {}
        self._pool: Any = None

    def __call__(self, key: Hashable, *inputs: torch.Tensor | None) -> Any:
        """What the function gives; `key` and the inputs' shapes tell recordings apart."""
        on_gpu = any(each is not None and each.device.type == "cuda" for each in inputs)
        if not (self.record and on_gpu):
            return self.function(key, *inputs)
        place = (key, *(None if each is None else (each.shape, each.dtype) for each in inputs))
        if place not in self._recorded:
            self._calls[place] = calls = self._calls.get(place, 0) + 1
            if calls <= EAGER_STEPS or not self._try(place, key, inputs):
                return self._eagerly(key, inputs)
        recorded = self._recorded[place]
        for static, given in zip(recorded.inputs, inputs, strict=True):
            if static is not None and given is not None:
                static.copy_(given)
        recorded.graph.replay()
        return _copied(recorded.outputs)

    def _eagerly(self, key: Hashable, inputs: tuple[torch.Tensor | None, ...]) -> Any:
        """On a stream of its own, as torch asks for before a recording."""
        ours = torch.cuda.current_stream()
        side = torch.cuda.Stream()
        side.wait_stream(ours)
        with torch.cuda.stream(side):
            outputs = self.function(key, *inputs)
        ours.wait_stream(side)
        return outputs

    def _try(self, place: Hashable, key: Hashable, inputs: tuple[torch.Tensor | None, ...]) -> bool:
        """Record a step, which does not run it; False where that cannot be done."""
        static = tuple(None if each is None else each.clone() for each in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                outputs = self.function(key, *static)
        except RuntimeError as error:
            self.record = False
            reason = str(error).splitlines()[0]
            print(f"note: {self.name}: no CUDA graph can be made of it ({reason}); slower without")
            return False
        self._pool = self._pool or graph.pool()
        self._recorded[place] = _Recorded(graph, static, outputs)
        return True


def _copied(outputs: Any) -> Any:
    """The next replay writes over what this one gave."""
    if isinstance(outputs, tuple):
        return tuple(_copied(each) for each in outputs)
    return outputs.clone() if isinstance(outputs, torch.Tensor) else outputs
