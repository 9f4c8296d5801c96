import cv2
import numpy as np
import pytest

from gan.evaluation.power import BINS, gaps, spectrum


def test_the_spectrum_falls_by_what_a_gaussian_takes_away():
    noise = np.random.default_rng(0).normal(128, 30, (40, 64, 64, 3)).clip(0, 255).astype(np.uint8)
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 0.8) for image in noise])
    found = spectrum(blurred, noise, noise)
    kernel = cv2.getGaussianKernel(7, 0.8).ravel()
    for at in (4, 6, 8):  # the transfer function of the kernel itself, averaged over directions
        angles = np.linspace(0, np.pi / 2, 50)
        gains = [
            np.abs(
                np.sum(kernel * np.exp(-2j * np.pi * np.arange(7) * f * np.cos(a)))
                * np.sum(kernel * np.exp(-2j * np.pi * np.arange(7) * f * np.sin(a)))
            )
            for f, a in ((found.frequency[at], angle) for angle in angles)
        ]
        assert found.synthetic[at] == pytest.approx(20 * np.log10(np.mean(gains)), abs=0.6)
    assert found.held_out == [0.0] * BINS


def test_the_gap_is_what_a_gain_adds():
    noise = np.random.default_rng(0).integers(100, 150, (20, 64, 64, 3), np.uint8)
    half = (125 + (noise.astype(float) - 125) / 2).astype(np.uint8)
    assert gaps(half, noise)[0] == pytest.approx(20 * np.log10(2), abs=0.3)
    assert gaps(noise, noise) == (0, 0)


def woven(images, gain, low, high):
    """Stronger by `gain` along both axes from `low` to `high` cycles a pixel."""
    side = images.shape[1]
    y, x = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    radius, angle = np.hypot(y, x), np.arctan2(np.abs(y), np.abs(x))
    along = np.abs(angle - np.pi / 4) >= np.pi / 8
    filtered = np.where(along & (radius >= low) & (radius < high), gain, 1.0)[None, :, :, None]
    changed = np.fft.ifft2(np.fft.fft2(images.astype(float), axes=(1, 2)) * filtered, axes=(1, 2))
    return changed.real.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_a_weave_is_seen_by_its_strength_and_a_turn_is_none(gain):
    noise = np.random.default_rng(0).normal(128, 20, (60, 64, 64, 3)).clip(0, 255).astype(np.uint8)
    other = np.random.default_rng(1).normal(128, 20, (60, 64, 64, 3)).clip(0, 255).astype(np.uint8)
    chance = gaps(other, noise)[1]
    assert chance < 0.5
    assert gaps(woven(noise, gain, 0.2, 0.3), noise)[1] == pytest.approx(20 * np.log10(2), abs=0.7)
    turned = noise.transpose(0, 2, 1, 3)[:, ::-1]
    assert gaps(turned, noise)[1] < 1e-6
