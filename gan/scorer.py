"""Scores of a generator on the way: KID on held-out lesions."""

import functools
from collections.abc import Callable

import numpy as np
import torch

from data.provenance import ClassRecord, ScoredRecord
from data.store import Dataset
from dermsynth.device import Compute
from gan.evaluation.features import FeatureNetwork, extract, imagenet_network
from gan.evaluation.metrics import kid, kid_spread
from gan.sampling import draw_labels, sample
from gan.training_images import LEAST_HELD_OUT, held_out_rows

SCORED = 256  # synthetic images of a score


def scorer(
    dataset: Dataset, classes: list[ClassRecord], fold: int, seed: int, compute: Compute
) -> Callable[[torch.nn.Module, float], ScoredRecord | None]:
    """KID of a generator's malignant images against the malignant ones of the fold held out.

    Always by the network that a package ships: one that an earlier evaluation happened to leave
    would let the same options choose another generator, and knows lesions that a generator of a
    `malignant_share` is not to know.
    """
    held_out = held_out_rows(dataset, fold)

    @functools.cache
    def reference() -> tuple[FeatureNetwork, np.ndarray]:
        """The network, its features of the held-out images; at the first score."""
        network = imagenet_network()
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
