"""Which generator of a training is shipped: of those scored on the way, not always the last.

With few images or many epochs a GAN gets worse again. Scores on held-out lesions (the validation
fold's, never the test fold's) say when; the rule is that of one standard error (Breiman et al.
1984): the latest generator whose score lies within one standard error of the lowest.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from data.provenance import ClassRecord, ScoredRecord
from data.store import Dataset
from dermsynth.device import Compute
from gan.evaluation import diagnosis_network
from gan.evaluation.features import FeatureNetwork, extract, imagenet_network
from gan.evaluation.metrics import kid, kid_spread
from gan.sampling import draw_labels, sample
from gan.training_images import LEAST_HELD_OUT, held_out_rows

SCORED = 256  # synthetic images of a score


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


def scorer(
    dataset: Dataset, classes: list[ClassRecord], fold: int, seed: int, compute: Compute
) -> Callable[[torch.nn.Module, float], ScoredRecord | None]:
    """KID of a generator's malignant images against the malignant ones of the fold held out.

    By the diagnosis network where an earlier evaluation trained it: training does not wait for it.
    """
    held_out = held_out_rows(dataset, fold)

    @functools.cache
    def reference() -> tuple[FeatureNetwork, np.ndarray]:
        """The network, its features of the held-out images; at the first score."""
        network = imagenet_network()
        if diagnosis_network.is_ready(dataset, fold):
            network, _ = diagnosis_network.load_diagnosis_network(dataset, fold, compute)
        return network, extract(dataset.images[held_out], compute, "held-out images", network)

    def score(generator: torch.nn.Module, kimg: float) -> ScoredRecord | None:
        if len(held_out) < LEAST_HELD_OUT:
            return None
        network, features = reference()
        labels = draw_labels(classes, "malignant", SCORED, seed)
        synthetic = sample(generator, SCORED, seed, compute, labels)
        made = extract(synthetic, compute, "synthetic images", network)
        value, spread = kid(made, features), kid_spread(made, features, seed)
        return ScoredRecord(kimg=kimg, kid=value, spread=spread, network=network.name)

    return score
