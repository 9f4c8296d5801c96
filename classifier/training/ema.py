"""An average of the weights over the steps: `--ema`."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from dermsynth.optimizers import move_average
from dermsynth.tensors import send


class WeightAverage:
    """Exponential moving average of all that a model learns, batch norm's statistics included.

    The decay rises as (1 + t) / (10 + t) up to its value, so that the first steps count for little.
    With a decay of 0 nothing is averaged: the model's own weights are tested.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.state = {name: value.clone() for name, value in self._learnt().items()}

    def next_weight(self, device: torch.device) -> torch.Tensor | None:
        """Of the model in the next step's average, 0-dimensional; None where nothing is averaged.

        Counts the step.
        """
        if not self.decay:
            return None
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        return send(np.array([1 - decay], np.float32), device)[0]

    @torch.no_grad()
    def update(self, weight: torch.Tensor | None) -> None:
        """After an optimizer step, by its `next_weight`."""
        if weight is not None:
            move_average(list(self.state.values()), list(self._learnt().values()), weight)

    def restore(self, state: dict[str, torch.Tensor], steps: int) -> None:
        """Go on from a saved `state` after so many steps."""
        for name, value in state.items():
            self.state[name].copy_(value)
        self.steps = steps

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the average inside, and its own weights again afterwards."""
        own = {name: value.clone() for name, value in self._learnt().items()}
        self._fill(self.state)
        try:
            yield
        finally:
            self._fill(own)

    def _learnt(self) -> dict[str, torch.Tensor]:
        """What is averaged: nothing with a decay of 0."""
        state = self.model.state_dict() if self.decay else {}
        return {name: value for name, value in state.items() if value.is_floating_point()}

    @torch.no_grad()
    def _fill(self, state: dict[str, torch.Tensor]) -> None:
        for name, value in self._learnt().items():
            value.copy_(state[name])
