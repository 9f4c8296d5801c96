import cv2
import numpy as np
import pytest
from PIL import Image

from data.images.cleaning import (
    CLEANERS,
    before_after,
    clean_image,
    crop_frame,
    even_colour,
    hair_mask,
    remove_hair,
)
from data.phantom.sampling import PhantomConfig, sample_dataset


def skin(size=256, seed=0):
    """Smooth pink with fine grain and a brown blob, uint8 [size, size, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    blob = 1 / (1 + np.exp((np.hypot(x, y * 1.2) - 0.2) / 0.02))
    image = np.array([214, 160, 150]) - blob[..., None] * np.array([100, 95, 95])
    image = image + 6 * x[..., None] + rng.normal(0, 2, (size, size, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def with_hairs(image, seed=0, count=12, shade=(50, 35, 30)):
    """The image with dark curves drawn over it, and a mask of where."""
    rng = np.random.default_rng(seed)
    size = image.shape[0]
    t = np.linspace(0, 1, 40)[:, None]
    image, mask = image.copy(), np.zeros((size, size), np.uint8)
    for _ in range(count):
        ends = rng.uniform(0, size, (3, 2))
        curve = ends[0] * (1 - t) ** 2 + 2 * ends[1] * t * (1 - t) + ends[2] * t**2
        points = [np.rint(curve * 16).astype(np.int32)]
        thick = max(1, round(size / 150))
        cv2.polylines(image, points, False, shade, thick, cv2.LINE_AA, 4)
        cv2.polylines(mask, points, False, 255, thick, cv2.LINE_AA, 4)
    return image, mask > 60


def error(one, other, where=...):
    return np.abs(one.astype(float) - other.astype(float))[where].mean()


@pytest.mark.parametrize("size", [128, 256, 600])
def test_drawn_hairs_are_removed(size):
    clean = skin(size)
    hairy, where = with_hairs(clean)
    mended = remove_hair(hairy)
    assert error(mended, clean, where) < 0.15 * error(hairy, clean, where)
    beside = ~cv2.dilate(where.astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert error(mended, hairy, beside) < 0.3


def test_skin_without_hair_stays_as_it_is():
    for seed in range(3):
        clean = skin(seed=seed)
        assert error(remove_hair(clean), clean) < 0.05


@pytest.mark.parametrize("kind", ["dots", "network", "edge"])
def test_what_is_not_a_hair_stays(kind):
    """Globules, a pigment network and the border of a lesion are dark and thin too."""
    image = skin()
    if kind == "dots":
        for x in range(90, 170, 12):
            for y in range(90, 170, 12):
                cv2.circle(image, (x, y), 2, (60, 40, 30), -1)
    elif kind == "network":
        turn = np.arange(6) * np.pi / 3 + np.pi / 6
        for row in range(12):
            for column in range(11):
                centre = 80 + np.array([(column + row % 2 / 2) * 9, row * 7.8])
                cell = centre + 5.2 * np.column_stack([np.cos(turn), np.sin(turn)])
                points = [np.rint(cell * 16).astype(np.int32)]
                cv2.polylines(image, points, True, (172, 120, 105), 1, cv2.LINE_AA, 4)
    else:
        cv2.rectangle(image, (80, 80), (180, 180), (60, 40, 30), -1)
    assert error(remove_hair(image), image) < 0.1


def test_hairs_are_found_alike_at_every_size():
    hairy, _ = with_hairs(skin(512))
    shares = []
    for size in (160, 256, 384, 512):
        small = cv2.resize(hairy, (size, size), interpolation=cv2.INTER_AREA)
        shares.append((hair_mask(small) > 0).mean())
    assert max(shares) < 2 * min(shares)


def test_hairs_of_the_phantom_are_found():
    """Phantom images differ in hairs by a known factor; the mask must follow it."""
    images, table, _ = sample_dataset(PhantomConfig(patients=30, size=256), 3, progress=False)
    assert len(table) == len(images)
    shares = np.array([(hair_mask(image) > 0).mean() for image in images[:40]])
    assert (shares < 0.25).all()
    assert (shares == 0).any()
    assert (shares > 0.01).any()


@pytest.mark.parametrize("inset", [(20, 30, 24, 28), (0, 60, 0, 60), (40, 0, 40, 0)])
def test_bars_are_cut_to_two_pixels(inset):
    top, left, bottom, right = inset
    image = np.zeros((240, 320, 3), np.uint8)
    inside = cv2.resize(skin(320), (320 - left - right, 240 - top - bottom))
    image[top : 240 - bottom, left : 320 - right] = inside
    image += np.random.default_rng(0).integers(0, 6, image.shape, dtype=np.uint8)
    found = crop_frame(image)
    assert 0 <= inside.shape[0] - found.shape[0] <= 4
    assert 0 <= inside.shape[1] - found.shape[1] <= 4
    shown = image[top : 240 - bottom, left : 320 - right]
    places = [(y, x) for y in range(3) for x in range(3)]
    views = [shown[y : y + found.shape[0], x : x + found.shape[1]] for y, x in places]
    assert any(view.shape == found.shape and (view == found).all() for view in views)


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("radius", [110, 140])
def test_a_round_field_is_cut_to_the_box_inside(radius, scale):
    """The largest square in a circle has its radius times the root of two for a side."""
    height, width = 300 * scale, 400 * scale
    y, x = np.mgrid[:height, :width]
    lit = np.hypot(y - 148 * scale, x - 205 * scale) < radius * scale
    image = np.where(lit[..., None], cv2.resize(skin(400), (width, height)), 3).astype(np.uint8)
    found = crop_frame(image)
    assert found.min() > 20
    for side in found.shape[:2]:
        assert abs(side / scale - radius * 2**0.5) <= 4
    assert crop_frame(found) is found


@pytest.mark.parametrize("scale", [1, 4])
def test_images_without_a_frame_are_not_touched(scale):
    plain = skin(256 * scale)
    corner, dark = plain.copy(), plain // 12
    cv2.circle(corner, (0, 0), 90 * scale, (20, 15, 15), -1)  # a lesion that is cut by the corner
    middle = plain.copy()
    cv2.circle(middle, (128 * scale, 128 * scale), 100 * scale, (8, 6, 6), -1)
    hairy, _ = with_hairs(plain, count=30, shade=(5, 5, 5))
    for image in (plain, corner, dark, middle, hairy, np.zeros_like(plain)):
        assert crop_frame(image) is image


def test_a_cast_is_taken_out_and_brightness_stays():
    rng = np.random.default_rng(1)
    grey = rng.integers(40, 200, (64, 64, 1)) + rng.integers(-20, 20, (64, 64, 3))
    for cast in ((1, 0.8, 0.6), (0.7, 0.9, 1.1)):
        tinted = np.clip(grey * np.array(cast), 0, 255).astype(np.uint8)
        mended = even_colour(tinted)
        norm = (mended.astype(float) ** 6).mean(axis=(0, 1)) ** (1 / 6)
        assert np.ptp(norm) < 1.5
        assert abs(mended.mean() - tinted.mean()) < 1
        assert error(mended, grey * (tinted.mean() / grey.mean())) < 3
    assert error(even_colour(mended), mended) < 0.5


def test_colour_of_an_image_without_one_channel_stays():
    image = skin()
    image[..., 2] = 0
    assert (even_colour(image) == image).all()


@pytest.mark.parametrize("name", CLEANERS)
@pytest.mark.parametrize("shape", [(32, 32), (33, 500), (301, 64)])
def test_any_image_is_cleaned_the_same_twice(name, shape):
    rng = np.random.default_rng(0)
    for image in (
        rng.integers(0, 256, (*shape, 3), np.uint8),
        np.zeros((*shape, 3), np.uint8),
        np.full((*shape, 3), 255, np.uint8),
    ):
        once = clean_image(image, (name,))
        assert once.dtype == np.uint8
        assert once.ndim == 3
        assert once.size > 0
        assert (once == clean_image(image, (name,))).all()


def test_picture_of_before_and_after(tmp_path):
    images = np.stack([skin(64, seed) for seed in range(3)])
    before_after(images, 255 - images, tmp_path / "cleaning.png")
    page = np.asarray(Image.open(tmp_path / "cleaning.png"))
    assert page.shape[1] > 4 * 256
    assert page.shape[0] > 2 * 256
    first = page[28 + 100, 8 + 100].astype(int)
    assert np.abs(first + page[28 + 100, 8 + 256 + 8 + 100] - 255).max() < 12
