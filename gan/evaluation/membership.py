"""May the pool leave the hospital? What published attacks learn of who was trained on.

An attacker holds a photograph and wants to know whether it was among the training images. Each
attack gives photographs a score; how well it tells training images (members) from held-out ones of
other lesions is an AUC, 0.5 where nothing is learned. No attack that fails proves that none works.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data.provenance import ArchitectureRecord
from dermsynth import checkpoint
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.records import Record
from gan.evaluation.audit import AucRecord, grouped_auc
from gan.evaluation.features import FeatureNetwork, extract
from gan.networks import restore
from gan.trainer import VERSION
from gan.weights import CHECKPOINT

POOL_ATTACKS = ("features", "pixels")
NO_DISCRIMINATOR = "a pool has none: evaluate the run of the generator that made it"


class MembershipRecord(Record):
    """AUCs of attacks, members against held-out images, with intervals over groups."""

    # by the distance to the nearest synthetic image (full black box: Chen et al. 2020, GAN-Leaks)
    pool_features: AucRecord  # between an ImageNet network's features, over eight symmetries
    pool_pixels: AucRecord  # between pictures of 16 x 16 px, likewise
    n_synthetic: int  # images that the attacker holds
    # by the discriminator's score (white box: Hayes et al. 2019, LOGAN); None: it is not at hand
    discriminator: AucRecord | None
    no_discriminator: str | None  # why not, in words


def membership(
    distances: dict[str, np.ndarray],
    scores: np.ndarray | str,
    groups: np.ndarray,
    n_training: int,
) -> MembershipRecord:
    """What the attacks learn.

    Parameters
    ----------
    distances : by space (POOL_ATTACKS), float [s, r]: from synthetic images to the real ones,
        training images and then held-out ones
    scores : the discriminator's of the real images, float [r]; or why there are none
    groups : [r], images of one lesion or patient share a value
    n_training : how many of the real ones are training images
    """
    attacks = {f"pool_{space}": -distances[space].min(0) for space in POOL_ATTACKS}
    told = {name: _auc(score, groups, n_training) for name, score in attacks.items()}
    known = not isinstance(scores, str)
    return MembershipRecord(
        **told,
        n_synthetic=len(distances["features"]),
        discriminator=_auc(scores, groups, n_training) if known else None,
        no_discriminator=None if known else scores,
    )


def discriminator_scores(run: Path, images: np.ndarray, compute: Compute) -> np.ndarray | str:
    """What the discriminator of a run gives images: the higher, the more real it takes them for.

    Mean over heads and patches of its logits, in eval mode: float64 [n] of uint8 [n, s, s, 3]; or
    in words why it cannot be asked.
    """
    try:
        state = checkpoint.load(run / CHECKPOINT)
    except UserError:
        state = None
    if state is None:
        return "no checkpoint of the training is at hand, which would hold the discriminator"
    if state["version"] != VERSION:
        return "the checkpoint was written by another version of this code"
    described = ArchitectureRecord.model_validate(state["architecture"])
    chosen, config = restore(described, str(run / CHECKPOINT))
    if config.classes:
        return "the discriminator is conditional on a class"
    network = chosen.discriminator(config)
    network.load_state_dict(state["discriminator"])
    judge = FeatureNetwork("discriminator", _Verdict(network).eval())
    fp32 = dataclasses.replace(compute, precision="fp32")
    return extract(images, fp32, "the discriminator", judge)[:, 0].astype(np.float64)


class _Verdict(nn.Module):
    """Images float [n, 3, s, s] in 0..1 -> [n, 1]: the mean of a discriminator's heads."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.discriminator(2 * x - 1)
        means = torch.stack([head.float().flatten(1).mean(1) for head in heads])
        return means.mean(0)[:, None]


def words(record: MembershipRecord) -> str:
    """A line for the terminal."""
    attacks = {
        "features": record.pool_features,
        "pixels": record.pool_pixels,
        "discriminator": record.discriminator,
    }
    told = ", ".join(
        f"{name} {one.auc:.2f} [{one.low:.2f}, {one.high:.2f}]"
        for name, one in attacks.items()
        if one is not None and one.auc is not None
    )
    return f"who was trained on, by attack (0.5: nothing is learned): {told or 'too few images'}"


def _auc(scores: np.ndarray, groups: np.ndarray, n_training: int) -> AucRecord:
    member = np.arange(len(scores)) < n_training
    auc, low, high = grouped_auc(member, groups.astype(str), scores)
    return AucRecord(
        auc=auc, low=low, high=high, n_real=int((~member).sum()), n_other=int(member.sum())
    )
