"""Squashed images are told from cropped and padded ones, drawn and real."""

from pathlib import Path

import card_pages
import cv2
import numpy as np
import pytest
from card_pages import make_dataset, make_table, page_of, words_of

from data.images.squash import LEAST, USUAL, squashed, stretch

HAM = Path(__file__).parents[3] / "shared" / "data" / "ham10000"


def texture(seed: int, width: int = 200, height: int = 150) -> np.ndarray:
    """uint8 [height, width, 3] without a direction."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    grey = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.clip(150 + 40 * grey[..., None] / grey.std() * np.ones(3), 30, 255).astype(np.uint8)


def cropped(image):
    height, width = image.shape[:2]
    return image[:, (width - height) // 2 : (width + height) // 2]


def whole(image):
    return cv2.resize(image, (150, 150), interpolation=cv2.INTER_AREA)


def padded(image):
    edge = (image.shape[1] - image.shape[0]) // 2
    return cv2.copyMakeBorder(image, edge, edge, 0, 0, cv2.BORDER_CONSTANT)


def told(images, change):
    stretches = np.array([stretch(change(image)) for image in images])
    return float(np.median(stretches)), squashed(stretches)


def test_what_was_squashed_and_which_way():
    images = [texture(seed) for seed in range(LEAST)]
    middle, word = told(images, cropped)
    assert middle == pytest.approx(1, abs=0.05)
    assert word is None
    middle, word = told(images, whole)
    assert middle > USUAL[1] + 0.1
    assert word == "width"
    assert told(images, lambda image: whole(image).transpose(1, 0, 2))[1] == "height"
    assert told(images, padded)[1] is None
    assert squashed(np.full(LEAST - 1, 2.0)) is None  # too few to say


def test_what_is_black_is_not_measured():
    assert np.isnan(stretch(np.zeros((64, 64, 3), np.uint8)))
    assert squashed(np.full(LEAST, np.nan)) is None


def test_real_images():
    if not HAM.exists():
        pytest.skip(f"no ham10000 at {HAM}")
    paths = sorted(HAM.glob("HAM10000_images_part_*/*.jpg"))
    chosen = np.random.default_rng(0).choice(len(paths), 200, replace=False)
    images = [cv2.imread(str(paths[at])) for at in chosen]
    assert told(images, cropped)[1] is None
    assert told(images, padded)[1] is None
    assert told(images, whole)[1] == "width"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """page(change, **columns): the words on the card of images that were changed."""

    def words(change, n=96, **columns):
        images = np.stack([cv2.resize(change(texture(seed)), (64, 64)) for seed in range(n)])
        monkeypatch.setattr(card_pages, "make_images", lambda _: images)
        return words_of(page_of(make_dataset(tmp_path / "set", make_table(n).assign(**columns))))

    return words


def test_the_card_says_that_square_originals_were_squashed(page):
    words = page(whole, width=512, height=512)
    assert "All originals are square" in words
    assert "They look squashed along their width" in words


def test_the_card_says_that_square_originals_were_not_squashed(page):
    words = page(cropped, width=512, height=512)
    assert "All originals are square" in words
    assert "They do not look squashed" in words


def test_the_card_says_nothing_of_usual_images(page):
    assert "squashed" not in page(cropped)
