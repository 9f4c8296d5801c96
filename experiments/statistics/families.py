"""Which comparisons are tested together, and what that does to their p-values."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from experiments.statistics.curves import ALPHA

Family = Literal["primary", "secondary", "external-primary", "external-secondary"]


def family_of(test_sets: Sequence[str]) -> list[Family]:
    """The family of each comparison, given the test set of each in order."""
    families: list[Family] = []
    for test_set in test_sets:
        first: Family = "external-primary" if test_set.startswith("external/") else "primary"
        rest: Family = "secondary" if first == "primary" else "external-secondary"
        families.append(rest if first in families else first)
    return families


def worst_level(family: Family, members: int) -> float:
    """The level at which the least p of a family is tested: that at which any is sure to count."""
    return ALPHA if family.endswith("primary") else ALPHA / max(1, members)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979), in the order given."""
    adjusted = np.array(p_values, dtype=float)
    order = np.argsort(adjusted)
    steps = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()
