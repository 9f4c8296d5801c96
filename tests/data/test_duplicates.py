import io

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.duplicates import identical_pairs, near_duplicates
from data.images import decode_all, find_images
from data.phantom import PhantomConfig, sample_dataset

# The same lesion under two lesion ids, seen by eye in HAM10000.
ACROSS_LESIONS = {
    *("25226-30074", "25281-26904", "25387-29880", "27027-29036"),
    *("27636-27994", "29152-33173", "33421-33481", "34228-34248"),
}
# Look-alikes: the best-scoring pairs that are different lesions.
LOOK_ALIKE = {
    *("27262-27398", "26818-27398", "27262-32407"),
    *("27398-33463", "27933-33462", "25141-25323"),
}


def again(image, how):
    """The same picture as another upload may show it."""
    size = len(image)
    if how == "jpeg":
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=60)
        return np.asarray(Image.open(file))
    if how == "smaller":
        return cv2.resize(cv2.resize(image, (72, 72), interpolation=cv2.INTER_AREA), (size, size))
    if how == "brighter":
        return np.clip(image * 1.15 + 8, 0, 255).astype(np.uint8)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), 3, 1.04)
    turn[:, 2] += (3, -4)
    return cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REFLECT)


@pytest.fixture(scope="module")
def phantom():
    images, table, _ = sample_dataset(PhantomConfig(patients=40), seed=3, progress=False)
    return images, table


@pytest.mark.parametrize("how", ["jpeg", "smaller", "brighter", "moved"])
def test_copies_are_found_and_nothing_else(phantom, how):
    images = phantom[0][:60]
    copies = np.stack([again(image, how) for image in images[:20]])
    pairs = near_duplicates(np.concatenate([images, copies]))
    expected = {(k, 60 + k) for k in range(20)}
    found = {tuple(pair) for pair in pairs.tolist()}
    assert found <= expected
    assert len(found) >= 18


def test_phantom_lesions_do_not_chain(phantom):
    images, table = phantom
    pairs = near_duplicates(images)
    lesion = table["lesion_id"].to_numpy()
    assert (lesion[pairs[:, 0]] == lesion[pairs[:, 1]]).all()


def test_flat_images_are_no_duplicates():
    """Nothing to compare is no proof; equal bytes are found by their hash."""
    images = np.stack([np.full((64, 64, 3), value, np.uint8) for value in (0, 120, 120, 255)])
    assert near_duplicates(images).shape == (0, 2)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare(count):
    assert near_duplicates(np.zeros((count, 64, 64, 3), np.uint8)).shape == (0, 2)


def test_identical_pairs():
    pairs = identical_pairs(np.array(["a", "b", "a", "c", "a", "b"]))
    assert sorted(map(tuple, pairs.tolist())) == [(0, 2), (0, 4), (1, 5)]


@pytest.fixture(scope="module")
def real(real_ham):
    """The named pairs among a few hundred other images."""
    files = {path.stem: path for path in find_images(real_ham)}
    named = [f"ISIC_00{k}" for pair in ACROSS_LESIONS | LOOK_ALIKE for k in pair.split("-")]
    names = sorted({*named, *sorted(files)[::50]})
    images = np.stack([result.pixels for result in decode_all([files[n] for n in names], 128)])
    table = pd.read_csv(real_ham / "HAM10000_metadata.csv", index_col="image_id").loc[names]
    return names, images, table["lesion_id"].to_numpy()


def test_same_lesion_under_two_ids(real):
    names, images, lesion = real
    pairs = [(i, j) for i, j in near_duplicates(images) if lesion[i] != lesion[j]]
    found = {f"{names[i][-5:]}-{names[j][-5:]}" for i, j in pairs}
    assert found == ACROSS_LESIONS


def test_smaller_stored_size_finds_nothing_false(real):
    names, images, lesion = real
    small = np.stack(
        [cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in images]
    )
    pairs = [(i, j) for i, j in near_duplicates(small) if lesion[i] != lesion[j]]
    found = {f"{names[i][-5:]}-{names[j][-5:]}" for i, j in pairs}
    assert found <= ACROSS_LESIONS
    assert len(found) >= 6
