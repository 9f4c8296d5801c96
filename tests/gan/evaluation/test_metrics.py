import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from torch_fidelity.metric_kid import kernel_mmd

from gan.evaluation.metrics import (
    kid,
    kid_spread,
    memorisation,
    nearest_distances,
    precision_recall,
)


def normal(n, d=16, mean=0.0, seed=0):
    return np.random.default_rng(seed).normal(mean, 1, (n, d))


POLYNOMIAL = {
    "kid_kernel": "poly",
    "kid_kernel_poly_degree": 3,
    "kid_kernel_poly_gamma": None,
    "kid_kernel_poly_coef0": 1,
}


@settings(max_examples=25)
@given(st.integers(5, 40), st.integers(2, 30), st.floats(-2, 2), st.integers(0, 1000))
def test_kid_equals_torch_fidelitys(n, d, mean, seed):
    x, y = normal(n, d, mean, seed), normal(n, d, 0, seed + 1)
    assert kid(x, y) == pytest.approx(kernel_mmd(x, y, **POLYNOMIAL), rel=1e-6, abs=1e-9)


def test_kid_is_unbiased_and_its_spread_is_honest():
    draws = [(normal(60, seed=2 * s), normal(40, seed=2 * s + 1)) for s in range(60)]
    values = [kid(x, y) for x, y in draws]
    spread = np.std(values, ddof=1)
    assert abs(np.mean(values)) < 3 * spread / np.sqrt(60)  # true value 0, at small n too
    x, y = (np.concatenate([normal(60, mean=0.6, seed=7)]), normal(40, seed=8))
    many = [kid(normal(60, mean=0.6, seed=s), normal(40, seed=s + 500)) for s in range(60)]
    assert kid_spread(x, y, 0) == pytest.approx(np.std(many, ddof=1), rel=0.4)


def test_kid_tells_distributions_apart():
    same, other = (
        kid(normal(100, seed=1), normal(100, seed=2)),
        kid(normal(100, mean=1.0, seed=1), normal(100, seed=2)),
    )
    assert other > 20 * abs(same)
    assert kid_spread(normal(50), normal(50, seed=1), 3) == kid_spread(
        normal(50), normal(50, seed=1), 3
    )


def test_precision_and_recall_against_a_count_by_hand():
    real, synthetic = normal(40, 3, seed=1), normal(30, 3, mean=0.7, seed=2)
    k = 5

    def radii(points):
        return [sorted(np.linalg.norm(points - p, axis=1))[k] for p in points]

    def inside(points, centres, radius):  # [points, centres]
        return np.array(
            [[np.linalg.norm(p - c) < r for c, r in zip(centres, radius, strict=True)]
             for p in points]
        )  # fmt: skip

    hits = inside(synthetic, real, radii(real))
    scores = precision_recall(real, synthetic)
    assert scores["precision"] == pytest.approx(hits.any(1).mean())
    assert scores["density"] == pytest.approx(hits.sum(1).mean() / k)
    assert scores["coverage"] == pytest.approx(hits.any(0).mean())
    assert scores["recall"] == pytest.approx(
        inside(real, synthetic, radii(synthetic)).any(1).mean()
    )


def check(synthetic, training, held_out, groups=None):
    reals = np.concatenate([training, held_out])
    groups = np.arange(len(reals)) if groups is None else groups
    return memorisation(cdist(synthetic, reals), cdist(held_out, reals), groups, len(training), 0)


def test_copies_are_flagged():
    training, held_out = normal(120, seed=1), normal(40, seed=2)
    found = check(training[:100] + normal(100, seed=3) * 0.01, training, held_out)
    assert found.flagged
    assert found.ratio < 0.1
    assert found.p_permutation == 0.001
    assert found.p_mann_whitney < 1e-6
    assert found.near_copies > 0.9
    assert found.share_nearest_training == 1


def test_a_few_copies_among_many_new_images_are_flagged():
    training, held_out = normal(120, seed=1), normal(40, seed=2)
    synthetic = np.concatenate([normal(90, seed=4), training[:10]])
    assert check(synthetic, training, held_out).flagged


@pytest.mark.slow
def test_new_images_are_seldom_flagged():
    found = [
        check(normal(100, seed=s), normal(120, seed=s + 100), normal(40, seed=s + 200))
        for s in range(12)
    ]
    assert sum(part.flagged for part in found) <= 1
    assert np.mean([part.p_permutation < 0.05 for part in found]) <= 0.2
    assert np.mean([part.ratio for part in found]) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_a_collapsed_generator_is_not_taken_for_a_copier():
    """One image many times over: no independent evidence, which Mann-Whitney does not know."""
    found = [
        check(
            normal(1, seed=s).repeat(100, 0) + normal(100, seed=s + 50) * 1e-3,
            normal(120, seed=s + 100),
            normal(40, seed=s + 200),
        )
        for s in range(12)
    ]
    assert np.mean([part.p_permutation < 0.05 for part in found]) <= 0.2


def test_images_of_ones_own_lesion_are_no_reference():
    """Held-out images come in pairs: without the group rule each has a twin at no distance."""
    training, held_out = normal(120, seed=1), normal(20, seed=2).repeat(2, 0)
    groups = np.concatenate([np.arange(120), 1000 + np.arange(20).repeat(2)])
    found = check(normal(100, seed=3), training, held_out, groups)
    assert 0.5 < found.median_reference < 2
    assert not found.flagged


def test_nearest_distance_takes_the_best_version():
    queries = np.array([[[0.0, 0.0]], [[3.0, 4.0]]])  # two versions of one query
    distances, versions = nearest_distances(queries, np.array([[3.0, 0.0], [3.0, 5.0]]))
    assert distances.tolist() == [[3.0, 1.0]]
    assert versions.tolist() == [[0, 1]]
