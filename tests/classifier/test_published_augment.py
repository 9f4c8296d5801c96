"""Published pipelines against albumentations, which they were written with."""

import random

import albumentations as A
import cv2
import numpy as np
import pytest

from classifier.augment import draw_views, load_batch
from classifier.published_augment import B3


def moved(turns, most):
    limits = {
        "scale": (1 - most.zoom, 1 + most.zoom),
        "translate_percent": (-most.shift, most.shift),
        "shear": {axis: (-far, far) for axis, far in zip("xy", most.shear, strict=True)},
        "border_mode": cv2.BORDER_REPLICATE,
        "p": 1.0,
    }
    return A.OneOf([A.Affine(rotate=(-angle, angle), **limits) for angle in turns], p=1.0)


FLIPS = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
TURN = A.Rotate((-180, 180), border_mode=cv2.BORDER_REFLECT_101, p=1.0)
REFERENCES = {
    "rotate": [TURN],
    "student": [*FLIPS, TURN, A.RandomBrightnessContrast(0.2, 0.2, p=0.5)],
    "siim-b3": [
        *FLIPS,
        A.ColorJitter((1.0, 1.0), (0.8, 1.2), (0.7, 1.3), (-0.01, 0.01), p=1.0),
        A.RandomBrightnessContrast(0.1, 0.0, brightness_by_max=True, p=1.0),
        moved((26, 180), B3),
    ],
}


@pytest.mark.parametrize("name", REFERENCES)
def test_views_are_distributed_as_those_of_albumentations(name):
    """Means, deviations and quantiles over many views of one image that nothing leaves as it is."""
    side, n = 24, 1500
    across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    image = np.stack([0.3 + 0.5 * across, 0.2 + 0.5 * down, 0.6 - 0.3 * across * down], -1)
    image[6:10, 4:15] = (0.8, 0.2, 0.3)
    image = (255 * image).astype(np.uint8)
    theirs = np.empty((n, side, side, 3))
    pipeline = A.Compose(REFERENCES[name])
    for seed in range(n):
        # not by Compose's own seed: that gives every step the same dice
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        theirs[seed] = pipeline(image=image)["image"] / 255
    views = draw_views(np.random.default_rng(0), n, name)
    ours = load_batch(np.repeat(image[None], n, 0), side, views).permute(0, 2, 3, 1).numpy()
    # albumentations cuts off to whole grey levels after each of its steps: about half a level each
    assert theirs.mean((0, 1, 2)) == pytest.approx(ours.mean((0, 1, 2)), abs=0.012)
    assert np.abs(theirs.mean(0) - ours.mean(0)).mean() < 0.015
    assert theirs.std(0).mean() == pytest.approx(ours.std(0).mean(), rel=0.04)
    edges = [np.abs(np.diff(each, axis=1)).mean() for each in (theirs, ours)]
    assert edges[0] == pytest.approx(edges[1], rel=0.06)
    means = [np.quantile(each.mean((1, 2)), np.linspace(0.05, 0.95, 7)) for each in (theirs, ours)]
    np.testing.assert_allclose(*means, atol=0.025)
