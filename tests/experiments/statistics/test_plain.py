"""The rule written a second time, from its description and with NumPy alone.

Every pair of images is looked at, groups are summed in loops, quantiles come from the tables of a
textbook. Numbers of one experiment agree to rounding; rates of the coverage tables within chance.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.coverage_verdicts import World, noise_of
from benchmarks.provenance import read_result
from experiments.statistics.intervals import Spread
from experiments.statistics.resamples import Resamples
from experiments.statistics.trainings import Images, from_cubes
from experiments.statistics.variance import estimate

T_975 = {2: 4.3027, 4: 2.7764, 8: 2.3060, 10: 2.2281, 20: 2.0860, 59: 2.0010, 119: 1.9801}
RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "coverage.json"


def pairs_won(target, score):
    """1, 1/2 or 0 for each malignant image beside each benign one."""
    won = score[target][:, None] - score[~target][None, :]
    return (won > 0) + 0.5 * (won == 0)


def variance_over_groups(target, group, difference):
    """Obuchowski's, of a matrix [malignant images, benign images] of pairs won or lost."""
    mean, (m, n) = difference.mean(), difference.shape
    of_malignant, of_benign = group[target], group[~target]
    rows, columns = len(set(of_malignant)), len(set(of_benign))
    total = 0.0
    for one in set(group):
        row, column = of_malignant == one, of_benign == one
        part = 0.0
        if row.any():
            deviation = difference[row].mean(axis=1).sum() - mean * row.sum()
            part += np.sqrt(rows / (rows - 1)) * deviation / m
        if column.any():
            deviation = difference[:, column].mean(axis=0).sum() - mean * column.sum()
            part += np.sqrt(columns / (columns - 1)) * deviation / n
        total += part**2
    return total


def plain(folds):
    """Difference and standard errors; folds: (target, group, arm [G, K, n], reference [K, n])."""
    weights = np.array([t.sum() * (~t).sum() for t, *_ in folds], float)
    weights /= weights.sum()
    delta = groups = crossed = 0.0
    squares, free = {"seeds": 0.0, "gans": 0.0}, {"seeds": 0, "gans": 0}
    shrink = {"seeds": 0.0, "gans": 0.0}
    for weight, (target, group, arm, reference) in zip(weights, folds, strict=True):
        gans, seeds = arm.shape[:2]
        cells = np.array(
            [
                [
                    pairs_won(target, arm[g, s]) - pairs_won(target, reference[s])
                    for s in range(seeds)
                ]
                for g in range(gans)
            ]
        )
        mean = cells.mean(axis=(0, 1))
        delta += weight * mean.mean()
        groups += weight**2 * variance_over_groups(target, group, mean)
        of_one_seed = sum(
            variance_over_groups(target, group, cells[:, s].mean(axis=0) - mean)
            for s in range(seeds)
        ) / (seeds - 1)
        crossed += weight**2 * of_one_seed / seeds
        aucs = cells.mean(axis=(2, 3))
        for name, means in (("seeds", aucs.mean(axis=0)), ("gans", aucs.mean(axis=1))):
            squares[name] += ((means - means.mean()) ** 2).sum()
            free[name] += len(means) - 1
            shrink[name] += weight**2 / len(means)
    of_training = {
        name: (squares[name] / free[name] * shrink[name] if free[name] else 0.0, free[name])
        for name in squares
    }
    return delta, groups, crossed, of_training


def significant(folds, df_groups):
    """Whether the 95% interval excludes 0; Student's t for groups in place of the bootstrap."""
    delta, groups, crossed, of_training = plain(folds)
    square = T_975[df_groups] ** 2 * max(0.0, groups - crossed)
    for variance, df in of_training.values():
        square += T_975[df] ** 2 * variance if df else 0.0
    return abs(delta) > np.sqrt(max(square, T_975[df_groups] ** 2 * groups))


def simulate(world, noise, rng):
    """The benchmark's world, drawn by other means."""
    folds = []
    for _ in range(world.folds):
        n = world.malignant + world.benign
        target = np.arange(n) < world.malignant
        base = np.sqrt(1 - 4 * noise) * rng.normal(size=n)
        sides = []
        for gans, spread in ((world.gans, world.gan_scatter), (1, 0.0)):
            auc = world.auc + rng.normal(0, world.seed_scatter, (1, world.seeds))
            auc = auc + rng.normal(0, spread, (gans, 1))
            own = rng.normal(0, np.sqrt(3 * noise), (gans, world.seeds, n))
            strength = np.sqrt(2) * probit(auc)
            side = base + rng.normal(0, np.sqrt(noise), n) + own
            sides.append(side + strength[..., None] * target)
        folds.append((target, np.arange(n), sides[0], sides[1][0]))
    return folds


GRID = np.linspace(-4, 4, 80001)
NORMAL = np.cumsum(np.exp(-(GRID**2) / 2)) / np.exp(-(GRID**2) / 2).sum()


def probit(p):
    """The normal quantile, from a sum over the density."""
    return np.interp(p, NORMAL, GRID)


def grouped(rng, malignant_groups, gans, seeds):
    """A fold whose images come in groups, some of both classes, with ties."""
    n = malignant_groups * 8
    group = rng.integers(0, malignant_groups * 4, n)
    target = rng.random(n) < 0.3
    base = rng.normal(size=n) + 1.2 * target
    arm = (base + rng.normal(0, 0.4, (gans, seeds, n))).round(1)
    return target, group, arm, (base + rng.normal(0, 0.4, (seeds, n))).round(1)


@pytest.mark.parametrize(("count", "gans", "seeds"), [(1, 1, 3), (1, 3, 2), (3, 2, 3)])
def test_numbers_agree_with_the_plain_rule(count, gans, seeds):
    rng = np.random.default_rng(count)
    folds = [grouped(rng, 12 + 3 * at, gans, seeds) for at in range(count)]
    found = estimate(
        [from_cubes(Images.of(t, g, ""), a, b[None], "") for t, g, a, b in folds], gans > 1
    )
    delta, groups, crossed, of_training = plain(folds)
    variance = found.variance
    assert found.delta == pytest.approx(delta)
    assert variance.groups.variance == pytest.approx(groups)
    assert variance.crossed == pytest.approx(crossed)
    assert (variance.seeds.variance, variance.seeds.df) == pytest.approx(of_training["seeds"])
    if gans > 1:
        assert (variance.gans.variance, variance.gans.df) == pytest.approx(of_training["gans"])


def compare_decisions(world, noise, sets, seed=0):
    """How often the plain rule and the program's own find a difference in the same test sets."""
    rng = np.random.default_rng(seed)
    found = np.zeros((sets, 2), bool)
    resamples = Resamples(399)
    for at in range(sets):
        folds = simulate(world, noise, rng)
        if at % 50 == 0:
            resamples = Resamples(399, at)
        cubes = [from_cubes(Images.of(t, g, ""), a, b[None], "") for t, g, a, b in folds]
        known = estimate(cubes, world.method)
        low, high = Spread.of(known, resamples.differences(cubes)).interval(0.05)
        found[at] = significant(folds, world.folds * world.malignant - 1), low > 0 or high < 0
    return found


def test_decisions_agree_with_the_plain_rule():
    world = World(0.015, 1, 3, 5, 0.008, 0.005)
    plainly, ours = compare_decisions(world, 0.006, 40).T
    assert (plainly != ours).mean() <= 0.05
    assert ours.mean() < 0.15


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [
        World(0.027, 1, 3, 5, 0.0033, 0.005),
        World(0.015, 1, 1, 3, 0.008, 0.0),
        World(0.015, 1, 3, 5, 0.0, 0.01),
        World(0.006, 1, 3, 5, 0.01, 0.01),
    ],
)
def test_the_plain_rule_gives_the_rates_of_the_coverage_table(world):
    """Within three standard errors, and at most 6%, as the program's own."""
    rows = read_result(RESULTS)["tables"]["verdicts"]
    recorded = next(row for row in rows if asdict(world).items() <= row["setting"].items())
    noise = noise_of(world.precision, 1, world.auc, world.malignant, world.benign)
    rng = np.random.default_rng(1)
    sets = 1000
    rate = np.mean([significant(simulate(world, noise, rng), 59) for _ in range(sets)])
    expected = recorded["rates"]["significant"] / 100
    assert abs(rate - expected) < 3 * np.sqrt(2 * 0.03 / sets)
    assert rate <= 0.06
