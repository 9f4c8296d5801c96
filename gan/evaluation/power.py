"""Power spectra of images: by spatial frequency, and along the axes beside between them.

Generators leave too little or too much at the finest frequencies (Durall et al. 2020), and layers
that double a map one axis after the other leave a weave: lesions have no direction of their own.
"""

import cv2
import numpy as np

from dermsynth.records import Record

BINS = 16  # by radius, up to half a cycle a pixel
FIRST_WITH_DIRECTION = 3  # bin; those before have too few frequencies to tell directions apart
TINY = 1e-3  # of a power: what is black altogether has a logarithm too


class SpectrumRecord(Record):
    """Power by spatial frequency, as a difference to training images in dB, low to high."""

    frequency: list[float]  # cycles a pixel, middles of the bins
    synthetic: list[float]
    held_out: list[float]  # real against real: what chance does


def spectrum(synthetic: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> SpectrumRecord:
    """Power by radius: mean over images of log power, synthetic and held-out against training.

    uint8 [n, s, s, 3] each, of one size.
    """
    ours, known, unseen = (_decibels(images)[0] for images in (synthetic, training, held_out))
    return SpectrumRecord(
        frequency=[round((i + 0.5) / (2 * BINS), 5) for i in range(BINS)],
        synthetic=[round(float(value), 2) for value in ours - known],
        held_out=[round(float(value), 2) for value in unseen - known],
    )


def gaps(images: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """How far the power of images is from that of real ones, dB; uint8 [n, s, s, 3] each.

    Returns the mean absolute difference by radius, and the weave: the largest difference, of all
    radii, in how much stronger the directions along the axes are than those between them.
    """
    (power, along), (real_power, real_along) = (_decibels(some) for some in (images, real))
    weave = np.abs(along - real_along)[FIRST_WITH_DIRECTION:].max()
    return float(np.abs(power - real_power).mean()), float(weave)


def _decibels(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over images of grey levels' log power by radius, and of along less between, in dB.

    float [BINS] each.
    """
    side = images.shape[1]
    window = np.hanning(side)[:, None] * np.hanning(side)[None]
    y, x = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    ring = np.minimum((np.hypot(y, x) * 2 * BINS).astype(int), BINS)  # the last: in the corners
    between = np.abs(np.arctan2(np.abs(y), np.abs(x)) - np.pi / 4) < np.pi / 8
    part = (2 * ring + between).ravel()
    sizes = np.bincount(part, minlength=2 * BINS + 2).reshape(-1, 2)[:BINS]
    power, along = np.zeros(BINS), np.zeros(BINS)
    for image in images:
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float64)
        values = np.abs(np.fft.fft2((grey - grey.mean()) * window)).ravel() ** 2
        sums = np.bincount(part, values, minlength=2 * BINS + 2).reshape(-1, 2)[:BINS]
        power += 10 * np.log10(sums.sum(1) / np.maximum(sizes.sum(1), 1) + TINY)
        halves = 10 * np.log10(sums / np.maximum(sizes, 1) + TINY)
        along += halves[:, 0] - halves[:, 1]
    return power / len(images), along / len(images)
