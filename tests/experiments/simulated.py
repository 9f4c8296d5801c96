"""Simulated test sets that the tests of this folder share."""

from types import SimpleNamespace

import numpy as np
from scipy import stats


def draw(rng, malignant_groups, images, auc=0.85, delta=0.0):
    """Two arms' binormal scores, correlated with each other (0.8) and within groups (0.6).

    `images` a group at most; "3" means always 3. Five benign groups to a malignant one.
    """
    groups = 6 * malignant_groups
    sizes = np.full(groups, 3) if images == "3" else rng.integers(1, int(images) + 1, groups)
    group = np.repeat(np.arange(groups), sizes)
    target = group < malignant_groups

    def effects(count):
        return np.sqrt(0.8) * rng.normal(size=count) + np.sqrt(0.2) * rng.normal(size=(2, count))

    noise = np.sqrt(0.6) * effects(groups)[:, group] + np.sqrt(0.4) * effects(len(group))
    a, b = np.sqrt(2) * stats.norm.ppf([[auc + delta], [auc]]) * target + noise
    return SimpleNamespace(target=target, group=group, a=a, b=b)


def sample(seed=0, malignant_groups=40, delta=0.0):
    return draw(np.random.default_rng(seed), malignant_groups, "4", delta=delta)


def trained(drawn, scores, gans, seeds, rng, noise=0.3, seeds_move=0.0, gans_move=0.0):
    """Scores [gans, seeds, n] of models that err on images and differ in how good they are."""
    moves = (
        rng.normal(0, 1, (gans, 1, 1)) * gans_move + rng.normal(0, 1, (1, seeds, 1)) * seeds_move
    )
    return scores + moves * drawn.target + rng.normal(0, noise, (gans, seeds, len(scores)))
