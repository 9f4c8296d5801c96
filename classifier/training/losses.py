"""Training losses: cross-entropy and focal, with soft labels, class weights and costs."""

import functools
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from classifier.options import LossOptions
from classifier.targets import Target


@dataclass(frozen=True)
class Loss:
    """loss(logits, targets): the mean over a batch, a float32 scalar.

    Logits and targets float [n, outputs] as of `Target`; targets may be soft (CutMix, MixUp).
    """

    target: Target
    options: LossOptions = field(default_factory=LossOptions)  # cross-entropy by default
    weights: tuple[float, ...] = ()  # of the classes; none: all 1

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean over the batch."""
        options, smoothing = self.options, self.options.label_smoothing  # Szegedy et al. 2016
        log_p = _log_probabilities(logits)
        y = torch.cat([1 - targets, targets], 1) if targets.shape[1] == 1 else targets
        malignant = _constant(self.target.malignant, logits.device)
        smooth = y * (1 - smoothing) + smoothing / y.shape[1]
        terms = -smooth * log_p
        if options.loss == "focal":  # Lin et al. 2017, eq. 5
            terms = terms * (1 - log_p.exp()) ** options.gamma
            terms = terms * torch.where(malignant, options.alpha, 1 - options.alpha)
        losses = terms.sum(1)
        if options.miss_cost != 1:
            others = _constant(tuple(self._not_nevus()), logits.device)
            missed = -log_p[:, others].logsumexp(1)  # -log(1 - p of nevus)
            losses = losses + (options.miss_cost - 1) * (y * malignant).sum(1) * missed
        if self.weights:
            losses = losses * (y @ _constant(self.weights, y.device).to(y.dtype))
        return losses.mean()

    def _not_nevus(self) -> list[int]:
        """The classes but nevi; the malignant ones where nevi are no class of their own."""
        classes = self.target.classes
        others = [at for at, name in enumerate(classes) if name.lower() not in ("nv", "nevus")]
        if len(others) < len(classes):
            return others
        return [at for at, bad in enumerate(self.target.malignant) if bad]


def class_weights(labels: np.ndarray, target: Target, options: LossOptions) -> tuple[float, ...]:
    """Weights of the classes; () where all are 1.

    `balanced`: n / (classes * n of the class), of the final training set's labels int64 [n], so
    that the mean over its images is 1. `positive_weight` multiplies those of malignant classes.
    """
    balanced, positive_weight = options.class_weights == "balanced", options.positive_weight
    if not balanced and positive_weight == 1:
        return ()
    counts = np.bincount(labels, minlength=len(target.classes))
    weights = np.ones(len(counts))
    if balanced:
        weights = len(labels) / (len(counts) * np.maximum(counts, 1))
    return tuple((weights * np.where(target.malignant, positive_weight, 1.0)).tolist())


@functools.cache
def _constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """On the device once: to make it anew would wait for all that the device has still to do."""
    return torch.tensor(values, device=device)


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """float32 [n, classes]; one logit means benign and malignant."""
    logits = logits.float()
    if logits.shape[1] == 1:
        return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], 1)
    return logits.log_softmax(1)
