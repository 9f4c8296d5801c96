import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermsynth.seeds import generator
from dermsynth.symmetries import turn as symmetry
from gan.evaluation.drift import (
    ATTRIBUTES,
    THINNEST,
    compare,
    frame_mask,
    lesion_mask,
    measure,
    measure_one,
)

SIZE = 96


@pytest.fixture(scope="module")
def real(make_lesions):
    return make_lesions(90, SIZE, seed=1)


def drifts(synthetic, training, held_out=None):
    held_out = training[::2] if held_out is None else held_out
    groups = np.arange(len(training)), np.arange(len(held_out))
    sets = [measure(images, "test") for images in (synthetic, training, held_out)]
    return compare(*sets, groups, 0)


def verdicts(found):
    return {name: one.verdict for name, one in found.items()}


def with_frame(image):
    y, x = np.mgrid[: len(image), : len(image)] - len(image) / 2
    return np.where((np.hypot(y, x) > 0.52 * len(image))[..., None], 0, image).astype(np.uint8)


def with_hairs(image, number=0, count=4):
    rng = generator("hairs", number)
    image, side = image.copy(), len(image)
    for _ in range(count):
        a, b = rng.integers(0, side, 2)
        cv2.line(image, (int(a), 0), (int(b), side), (25, 20, 20), 1, cv2.LINE_AA)
    return image


def tinted(image, gains):
    return np.clip(image * np.array(gains), 0, 255).astype(np.uint8)


CHANGES = {  # attribute: a change, what comes of it
    "frame": (with_frame, "more"),
    "hair": (with_hairs, "more"),
    "sharpness": (lambda image: cv2.GaussianBlur(image, (0, 0), 1.5), "less"),
    "noise": (
        lambda image: (
            image + 8.0 * (np.indices(image.shape[:2]).sum(0) % 2)[..., None] * 2 - 8
        ).clip(0, 255).astype(np.uint8),
        "more",
    ),
    "lattice": (
        lambda image: (
            image + 6.0 * (np.indices(image.shape[:2]) % 4 == 0).any(0)[..., None]
        ).clip(0, 255).astype(np.uint8),
        "more",
    ),
    "lesion_redness": (lambda image: tinted(image, [2, 1, 1]), "more"),
    "lesion_yellowness": (lambda image: tinted(image, [1, 1, 2]), "less"),
    "lesion_size": (
        lambda image: cv2.resize(image[16:-16, 16:-16], (SIZE, SIZE), interpolation=cv2.INTER_AREA),
        "more",
    ),
    "skin_tone": (lambda image: tinted(image, 0.7), "less"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_an_added_change_is_found_where_it_is(name, real):
    change, expected = CHANGES[name]
    changed = np.stack([change(image) for image in real[:40]])
    found = drifts(changed, real[40:])
    assert found[name].verdict == expected
    assert (found[name].difference > 0) == (expected == "more")
    if ATTRIBUTES[name].present is not None:
        assert found[name].share_synthetic > 0.9
        assert found[name].share_training < 0.2


def test_images_of_the_same_kind_do_not_drift(make_lesions):
    found = drifts(*(make_lesions(150, 64, seed=s) for s in (2, 3, 4)))
    assert set(verdicts(found).values()) <= {"same", "unclear"}
    assert not any(one.narrower for one in found.values())
    assert found["hair"].share_synthetic == found["hair"].share_training


def test_one_image_many_times_over_is_narrower(real):
    found = drifts(real[:1].repeat(30, 0), real[40:])
    assert found["lesion_lightness"].narrower
    assert found["lesion_lightness"].spread == 0


def test_the_mask_is_the_lesion(make_lesions):
    axis = np.linspace(-1, 1, SIZE)
    inside = (axis[None] / 0.5) ** 2 + (axis[:, None] / 0.3) ** 2 < 1
    light = np.where(inside, 35.0, 75.0).astype(np.float32)
    light += generator(0).normal(0, 3, light.shape).astype(np.float32)
    mask = lesion_mask(light, np.zeros(light.shape, bool))
    assert (mask & inside).sum() / (mask | inside).sum() > 0.95


def test_a_frame_is_black_and_reaches_the_border():
    light = np.full((64, 64), 70.0, np.float32)
    light[:8] = 2  # bar
    light[30:40, 30:40] = 2  # a black lesion
    frame = frame_mask(light, THINNEST)
    assert frame[:8].all()
    assert not frame[8:].any()


@settings(max_examples=15)
@given(st.integers(0, 89), st.integers(0, 7))
def test_turning_an_image_changes_next_to_nothing(real, at, number):
    """Hairs aside, whose directions lie on a grid."""
    one, other = (
        measure_one(real[at]),
        measure_one(np.ascontiguousarray(symmetry(real[at], number))),
    )
    for name in set(ATTRIBUTES) - {"hair"}:
        assert other[name] == pytest.approx(one[name], rel=0.02, abs=0.05), name


def numbers(values):
    return {name: np.asarray(values, np.float64) for name in ATTRIBUTES}


def test_the_difference_is_the_standardised_one():
    a, b = generator(1).normal(1.0, 2.0, 80), generator(2).normal(0.0, 1.0, 60)
    found = compare(numbers(a), numbers(b), numbers(b), (np.arange(60), np.arange(60)), 0)["hair"]
    expected = (a.mean() - b.mean()) / np.sqrt((a.var() + b.var()) / 2)
    assert found.difference == pytest.approx(expected, rel=1e-4)
    assert found.spread == pytest.approx(a.std() / b.std(), rel=1e-4)
    assert found.low < found.difference < found.high
    assert found.difference_real == 0


@pytest.mark.slow
def test_intervals_hold_what_they_promise():
    """Two samples of one distribution: 95% of the intervals hold 0, also with images in pairs."""
    for twins in (1, 2):
        missed = []
        for seed in range(60):
            a = generator(seed, "a").normal(0, 1, 80)
            b = generator(seed, "b").normal(0, 1, 60 // twins).repeat(twins)
            groups = np.arange(60 // twins).repeat(twins)
            one = compare(numbers(a), numbers(b), numbers(b), (groups, groups), seed)["hair"]
            missed.append(not one.low <= 0 <= one.high)
        assert np.mean(missed) < 0.15


def test_what_cannot_be_measured_is_left_out():
    a, b = generator(1).normal(0, 1, 50), generator(2).normal(0, 1, 50)
    groups = np.arange(60), np.arange(50)
    holes = np.concatenate([b, np.full(10, np.nan)])
    found = compare(numbers(a), numbers(holes), numbers(b), groups, 0)["hair"]
    assert found.mean_training == pytest.approx(b.mean(), rel=1e-4)
    none = compare(numbers(a), numbers(np.full(60, np.nan)), numbers(b), groups, 0)["hair"]
    assert np.isnan(none.difference)
    assert none.verdict == "unclear"
    assert none.share_training is None


def test_an_attribute_that_nobody_has_does_not_drift():
    zeros = numbers(np.zeros(20))
    found = compare(zeros, zeros, zeros, (np.arange(20), np.arange(20)), 0)["frame"]
    assert found.difference == 0
    assert found.verdict == "same"
    assert not dataclasses.asdict(found)["narrower"]
