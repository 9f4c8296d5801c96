"""Trainings of an arm, each beside the training of its reference that it is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from dermsynth.errors import UserError
from dermsynth.group_bootstrap import Groups


@dataclass(frozen=True)
class Images:
    """The images that models are tested on, of both classes."""

    target: np.ndarray  # bool [n], True malignant
    group: np.ndarray  # int64 [n], 0 .. n_groups - 1; images of one number are dependent

    @staticmethod
    def of(target: np.ndarray, group: np.ndarray, where: str) -> "Images":
        """From 0/1 [n] and group names [n] of any sortable type.

        Raises UserError where a class is missing or lengths differ; `where` begins the message.
        """
        target = np.asarray(target).astype(bool)
        malignant = int(target.sum())
        if malignant in (0, len(target)):
            raise UserError(
                f"{where}: an AUC needs both classes, found {malignant} images of target 1 among "
                f"{len(target)}"
            )
        if len(group) != len(target):
            raise UserError(f"{where}: {len(target)} targets but {len(group)} groups")
        return Images(target, np.unique(np.asarray(group), return_inverse=True)[1])

    @property
    def n_pairs(self) -> int:
        """Pairs of a malignant and a benign image."""
        malignant = int(self.target.sum())
        return malignant * (len(self.target) - malignant)

    @cached_property
    def groups(self) -> Groups:
        """Which groups hold malignant and benign images, and how many."""
        malignant, m = np.unique(self.group[self.target], return_counts=True)
        benign, n = np.unique(self.group[~self.target], return_counts=True)
        n_groups = int(self.group.max()) + 1
        return Groups(malignant, benign, m.astype(np.float32), n.astype(np.float32), n_groups)


@dataclass(frozen=True)
class Trainings:
    """What one fold's models of an arm and of its reference say of the images they are tested on.

    Folds that are tested on the same images (an external set) hold the same `images` object.
    """

    fold: int
    images: Images
    arm: np.ndarray  # float64 [models, n] scores of single models
    reference: np.ndarray  # float64 [models, n]
    pairs: np.ndarray  # int64 [pairs, 2]: a model of the arm, the one of the reference beside it
    seed: np.ndarray  # int64 [pairs], classifier seeds
    gan: np.ndarray  # int64 [pairs], generators; -1 where neither arm has any

    @cached_property
    def seed_level(self) -> np.ndarray:
        """Number of each pair's seed, 0 .. K - 1: int64 [pairs]."""
        return np.unique(self.seed, return_inverse=True)[1]

    @cached_property
    def gan_level(self) -> np.ndarray:
        """Number of each pair's generator, 0 .. G - 1: int64 [pairs]."""
        return np.unique(self.gan, return_inverse=True)[1]

    @property
    def n_seeds(self) -> int:
        """Classifier seeds that both arms have."""
        return int(self.seed_level.max()) + 1

    @property
    def seed_kish(self) -> float:
        """Variance of the mean over pairs, of seeds with variance 1."""
        return kish(np.bincount(self.seed_level))

    @property
    def n_gans(self) -> int:
        """Generators, or 1 where there are none."""
        return int(self.gan_level.max()) + 1

    def of_pairs(self, arm: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Differences [pairs, ...] of what is known of each model, [models, ...]."""
        return arm[self.pairs[:, 0]] - reference[self.pairs[:, 1]]

    def times(self) -> tuple[np.ndarray, np.ndarray]:
        """How often each model of the arm and of the reference is in a pair: int64 [models]."""
        return (
            np.bincount(self.pairs[:, 0], minlength=len(self.arm)),
            np.bincount(self.pairs[:, 1], minlength=len(self.reference)),
        )


def kish(counts: np.ndarray) -> float:
    """Variance of a mean weighted by `counts`, of independent values with variance 1."""
    return float(((counts / counts.sum()) ** 2).sum())


Key = tuple[int, int | None]  # classifier seed, generator (None: the arm has none)


def pair_up(arm: Sequence[Key], reference: Sequence[Key]) -> list[tuple[int, int]]:
    """Places of trainings that belong together: the same seed and, where both have one, generator.

    A training whose partner is missing is in no pair.
    """
    by_key = {key: place for place, key in enumerate(reference)}
    return [
        (place, by_key[key])
        for place, (seed, gan) in enumerate(arm)
        for key in by_key
        if key[0] == seed and (gan is None or key[1] is None or key[1] == gan)
    ]


def trainings_of(
    fold: int,
    images: Images,
    arm: tuple[Sequence[Key], np.ndarray],
    reference: tuple[Sequence[Key], np.ndarray],
) -> Trainings | None:
    """Trainings of a fold from the keys and scores [models, n] of both arms; None without pairs."""
    pairs = pair_up(arm[0], reference[0])
    if not pairs:
        return None
    seeds = [arm[0][of_arm][0] for of_arm, _ in pairs]
    gans = [arm[0][a][1] if arm[0][a][1] is not None else reference[0][b][1] for a, b in pairs]
    return Trainings(
        fold,
        images,
        arm[1],
        reference[1],
        np.array(pairs),
        np.array(seeds),
        np.array([-1 if gan is None else gan for gan in gans]),
    )


def from_cubes(images: Images, a: np.ndarray, b: np.ndarray, where: str) -> Trainings:
    """Of scores float [GAN seeds, classifier seeds, n] in which no training is missing.

    Classifier seeds are in the same order in both; an arm without synthetic images has one "GAN
    seed" and meets each of the other's. Raises UserError where shapes do not fit or a score is not
    finite.
    """
    n = len(images.target)
    fits = a.ndim == b.ndim == 3 and a.shape[1] == b.shape[1] and a.shape[2] == b.shape[2] == n
    if not fits or (len(a) != len(b) and 1 not in (len(a), len(b))):
        raise UserError(
            f"{where}: scores of shape {a.shape} and {b.shape} for {n} images; expected "
            "[GAN seeds, classifier seeds, images] with the same seeds in both arms"
        )
    for scores in (a, b):
        if not np.isfinite(scores).all():
            raise UserError(f"{where}: {int((~np.isfinite(scores)).sum())} scores are not finite")

    def models(cube: np.ndarray) -> tuple[list[Key], np.ndarray]:
        gans: Sequence[int | None] = [None] if len(cube) == 1 else range(len(cube))
        keys: list[Key] = [(seed, gan) for gan in gans for seed in range(cube.shape[1])]
        return keys, np.asarray(cube, np.float64).reshape(-1, n)

    trainings = trainings_of(0, images, models(a), models(b))
    assert trainings is not None
    return trainings


# --- AUCs of many models --------------------------------------------------------------------------


@dataclass(frozen=True)
class Placements:
    """AUCs of models, and what each group of images adds to the error of each."""

    auc: np.ndarray  # float64 [models]
    row: np.ndarray  # float64 [models, malignant groups]
    column: np.ndarray  # float64 [models, benign groups]


def placements(images: Images, scores: np.ndarray) -> Placements:
    """Of scores [models, n], by the midranks of Sun and Xu 2014; ties count half."""
    target, groups = images.target, images.groups
    m, n = int(target.sum()), int((~target).sum())
    ranks = stats.rankdata(scores, axis=1)
    won = (ranks[:, target] - stats.rankdata(scores[:, target], axis=1)) / n
    outranked = 1 - (ranks[:, ~target] - stats.rankdata(scores[:, ~target], axis=1)) / m
    auc = won.mean(axis=1)
    row = _by_group(won - auc[:, None], images.group[target]) / m
    column = _by_group(outranked - auc[:, None], images.group[~target]) / n
    assert row.shape[1] == len(groups.m)
    return Placements(auc, row, column)


def _by_group(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums [models, groups that occur] of [models, images]."""
    order = np.argsort(group, kind="stable")
    first = np.unique(group[order], return_index=True)[1]
    return np.add.reduceat(values[:, order], first, axis=1)
