"""Scores of a generator on the way: KID on held-out lesions."""

from collections.abc import Callable

import torch

from data.provenance import ClassRecord, ScoredRecord
from data.store import Dataset
from dermsynth.device import Compute
from gan.evaluation import diagnosis_network
from gan.evaluation.features import extract, imagenet_network
from gan.evaluation.metrics import kid, kid_spread
from gan.sampling import draw_labels, sample
from gan.training_images import LEAST_HELD_OUT, held_out_rows

SCORED = 256  # synthetic images of a score


def scorer(
    dataset: Dataset, classes: list[ClassRecord], fold: int, seed: int, compute: Compute
) -> Callable[[torch.nn.Module, float], ScoredRecord] | None:
    """KID of a generator's malignant images against the malignant ones of the fold held out.

    By the network of `gan.evaluate`, trained now if it is not there yet and kept: one trained on
    ImageNet hardly sees more than a fine weave, and chose a generator that had hardly begun. Where
    there are no two diagnoses to learn from it is that one all the same; None where fewer than 8
    images are held out.
    """
    held_out = held_out_rows(dataset, fold)
    if len(held_out) < LEAST_HELD_OUT:
        return None
    if diagnosis_network.can_learn(dataset, fold):
        network, _ = diagnosis_network.load_diagnosis_network(dataset, fold, compute)
    else:
        network = imagenet_network()
    features = extract(dataset.images[held_out], compute, "held-out images", network)

    def score(generator: torch.nn.Module, kimg: float) -> ScoredRecord:
        labels = draw_labels(classes, "malignant", SCORED, seed)
        synthetic = sample(generator, SCORED, seed, compute, labels)
        made = extract(synthetic, compute, "synthetic images", network)
        value, spread = kid(made, features), kid_spread(made, features, seed)
        return ScoredRecord(kimg=kimg, kid=value, spread=spread, network=network.name)

    return score
