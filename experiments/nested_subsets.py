"""Which arms of an experiment make a learning curve, and how many lesions each trains on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.store import Dataset
from data.view import view
from dermsynth.options import flat
from experiments.config import SAMPLERS, Arm, Split

SHARE = "malignant_share"


@dataclass(frozen=True)
class Subset:
    """A share of the malignant training groups, and the arms that train on it."""

    share: float
    n_images: float  # malignant training images, mean over splits
    n_groups: float  # groups with a malignant training image, mean over splits
    real: str  # arm
    synthetic: str  # arm


def nested_subsets(dataset: Dataset, arms: Sequence[Arm], splits: Sequence[Split]) -> list[Subset]:
    """The longest series of real and synthetic arms over shares; empty where it has no two.

    The arms of a series differ in their share alone, those of a subset in synthetic images alone.
    Pools are of generators that saw the subset only, or of the phantom's sampler: a folder's images
    may stem from lesions that the subset lacks. Of series of equal length the first counts. Of
    shares that come to the same groups (there are very few) the largest counts.

    Parameters
    ----------
    dataset : without a view
    arms : of the experiment, in its order
    splits : of the experiment

    Returns
    -------
    subsets, the smallest first
    """
    real: dict[str, dict[float, Arm]] = {}
    mixed: dict[tuple[str, str], dict[float, Arm]] = {}
    for arm in arms:
        share, alike = arm.options.task.malignant_share, _but_for_synthetic(arm)
        if arm.source is None:
            real.setdefault(alike, {}).setdefault(share, arm)
        elif _saw_the_subset_only(arm):
            mixed.setdefault((alike, _pool_of(arm)), {}).setdefault(share, arm)
    best: list[float] = []
    pair: tuple[dict[float, Arm], dict[float, Arm]] = ({}, {})
    for (alike, _), synthetic in mixed.items():
        shares = sorted({*real.get(alike, {})} & {*synthetic})
        if len(shares) > max(1, len(best)):
            best, pair = shares, (real[alike], synthetic)
    subsets: list[Subset] = []
    for share in reversed(best):
        images, groups = _counts(dataset, splits, share)
        if not subsets or groups < subsets[0].n_groups:
            names = (arms[share].name for arms in pair)
            subsets.insert(0, Subset(share, images, groups, *names))
    return subsets if len(subsets) > 1 else []


def _but_for_synthetic(arm: Arm) -> str:
    """What an arm shares with all others of its series, and with their references."""
    options = flat(arm.options)
    return repr(sorted((k, v) for k, v in options.items() if k not in (SHARE, "synthetic")))


def _pool_of(arm: Arm) -> str:
    """How many synthetic images there are, and how their generators were made."""
    assert arm.source is not None
    source: dict[str, Any] = {} if arm.source.gan is None else flat(arm.source.gan)
    source = {key: value for key, value in source.items() if key != SHARE}
    source |= {"pool": arm.source.pool, "truncation": arm.source.truncation}
    source |= {"both": arm.source.both_classes, "dose": arm.options.training_set.synthetic}
    return repr(sorted(source.items()))


def _saw_the_subset_only(arm: Arm) -> bool:
    assert arm.source is not None
    if arm.source.gan is None:
        return arm.source.pool in SAMPLERS
    return arm.source.gan.images.malignant_share == arm.options.task.malignant_share


def _counts(dataset: Dataset, splits: Sequence[Split], share: float) -> tuple[float, float]:
    """Malignant training images and groups, means over splits."""
    counts = []
    for split in splits:
        seen = view(dataset, split.fold, split.test_fold, share)
        rows = seen.rows("train", split.fold)
        malignant = rows[seen.targets(rows) == 1]
        counts.append((len(malignant), seen.table["group"].iloc[malignant].nunique()))
    images, groups = np.mean(counts, axis=0)
    return float(images), float(groups)
