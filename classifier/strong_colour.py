"""The pipeline strong-colour: colours as other cameras, lights and programs would have made them.

The places of `siim`; of the images, CHANGED have colours of their own, the others those of `siim`.
"""

import numpy as np

from classifier.published_augment import PIPELINES

CHANGED = 0.6  # share of the images
STRONGLY = 0.9  # of them: that get the changes below
BALANCED = 0.5  # of them: white-balanced first, by shades of grey
CONTRAST, SATURATION = (0.7, 1.35), (0.4, 1.6)  # factors
BRIGHTNESS, HUE = 0.15, 0.06  # most that is added; most by which the hue turns, of the circle
CROSSTALK = 0.06  # deviation of what a channel takes of each channel
BALANCE = 0.13  # deviation of the logarithm of a channel's factor
GAMMA = 0.45  # most of its logarithm, either way
MILD_HUE = 0.01

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
GREY = np.broadcast_to(LUMA, (3, 3))  # each row turns RGB into its brightness
AXIS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)  # of a turn about grey


def draw_colours(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Arguments of `classifier.augment.Views` for n images: all that changes their colours."""
    changed = rng.random(n) < CHANGED
    strong = changed & (rng.random(n) < STRONGLY)
    balanced = changed & (rng.random(n) < BALANCED)
    mild = PIPELINES["siim"].colours
    assert mild is not None

    def factor(far: tuple[float, float], near: float) -> np.ndarray:
        return np.where(strong, rng.uniform(*far, n), rng.uniform(1 - near, 1 + near, n))

    contrast, saturation = factor(CONTRAST, mild.contrast), factor(SATURATION, mild.saturation)
    hue = np.where(strong, HUE, MILD_HUE) * rng.uniform(-1, 1, n)
    crosstalk = np.eye(3) + CROSSTALK * rng.standard_normal((n, 3, 3))
    crosstalk /= crosstalk.sum(2, keepdims=True)  # grey stays grey
    balance = np.exp(rng.normal(0, BALANCE, (n, 3, 1)))
    balance /= balance.mean(1, keepdims=True)
    colour = _turned_hue(2 * np.pi * hue) @ saturated(saturation[:, None, None])
    changes = {
        "colour": np.where(strong[:, None, None], balance * (crosstalk @ colour), colour),
        "contrast": contrast,
        "middle": np.where(strong[:, None, None], balance * GREY, GREY),
        "brightness": np.where(strong, BRIGHTNESS, mild.brightness) * rng.uniform(-1, 1, n),
        "gamma": np.where(strong, np.exp(rng.uniform(-GAMMA, GAMMA, n)), 1),
    }
    return {name: array.astype(np.float32) for name, array in changes.items()} | {
        "balanced": balanced
    }


def _turned_hue(angle: np.ndarray) -> np.ndarray:
    """float64 [n, 3, 3] of angles [n]: a turn of RGB about the grey axis."""
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return cosine * np.eye(3) + sine * AXIS + (1 - cosine) / 3


def saturated(factor: np.ndarray) -> np.ndarray:
    """float [n, 3, 3] of factors [n, 1, 1]: distance of a colour from its grey."""
    return factor * np.eye(3, dtype=factor.dtype) + (1 - factor) * GREY
