"""Training losses: cross-entropy and focal, with soft labels, class weights and costs."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from classifier.targets import Target

LossName = Literal["cross-entropy", "focal"]


@dataclass(frozen=True)
class Loss:
    """loss(logits, targets): the mean over a batch, a float32 scalar.

    Logits and targets float [n, outputs] as of `Target`; targets may be soft (CutMix, MixUp).
    """

    target: Target
    name: LossName = "cross-entropy"
    gamma: float = 2.0  # focal: how fast easy images lose weight
    alpha: float = 0.8  # focal: weight of malignant classes; the others have 1 - alpha
    smoothing: float = 0.0  # label smoothing (Szegedy et al. 2016)
    weights: tuple[float, ...] = ()  # of the classes; none: all 1
    miss_cost: float = 1.0  # how many times more a melanoma taken for a nevus costs

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        log_p = _log_probabilities(logits)
        y = torch.cat([1 - targets, targets], 1) if targets.shape[1] == 1 else targets
        malignant = torch.tensor(self.target.malignant, device=logits.device)
        smooth = y * (1 - self.smoothing) + self.smoothing / y.shape[1]
        terms = -smooth * log_p
        if self.name == "focal":  # Lin et al. 2017, eq. 5
            terms = terms * (1 - log_p.exp()) ** self.gamma
            terms = terms * torch.where(malignant, self.alpha, 1 - self.alpha)
        found = terms.sum(1)
        if self.miss_cost != 1:
            missed = -log_p[:, self._not_nevus()].logsumexp(1)  # -log(1 - p of nevus)
            found = found + (self.miss_cost - 1) * y[:, malignant].sum(1) * missed
        if self.weights:
            found = found * (y @ torch.tensor(self.weights, dtype=y.dtype, device=y.device))
        return found.mean()

    def _not_nevus(self) -> list[int]:
        """The classes but nevi; the malignant ones where nevi are no class of their own."""
        classes = self.target.classes
        others = [at for at, name in enumerate(classes) if name.lower() not in ("nv", "nevus")]
        if len(others) < len(classes):
            return others
        return [at for at, bad in enumerate(self.target.malignant) if bad]


def class_weights(
    labels: np.ndarray, target: Target, balanced: bool, positive_weight: float
) -> tuple[float, ...]:
    """Weights of the classes; () where all are 1.

    `balanced`: n / (classes * n of the class), of the final training set's labels int64 [n], so
    that the mean over its images is 1. `positive_weight` multiplies those of malignant classes.
    """
    if not balanced and positive_weight == 1:
        return ()
    counts = np.bincount(labels, minlength=len(target.classes))
    weights = np.ones(len(counts))
    if balanced:
        weights = len(labels) / (len(counts) * np.maximum(counts, 1))
    return tuple((weights * np.where(target.malignant, positive_weight, 1.0)).tolist())


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """float32 [n, classes]; one logit means benign and malignant."""
    logits = logits.float()
    if logits.shape[1] == 1:
        return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], 1)
    return logits.log_softmax(1)
