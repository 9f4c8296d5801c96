import numpy as np
import pytest
from scipy.signal import convolve2d

from data.pool_quality import thumbnails
from dermsynth.symmetries import turn as symmetry
from gan.evaluation.metrics import nearest_distances
from gan.evaluation.pairs import FIGURES, aligned, figures, nearest

PERFECT = {"psnr": 80, "ssim": 1, "ms_gmsd": 0, "mdsi": 0, "haarpsi": 1}


def test_each_image_finds_its_own_original_however_turned(make_lesions):
    real = make_lesions(40, 48, seed=1)
    order = np.random.default_rng(0).permutation(40)[:24]
    noise = np.random.default_rng(1).normal(0, 6, (24, 48, 48, 3))
    turned = np.stack([symmetry(real[at], number % 8) for number, at in enumerate(order)])
    queries = (turned + noise).clip(0, 255).astype(np.uint8)
    found = nearest(*nearest_distances(thumbnails(queries), thumbnails(real)[0]))
    assert found.index.tolist() == order.tolist()
    back = aligned(queries, found)
    assert np.abs(back.astype(int) - real[order]).mean() < 8  # as much as the noise


def test_equal_images_are_perfect_and_blurred_ones_are_not(make_lesions):
    real = make_lesions(6, 64, seed=2)
    noise = np.random.default_rng(0).normal(0, 25, real.shape)
    same, other = figures(real, real), figures(real, (real + noise).clip(0, 255).astype(np.uint8))
    for name in FIGURES:
        assert same[name] == pytest.approx(PERFECT[name], abs=1e-3), name
        assert other[name].shape == (6,)
        assert ((other[name] < same[name]) if PERFECT[name] else (other[name] > 0.01)).all(), name


def test_psnr_is_by_the_formula(make_lesions):
    one, other = make_lesions(4, 32, seed=3), make_lesions(4, 32, seed=4)
    mse = np.square(one / 255 - other / 255).mean((1, 2, 3))
    assert figures(one, other)["psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-4)


def test_mdsi_is_that_of_its_paper(make_lesions):
    """Nafchi et al. 2016, equations 1-10, at sides below 384 px (no reduction)."""
    one, other = make_lesions(3, 96, seed=5), make_lesions(3, 96, seed=6)
    expected = [_mdsi(a.astype(float), b.astype(float)) for a, b in zip(one, other, strict=True)]
    assert figures(other, one)["mdsi"] == pytest.approx(expected, abs=1e-4)


def _mdsi(reference, distorted):
    dx = np.array([[1, 0, -1]] * 3) / 3

    def gradient(light):
        return np.hypot(convolve2d(light, dx, "same"), convolve2d(light, dx.T, "same"))

    def alike(a, b, constant):
        return (2 * a * b + constant) / (a**2 + b**2 + constant)

    light, h, m = (
        (reference @ weights, distorted @ weights)
        for weights in ([0.2989, 0.587, 0.114], [0.30, 0.04, -0.35], [0.34, -0.6, 0.17])
    )
    r, d, f = gradient(light[0]), gradient(light[1]), gradient(sum(light) / 2)
    gradients = alike(r, d, 140) + alike(d, f, 55) - alike(r, f, 55)
    colours = (2 * (h[0] * h[1] + m[0] * m[1]) + 550) / (
        h[0] ** 2 + h[1] ** 2 + m[0] ** 2 + m[1] ** 2 + 550
    )
    q = (0.6 * gradients + 0.4 * colours).astype(complex) ** 0.25
    return np.abs(q - q.mean()).mean() ** 0.25
