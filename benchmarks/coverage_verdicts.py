"""How often verdicts are wrong when the truth is known: trainings that vary, on finite test sets.

Scores of single models are drawn: what all models see in an image, what an arm sees beyond that,
and what each training sees. Populations of trainings scatter in their true AUC, by classifier seed
in both arms and by generator in the arm in question.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from scipy.special import ndtri

from dermsynth import seeds
from experiments.statistics.comparison import LEAST_GENERATOR_DF, verdict
from experiments.statistics.intervals import Spread
from experiments.statistics.power import detectable
from experiments.statistics.resamples import Resamples
from experiments.statistics.trainings import Images, Trainings, from_cubes
from experiments.statistics.variance import estimate

ALPHA, MARGIN = 0.05, 0.01
OF_SAMPLING = ndtri(0.975) + ndtri(0.8)  # standard errors that are seen with 80% power
BY_TRAINING = 3.0  # image noise of one training, in that of an arm
SETS_PER_DRAW = 50  # test sets that share one set of resamples, for speed


@dataclass(frozen=True)
class World:
    """A design and how much its trainings vary."""

    precision: float  # AUC: what 3 seeds of one generator would see if only images varied
    folds: int
    gans: int
    seeds: int
    seed_scatter: float  # AUC: standard deviation of the population of classifier seeds
    gan_scatter: float  # likewise of generators
    truth: float = 0.0  # mean of AUC(arm) - AUC(reference)
    auc: float = 0.85  # of the reference
    malignant: int = 60  # groups of a fold, of one image each
    benign: int = 120

    @property
    def method(self) -> bool:
        """Whether the verdict is about the method, so that generators count."""
        return self.folds * (self.gans - 1) >= LEAST_GENERATOR_DF


@cache
def images_of(world: World) -> tuple[Images, ...]:
    """The test images of each fold."""
    target = np.arange(world.malignant + world.benign) < world.malignant
    group = np.arange(len(target))
    return tuple(Images.of(target, group, "") for _ in range(world.folds))


def draw(world: World, noise: float, rng: np.random.Generator) -> list[Trainings]:
    """Trainings of all folds. `noise`: variance of what an arm sees in an image beyond others."""
    folds = []
    shape = (world.gans, world.seeds)
    for images in images_of(world):
        n = len(images.target)
        common = np.sqrt(1 - (1 + BY_TRAINING) * noise) * rng.standard_normal(n)
        cubes = []
        for gans, is_arm in ((world.gans, True), (1, False)):
            auc = world.auc + world.seed_scatter * rng.standard_normal((1, world.seeds, 1))
            if is_arm:
                auc = auc + world.truth + world.gan_scatter * rng.standard_normal((gans, 1, 1))
            strength = np.sqrt(2) * ndtri(np.clip(auc, 0.01, 0.999))
            arm = np.sqrt(noise) * rng.standard_normal(n)
            own = np.sqrt(BY_TRAINING * noise) * rng.standard_normal((gans, shape[1], n))
            cubes.append(common + arm + own + strength * images.target)
        folds.append(from_cubes(images, *cubes, ""))
    return folds


@cache
def noise_of(precision: float, folds: int, auc: float, malignant: int, benign: int) -> float:
    """The image noise at which a design of 3 seeds and no scatter has this precision."""
    world = World(precision, folds, 1, 3, 0, 0, 0, auc, malignant, benign)
    noise, wanted = 0.01, precision / OF_SAMPLING
    for _ in range(3):
        rng = seeds.generator("coverage noise")
        drawn = [estimate(draw(world, noise, rng), False).delta for _ in range(600 // folds)]
        noise *= (wanted / np.std(drawn)) ** 2
    return float(noise)


def simulated(world: World, sets: int, bootstrap: int, name: str) -> Iterator[tuple[Any, ...]]:
    """Trainings, estimate and spread of many test sets."""
    noise = noise_of(world.precision, world.folds, world.auc, world.malignant, world.benign)
    rng = seeds.generator(name, *map(str, asdict(world).values()))
    for at in range(sets):
        if at % SETS_PER_DRAW == 0:
            resamples = Resamples(bootstrap, at)
        folds = draw(world, noise, rng)
        found = estimate(folds, count_gans=world.method)
        yield folds, found, Spread.of(found, resamples.differences(folds))


def excludes_zero(spread: Spread, alpha: float = ALPHA) -> int:
    """The sign of an interval that excludes 0; 0 where it does not."""
    low, high = spread.interval(alpha)
    return int(low > 0) - int(high < 0)


def measure_verdicts(world: World, sets: int, bootstrap: int) -> dict[str, float]:
    """How often each word comes out, in percent, with what other rules would say.

    `significant`: an interval without zero, also where the word is `equivalent`. `given the
    models`: an interval without zero for these trained models. `twice`: image noise that
    groups and seeds share is left in both.
    """
    words = dict.fromkeys(("helps", "hurts", "equivalent", "inconclusive", "undecidable"), 0)
    others = {"significant": 0, "given the models": 0, "twice": 0}
    for _, found, spread in simulated(world, sets, bootstrap, "verdicts"):
        models = Spread.of(found, spread.drawn, models_only=True)
        others["given the models"] += excludes_zero(models) != 0
        if found.variance.seeds is None:
            words["undecidable"] += 1
            continue
        others["twice"] += excludes_zero(replace(spread, own=1.0)) != 0
        significant = excludes_zero(spread) != 0
        others["significant"] += significant
        p = 0.0 if significant else 1.0  # on either side of 5%, and alone in its family
        words[verdict(found.delta, p, *spread.interval(2 * ALPHA), MARGIN)] += 1
    return {name: round(100 * count / sets, 2) for name, count in (words | others).items()}


def measure_power(world: World, sets: int, bootstrap: int) -> dict[str, Any]:
    """Power at the smallest visible differences that the design's own test sets state."""
    stated = [
        detectable(folds, found, ALPHA)
        for folds, found, _ in simulated(replace(world, truth=0.0), sets // 5, bootstrap, "stated")
    ]
    result: dict[str, Any] = {}
    for word, sign in (("helps", 1), ("hurts", -1)):
        sizes = [getattr(each, word) for each in stated]
        known = [size for size in sizes if size is not None]
        mde = float(np.mean(known))
        shifted = replace(world, truth=sign * mde)
        found, twice = 0, 0
        for _, _, spread in simulated(shifted, sets, bootstrap, "power"):
            found += excludes_zero(spread) == sign
            twice += excludes_zero(replace(spread, own=1.0)) == sign
        result[word] = {
            "mde": round(mde, 4),
            "not visible": round(100 * (1 - len(known) / len(sizes)), 1),
            "power": round(100 * found / sets, 1),
            "power, twice": round(100 * twice / sets, 1),
        }
    return result


# --- which worlds ---------------------------------------------------------------------------------

PRECISIONS = (0.027, 0.015, 0.006)
SEED_SCATTERS, GAN_SCATTERS = (0.0, 0.0033, 0.008, 0.01), (0.0, 0.005, 0.01)
ROTATED = {"folds": 5, "malignant": 24, "benign": 48}


def worlds() -> list[tuple[World, float]]:
    """Worlds of the table of verdicts, each with its share of the test sets."""
    listed: list[tuple[World, float]] = []
    for precision in PRECISIONS:
        for seed_scatter in SEED_SCATTERS:
            pool = World(precision, 1, 1, 3, seed_scatter, 0.0)
            method = World(precision, 1, 3, 5, seed_scatter, 0.0)
            listed.append((pool, 1.0))
            listed += [(replace(method, gan_scatter=s), 1.0) for s in GAN_SCATTERS]
            listed += [(replace(pool, seeds=count), 0.25) for count in (1, 5)]
            listed += [(replace(method, seeds=3, gan_scatter=s), 0.25) for s in (0.0, 0.01)]
            # asked of the method, which one generator says nothing about
            listed += [(replace(pool, gan_scatter=s), 0.25) for s in (0.005, 0.01)]
            if precision == PRECISIONS[0]:
                continue  # too coarse for `equivalent`
            listed.append((replace(pool, truth=MARGIN), 1.0))
            listed += [(replace(method, gan_scatter=s, truth=MARGIN), 1.0) for s in (0.0, 0.01)]
    for seed_scatter in SEED_SCATTERS:
        pool = World(
            PRECISIONS[-1], gans=1, seeds=3, seed_scatter=seed_scatter, gan_scatter=0.0, **ROTATED
        )
        method = replace(pool, gans=3, seeds=5)
        listed.append((pool, 1.0))
        listed += [(replace(method, gan_scatter=s), 1.0) for s in (0.0, 0.01)]
        if seed_scatter in (0.0, 0.008):
            listed.append((replace(method, gan_scatter=0.005, truth=MARGIN), 1.0))
    return sorted(listed, key=lambda item: (-item[1], item[0].folds))


def power_worlds() -> list[World]:
    """Worlds of the table of power: arms as alike as those of a small, a middle and a large set."""
    listed = []
    for auc in (0.85, 0.93):
        for precision, malignant in ((0.027, 60), (0.015, 200)):
            pool = World(precision, 1, 1, 3, 0.0033, 0.0, 0.0, auc, malignant, 2 * malignant)
            listed += [pool, replace(pool, gans=3, seeds=5, gan_scatter=0.005)]
    rotated = World(0.006, 5, 3, 5, 0.0033, 0.005, 0.0, 0.85, 100, 200)
    return [*listed[:4], rotated, *listed[4:]]
