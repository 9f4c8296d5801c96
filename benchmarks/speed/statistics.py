"""The statistics of a comparison, beside the loops that people write and a library's DeLong."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.speed.place import Pieces, Place
from benchmarks.speed.timing import Way, comparison, in_turn, significant
from dermsynth import seeds
from dermsynth.group_bootstrap import count_pairs, estimates, group_draws
from experiments import statistics
from experiments.statistics.resamples import Resamples
from experiments.statistics.trainings import Images, Trainings, from_cubes

IMAGES, GROUPS, MALIGNANT = 10_000, 7_500, 1_100  # of a test set as large as HAM10000
SEEDS, GANS = 5, 3
TESTS = 20  # at a time, each takes milliseconds


def measure(place: Place) -> Pieces:
    """Bootstrap and DeLong beside others', and what whole experiments cost by arms and seeds."""
    n = place.pick(400, 2000, 2000)
    target, group, a, b = scores(n)
    resamples = place.pick(20, 200, 200)
    ways = [
        Way("ours, all resamples at once", lambda: bootstrap(target, group, a, b, resamples), True),
        Way("loop over scikit-learn", lambda: naive(target, group, a, b, resamples)),
    ]
    times = in_turn(ways, place.rounds, place.device)
    what = f"bootstrap of groups, difference of two AUCs, {n} images"
    yield {"comparisons": [comparison(what, resamples, "resamples", times)]}
    ways = [
        Way("ours, midranks", often(lambda: statistics.delong_test(target, a, b)), True),
        *place.optional("MLstatkit, midranks", lambda name: Way(name, mlstatkit(target, a, b))),
        Way("all pairs, as in the paper", often(lambda: every_pair(target, a, b))),
    ]
    times = in_turn(ways, place.rounds, place.device)
    yield {"comparisons": [comparison(f"DeLong's test, {n} images", TESTS, "tests", times)]}
    yield {"curves": [by_arms(place)]}
    yield {"curves": [by_seeds(place)]}


def often(test: Callable[[], object]) -> Callable[[], object]:
    """A test TESTS times."""
    return lambda: [test() for _ in range(TESTS)]


def scores(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Targets, groups, and what two classifiers say of n images."""
    rng = seeds.generator("speed", n)
    target = (np.arange(n) < n * MALIGNANT // IMAGES).astype(int)
    common = rng.normal(size=n) + 1.5 * target
    a, b = (common + 0.3 * rng.normal(size=n) for _ in range(2))
    return target, np.arange(n) * GROUPS // IMAGES, a, b


def bootstrap(
    target: np.ndarray, group: np.ndarray, a: np.ndarray, b: np.ndarray, resamples: int
) -> np.ndarray:
    """Differences of AUC over resamples of groups, by our arithmetic."""
    numbers = np.unique(group, return_inverse=True)[1]
    first, second = (count_pairs(target.astype(bool), numbers, each[None]) for each in (a, b))
    draws = group_draws(first.n_groups, resamples, 0)
    return np.concatenate([estimates(first, w) - estimates(second, w) for w in draws])


def naive(
    target: np.ndarray, group: np.ndarray, a: np.ndarray, b: np.ndarray, resamples: int
) -> np.ndarray:
    """Differences of AUC over resamples of groups, as they are usually drawn."""
    rng = np.random.default_rng(0)
    members = {name: np.flatnonzero(group == name) for name in np.unique(group)}
    names, drawn = list(members), []
    while len(drawn) < resamples:
        chosen = rng.choice(names, len(names))
        rows = np.concatenate([members[name] for name in chosen])
        if 0 < target[rows].sum() < len(rows):
            first, second = (roc_auc_score(target[rows], each[rows]) for each in (a, b))
            drawn.append(first - second)
    return np.array(drawn)


def mlstatkit(target: np.ndarray, a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    """Raises ImportError without MLstatkit."""
    from MLstatkit import Delong_test

    return often(lambda: Delong_test(target, a, b))


def every_pair(target: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """DeLong's p from the matrix of pairs, the paper's own formula."""
    malignant, benign = np.flatnonzero(target), np.flatnonzero(target == 0)
    rows, columns = [], []
    for each in (a, b):
        difference = each[malignant][:, None] - each[benign][None]
        wins = (difference > 0) + 0.5 * (difference == 0)
        rows.append(wins.mean(1))
        columns.append(wins.mean(0))
    covariance = np.cov(rows) / len(malignant) + np.cov(columns) / len(benign)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    delta = rows[0].mean() - rows[1].mean()
    return float(delta / np.sqrt(variance))


# ---------------------------------------------------------------------------- whole experiments


def experiment(
    arms: int, n_seeds: int, n_gans: int, folds: int = 1, n: int = IMAGES
) -> list[list[Trainings]]:
    """Trainings of every arm but the first beside it, fold by fold."""
    rng = seeds.generator("comparisons", folds)
    compared: list[list[Trainings]] = [[] for _ in range(arms - 1)]
    for _ in range(folds):
        size = n // folds
        target = np.arange(size) < MALIGNANT * size // IMAGES
        images = Images.of(target, np.arange(size) * GROUPS // IMAGES, "benchmark")
        common = rng.normal(size=size) + 1.5 * target
        reference = common + 0.3 * rng.normal(size=(1, n_seeds, size))
        for of_arm in compared:
            drawn = common + 0.3 * rng.normal(size=(n_gans, n_seeds, size))
            of_arm.append(from_cubes(images, drawn, reference, "benchmark"))
    return compared


def rows(compared: list[list[Trainings]], replicates: int = 2000) -> list[dict[str, Any]]:
    """From scores to rows of comparisons.json."""
    resamples = Resamples(replicates)
    found = [
        statistics.difference(
            statistics.Names(f"arm {at}", "real", "test"), folds, True, 0.01, resamples
        )
        for at, folds in enumerate(compared)
    ]
    return statistics.finish(found)


def by_arms(place: Place) -> dict[str, Any]:
    """Every arm against the first, of 5 seeds and 3 generators, on HAM10000's size."""
    points = []
    for arms in place.pick((2, 3), (2, 4, 10), (2, 4, 10)):
        compared = experiment(arms, SEEDS, GANS, n=place.pick(1000, IMAGES, IMAGES))
        points.append({"at": arms} | cost(place, compared))
    what = f"all comparisons, {SEEDS} seeds, {GANS} generators, 2,000 resamples"
    return {"what": what, "over": "arms", "points": points}


def by_seeds(place: Place) -> dict[str, Any]:
    """Two arms, 3 generators."""
    points = []
    for n_seeds in place.pick((2, 3), (3, 5, 10, 20), (3, 5, 10, 20)):
        compared = experiment(2, n_seeds, GANS, n=place.pick(1000, IMAGES, IMAGES))
        points.append({"at": n_seeds} | cost(place, compared))
    what = f"one comparison, {GANS} generators, 2,000 resamples"
    return {"what": what, "over": "classifier seeds", "points": points}


def cost(place: Place, compared: list[list[Trainings]]) -> dict[str, float]:
    """Least seconds of two turns."""
    work = [Way("", lambda: rows(compared, place.pick(200, 2000, 2000)), True)]
    (times,) = in_turn(work, place.pick(1, 2, 2), place.device, warm_ups=0)
    return {
        "seconds": significant(min(times.seconds)),
        "cpu_seconds": significant(min(times.cpu_seconds)),
    }
