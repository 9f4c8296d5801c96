"""Error rates of intervals for the AUC difference of two models when images come in groups.

Scores of two arms are drawn with known AUCs and a known dependence within patients or lesions, and
each method's 95% interval is asked whether it holds the truth. `widened percentile` is the one that
experiments.statistics uses for the part of the groups.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy import stats

from dermsynth import seeds
from dermsynth.group_bootstrap import Pairs, clustered, count_pairs, estimates, group_draws
from dermsynth.group_bootstrap import interval as widened_percentile
from experiments.statistics.curves import delong_test

Interval = tuple[float, float]


@dataclass(frozen=True)
class Design:
    """A binormal test set: score = strength * label + group effect + image effect."""

    malignant_groups: int
    images: str  # a group: "3" (or another number), "1-3" (uniform), "patient" (many, mixed labels)
    auc: float  # of the reference
    between_arms: float = 0.8  # correlation of the arms' scores of one image, given its label
    within_group: float = 0.6  # share of the variance that the images of a group have in common
    delta: float = 0.0  # true AUC(arm) - AUC(reference)
    benign_ratio: int = 5  # benign groups for each malignant one


@dataclass(frozen=True)
class Sample:
    """One simulated test set; target, group, a, b: [n]."""

    target: np.ndarray
    group: np.ndarray
    a: np.ndarray
    b: np.ndarray


def draw(design: Design, rng: np.random.Generator) -> Sample:
    """A test set of a design."""
    groups = design.malignant_groups * (1 + design.benign_ratio)
    if design.images == "patient":
        sizes = np.minimum(1 + rng.geometric(0.15, groups), 30)
    elif design.images == "1-3":
        sizes = rng.integers(1, 4, groups)
    else:
        sizes = np.full(groups, int(design.images))
    group = np.repeat(np.arange(groups), sizes)
    target = group < design.malignant_groups
    if design.images == "patient":
        first = np.append(True, group[1:] != group[:-1])
        target &= first | (rng.random(len(group)) < 0.3)

    def effects(count: int) -> np.ndarray:
        shared, *own = rng.standard_normal((3, count))
        r = design.between_arms
        return np.sqrt(r) * shared + np.sqrt(1 - r) * np.array(own)

    share = design.within_group
    noise = np.sqrt(share) * effects(groups)[:, group] + np.sqrt(1 - share) * effects(len(group))
    strength = np.sqrt(2) * stats.norm.ppf([design.auc + design.delta, design.auc])
    a, b = strength[:, None] * target + noise
    return Sample(target, group, a, b)


# --- the methods ----------------------------------------------------------------------------------


def intervals(sample: Sample, weights: np.ndarray) -> dict[str, Interval]:
    """Each method's 95% interval of AUC(a) - AUC(b); weights: [resamples, groups] for all."""
    one, other = (count_pairs(sample.target, sample.group, s[None]) for s in (sample.a, sample.b))
    pairs = replace(one, wins=one.wins - other.wins)  # all below is linear in them
    delta, variance, df = clustered(pairs)
    drawn = np.sort(estimates(pairs, weights))
    _, image_se, _ = delong_test(sample.target, sample.a, sample.b)
    z, t = stats.norm.ppf(0.975), stats.t.ppf(0.975, df)
    symmetric = {
        "DeLong (images)": z * image_se,
        "Obuchowski, t": t * np.sqrt(variance),
        "bootstrap SE, t": t * drawn.std(),
        "bootstrap-t": _studentised(pairs, weights, delta) * np.sqrt(variance),
    }
    ends = {name: (delta - reach, delta + reach) for name, reach in symmetric.items()}
    ends["percentile"] = tuple(np.quantile(drawn, [0.025, 0.975], method="weibull"))
    ends["BCa"] = _bca(pairs, drawn, delta)
    ends["widened percentile"] = widened_percentile(drawn, df, 0.05, (-1.0, 1.0))
    return ends


def _studentised(pairs: Pairs, weights: np.ndarray, delta: float) -> float:
    """The 95% quantile of |estimate - delta| / its own clustered standard error."""
    row, column = weights[:, pairs.malignant], weights[:, pairs.benign]
    m, n = (row @ pairs.m)[:, None], (column @ pairs.n)[:, None]
    by_row, by_column = (
        column @ pairs.wins.T / (n * pairs.unit),
        row @ pairs.wins / (m * pairs.unit),
    )
    value = (row * by_row).sum(axis=1, keepdims=True) / m
    influence = np.zeros_like(weights)
    rows, columns = row.sum(axis=1, keepdims=True), column.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.sqrt(rows / (rows - 1)) * (by_row - pairs.m * value) / m
        influence[:, pairs.malignant] += part
        part = np.sqrt(columns / (columns - 1)) * (by_column - pairs.n * value) / n
        influence[:, pairs.benign] += part
        se = np.sqrt((weights * influence**2).sum(axis=1))
        ratios = np.abs(value[:, 0] - delta) / se
    return np.sort(np.nan_to_num(ratios, nan=1e3, posinf=1e3))[int(0.95 * (len(weights) + 1)) - 1]


def _bca(pairs: Pairs, drawn: np.ndarray, delta: float) -> Interval:
    """Efron's bias-corrected accelerated interval, acceleration from the groups' influence."""
    m, n = pairs.m.sum(), pairs.n.sum()
    influence = np.zeros(pairs.n_groups)
    influence[pairs.malignant] += (pairs.wins.sum(axis=1) / pairs.unit / n - pairs.m * delta) / m
    influence[pairs.benign] += (pairs.wins.sum(axis=0) / pairs.unit / m - pairs.n * delta) / n
    acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    below = ((drawn < delta).mean() + (drawn <= delta).mean()) / 2
    bias = stats.norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))
    z = bias + stats.norm.ppf([0.025, 0.975])
    levels = stats.norm.cdf(bias + z / (1 - acceleration * z))
    return tuple(np.quantile(drawn, levels, method="weibull"))


def measure(design: Design, replicates: int, bootstrap: int) -> dict:
    """Rates of a design: `miss` (the truth outside), `reject` (0 outside), in percent; `width`."""
    rng = seeds.generator("coverage", *asdict(design).values())
    groups = design.malignant_groups * (1 + design.benign_ratio)
    drawn_intervals: dict[str, list[Interval]] = {}
    for at in range(replicates):
        if at % 50 == 0:  # one set of resamples for 50 test sets, for speed
            weights = np.concatenate(list(group_draws(groups, bootstrap, at)))
        for name, ends in intervals(draw(design, rng), weights).items():
            drawn_intervals.setdefault(name, []).append(ends)
    rates = {}
    for name, ends in drawn_intervals.items():
        low, high = np.array(ends).T
        rates[name] = {
            "miss": round(100 * float(np.mean((low > design.delta) | (high < design.delta))), 2),
            "reject": round(100 * float(np.mean((low > 0) | (high < 0))), 2),
            "width": round(float(np.mean(high - low)), 4),
        }
    return rates


def designs() -> list[Design]:
    """What skin-lesion test sets look like, from a pilot's to a challenge's."""
    shapes: list[Callable[[int], Design]] = [
        lambda count: Design(count, "3", 0.85),
        lambda count: Design(count, "3", 0.75, between_arms=0.5, within_group=0.9),
        lambda count: Design(count, "1-3", 0.85, between_arms=0.95, within_group=0.3),
        lambda count: Design(count, "1-3", 0.95, between_arms=0.9),
        lambda count: Design(count, "1", 0.95, between_arms=0.9),
        lambda count: Design(count, "patient", 0.85, between_arms=0.9, within_group=0.4),
        lambda count: Design(count, "1-3", 0.88, 0.9, delta=round(0.3 / count**0.5, 3)),
    ]
    return [shape(count) for count in (15, 30, 60, 120) for shape in shapes]
