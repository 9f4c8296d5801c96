"""Which generator of a training is shipped: of those scored on the way, not always the last.

With few images or many epochs a GAN gets worse again. Scores on held-out lesions (the validation
fold's, never the test fold's) say when; the rule is that of one standard error (Breiman et al.
1984): the latest generator whose score lies within one standard error of the lowest.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from data.provenance import ScoredRecord


@dataclass
class Choice:
    """The generator to ship, and all scores so far; lives in the checkpoint."""

    scored: list[ScoredRecord] = field(default_factory=list)  # in the order of training
    kept: int | None = None  # its number among them
    weights: dict[str, torch.Tensor] = field(default_factory=dict)  # its, on the CPU

    def consider(self, network: nn.Module, score: ScoredRecord) -> bool:
        """Keep the newest generator if the rule says so; whether it was kept.

        Scores of another evaluation network than before cannot be compared: they begin anew.
        """
        if self.scored and self.scored[-1].network != score.network:
            self.scored, self.kept = [], None
        self.scored.append(score)
        lowest = min(self.scored, key=lambda one: one.kid)
        if score.kid > lowest.kid + lowest.spread:
            return False
        self.kept = len(self.scored) - 1
        self.weights = {
            name: value.detach().to("cpu", copy=True)
            for name, value in network.state_dict().items()
        }
        return True

    @property
    def chosen(self) -> ScoredRecord | None:
        """The score of the one that is kept; None: nothing was scored, the last is shipped."""
        return None if self.kept is None else self.scored[self.kept]

    def state(self) -> dict[str, Any]:
        """For `dermsynth.checkpoint`."""
        scored = [one.model_dump() for one in self.scored]
        return {"scored": scored, "kept": self.kept, "weights": self.weights}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Choice":
        """From `state`."""
        scored = [ScoredRecord.model_validate(one) for one in state["scored"]]
        return cls(scored, state["kept"], state["weights"])
