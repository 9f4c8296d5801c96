"""Known overlaps between two made-up datasets, each found once and for the right reason."""

import io

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.images.decoding import perceptual_hash
from data.overlap import REASONS, overlap
from data.phantom.sampling import PhantomConfig, sample_dataset
from data.preparation import likeness
from data.preparation.duplicates import near_duplicates
from data.store import COLUMNS, NO_PART, write_dataset


@pytest.fixture(scope="module")
def lesions():
    """uint8 [40, 96, 96, 3]: one image a lesion, no two alike."""
    config = PhantomConfig(patients=24, size=96)
    images, table, _ = sample_dataset(config, seed=3, progress=False)
    return images[table.drop_duplicates("lesion_id").index][:40]


@pytest.fixture
def make(tmp_path):
    """Writes a dataset of images from the ISIC archive; keywords are columns."""

    def write(name, images, **columns):
        count = len(images)
        table = pd.DataFrame({column: [None] * count for column in COLUMNS}, dtype=object)
        table = table.assign(
            image_id=[f"{name}-{row}" for row in range(count)],
            target=np.arange(count) % 2,
            group=np.arange(count),
            fold=np.arange(count) % 4 - 1,
            source="isic-archive",
            sha256=[f"{name}{row}" for row in range(count)],
            phash=[perceptual_hash(image) for image in images],
        ).assign(**columns)
        return write_dataset(tmp_path / name, images, table, {})

    return write


def pairs(found):
    """(row, reason, other) of all that was found."""
    return list(found.found.itertuples(index=False, name=None))


def test_nothing_in_common(lesions, make):
    found = overlap(make("own", lesions[:25]), make("far", lesions[25:]))
    assert pairs(found) == []
    assert (found.equal_ids, found.no_hash, found.no_hash_own) == (0, 0, 0)


def test_each_image_counts_once_by_the_first_reason_that_holds(lesions, make):
    own = make("own", lesions[:30], lesion_id=["L0", "L1", *[None] * 28], patient_id="P")
    far = make(
        "far",
        np.concatenate([lesions[30:36], lesions[5:6]]),
        sha256=["own7", *"abcdef"],
        image_id=["a", "own-3", "own-4", "d", "e", "f", "g"],
        lesion_id=[None, None, "L0", "L1", None, None, None],
        patient_id=[None, None, None, "P", "P", None, None],
        group=[0, 1, 2, 3, 4, 0, 5],
    )
    file, image, lesion, patient, near, group = REASONS
    assert pairs(overlap(own, far)) == [
        *((0, file, 7), (1, image, 3), (2, image, 4), (3, lesion, 1), (4, patient, 0)),
        *((5, group, 7), (6, near, 5)),
    ]


def test_ids_count_within_one_namespace_only(lesions, make):
    """Patient 7 of one clinic is not patient 7 of another, and phantoms of two seeds are apart."""
    ids = {"image_id": list("abc"), "patient_id": list("123")}
    own = make("own", lesions[:3], source=["folder", "isic2019", "phantom"], **ids)
    far = make("far", lesions[3:6], source=["folder", "siim2020", "phantom"], **ids)
    found = overlap(own, far)
    assert pairs(found) == [(1, "same image_id", 1)]
    assert found.equal_ids == 1  # of the folder: said, not counted


def test_ids_of_joined_sources_are_named_without_their_prefix(lesions, make):
    own = make("own", lesions[:1], source="folder", patient_id="folder-7")
    far = make("far", lesions[1:2], source="folder", patient_id="7")
    found = overlap(own, far)
    assert (pairs(found), found.equal_ids) == ([], 1)


def test_missing_ids_and_hashes_tie_nothing(lesions, make):
    empty = {"lesion_id": "", "patient_id": np.nan, "sha256": "", "phash": ""}
    own, far = make("own", lesions[:4], **empty), make("far", lesions[:3], **empty)
    found = overlap(own, far)
    assert (pairs(found), found.no_hash, found.no_hash_own) == ([], 3, 4)


def test_a_partner_that_is_in_a_part_is_preferred(lesions, make):
    own = make("own", lesions[:4], patient_id="P", fold=[NO_PART, NO_PART, -1, 0])
    far = make("far", lesions[4:5], patient_id="P")
    assert pairs(overlap(own, far)) == [(0, "same patient_id", 2)]


def as_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


CHANGES = {
    "oriented": lambda image: image,
    "jpeg": as_jpeg,
    "brighter": lambda image: np.clip(image * 1.15 + 8, 0, 255).astype(np.uint8),
    "larger": lambda image: cv2.resize(image, (150, 150), interpolation=cv2.INTER_CUBIC),
}


@pytest.mark.parametrize("how", CHANGES)
def test_copies_are_found_in_every_orientation(lesions, make, how):
    """And no other pair; the dataset's images may be of another size."""
    copies = [
        CHANGES[how](np.ascontiguousarray(likeness.oriented(image, row % 8)))
        for row, image in enumerate(lesions[:16])
    ]
    own, far = make("own", lesions), make("far", np.stack(copies))
    assert pairs(overlap(own, far)) == [(row, "near-duplicate", row) for row in range(16)]


def test_what_is_found_is_a_near_duplicate_within_a_joined_dataset_too(lesions, make):
    """The same judge as data.prepare: a subset of what it finds, as hashes choose beforehand."""
    turned = [cv2.warpAffine(image, TURN, (96, 96), borderMode=2) for image in lesions[:20]]
    far = make("far", np.stack(turned))
    found = {(row, other) for row, _, other in pairs(overlap(make("own", lesions), far))}
    joined = near_duplicates(np.concatenate([np.stack(turned), lesions]))
    judged = {(a, b - 20) for a, b in joined.tolist() if a < 20 <= b}
    assert found <= judged
    assert len(found) >= 15


TURN = cv2.getRotationMatrix2D((47.5, 47.5), 4, 1.02)


def test_rows_do_not_depend_on_the_folds(lesions, make):
    far = make("far", lesions[10:30])
    parts = [make(f"own{k}", lesions[:20], fold=np.roll(np.arange(20) % 5 - 1, k)) for k in (0, 1)]
    one, other = (pairs(overlap(own, far)) for own in parts)
    assert one == other
    assert len(one) == 10


def test_blank_images_cost_no_memory_and_match_nothing(make):
    """Their hashes are all the same, so that every pair is a candidate."""
    own, far = (make(name, np.full((300, 32, 32, 3), 99, np.uint8)) for name in ("own", "far"))
    assert pairs(overlap(own, far)) == []


def test_the_same_dataset_overlaps_wholly(lesions, make):
    own = make("own", lesions[:20])
    assert pairs(overlap(own, own)) == [(row, "same file", row) for row in range(20)]
