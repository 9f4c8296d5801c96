import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.images.decoding import Preprocessing, decode_all
from data.images.files import Encoded, find_images
from data.phantom.sampling import PhantomConfig, sample_dataset
from data.preparation import duplicates, likeness
from data.preparation.duplicates import identical_pairs, near_duplicates
from data.preparation.scratch import mapped

# The same lesion under two lesion ids, seen by eye in HAM10000.
ACROSS_LESIONS = {
    *("24408-27737", "24479-28756", "25226-30074", "25281-26904", "25387-29880", "27027-29036"),
    *("27636-27994", "27820-28209", "28014-28585", "29152-33173", "30000-31392", "33421-33481"),
    *("29477-30637", "34228-34248"),
}
# Preprocessing-alikes: the best-scoring pairs that are different lesions.
LOOK_ALIKE = {
    *("27262-27398", "26818-27398", "27262-32407", "32705-33948", "32705-33601"),
    *("27398-33463", "27933-33462", "32526-33462", "33191-34198"),
}


def moved(image, angle=0.0, zoom=1.0, right=0.0, down=0.0):
    """Turned (degrees), enlarged and shifted (shares of the side)."""
    size = len(image)
    turn = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, zoom)
    turn[:, 2] += (right * size, down * size)
    return cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REFLECT)


def as_jpeg(image, quality=60):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def smaller(image):
    small = cv2.resize(image, (76, 76), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[:2], interpolation=cv2.INTER_CUBIC)


AGAIN = {
    "as it is": lambda image: image,
    "jpeg": as_jpeg,
    "smaller": smaller,
    "brighter": lambda image: np.clip(image * 1.15 + 8, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.85).astype(np.uint8),
    "cropped": lambda image: moved(image, zoom=1.11, right=0.03),
    "turned": lambda image: moved(image, 5),
    "moved": lambda image: moved(image, 3, 1.04, 0.024, -0.03),
}


@pytest.fixture(scope="module")
def phantom():
    images, table, _ = sample_dataset(PhantomConfig(patients=40), seed=3, progress=False)
    return images, table


@pytest.mark.parametrize("how", AGAIN)
def test_copies_are_found_and_nothing_else(phantom, how):
    """In every orientation, each of the eight for some of the copies."""
    images = phantom[0][:60]
    copies = [
        np.ascontiguousarray(likeness.oriented(AGAIN[how](image), k % 8))
        for k, image in enumerate(images[:24])
    ]
    pairs = near_duplicates(np.concatenate([images, np.stack(copies)]))
    expected = {(k, 60 + k) for k in range(24)}
    found = {tuple(pair) for pair in pairs.tolist()}
    assert found <= expected
    assert len(found) >= (21 if how in ("cropped", "moved") else 24)


def test_phantom_lesions_do_not_chain(phantom):
    images, table = phantom
    pairs = near_duplicates(images)
    lesion = table["lesion_id"].to_numpy()
    assert (lesion[pairs[:, 0]] == lesion[pairs[:, 1]]).all()


def test_a_black_frame_is_no_likeness(make_texture):
    """Different skin in one round frame does not match; the same skin in it does."""
    frame = cv2.circle(np.zeros((128, 128, 1), np.uint8), (64, 64), 58, 1, -1)
    images = np.stack([make_texture(seed, 128, 128) * frame for seed in range(12)])
    images = np.concatenate([images, np.stack([as_jpeg(image)[:, ::-1] for image in images[:4]])])
    assert near_duplicates(images).tolist() == [[k, 12 + k] for k in range(4)]


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


@settings(max_examples=25)
@given(
    which=st.integers(0, 59),
    orientation=st.integers(0, 7),
    angle=st.floats(-4, 4),
    zoom=st.floats(0.94, 1.08),
    shift=st.tuples(st.floats(-0.04, 0.04), st.floats(-0.04, 0.04)),
    light=st.floats(0.85, 1.1),
    quality=st.integers(60, 95),
)
def test_any_small_change_in_any_orientation(
    phantom, which, orientation, angle, zoom, shift, light, quality
):
    images = phantom[0][:60]
    copy = moved(images[which], angle, zoom, *shift) * light
    copy = as_jpeg(np.clip(copy, 0, 255).astype(np.uint8), quality)
    copy = likeness.oriented(copy, orientation)
    pairs = near_duplicates(np.concatenate([images, copy[None]]))
    assert pairs.tolist() == [[which, 60]]


@pytest.mark.parametrize("orientation", range(8))
def test_waves_turn_with_the_image(phantom, orientation):
    """Signs and swaps stand for the eight orientations."""
    for image in phantom[0][:10]:
        turned = np.ascontiguousarray(likeness.oriented(image, orientation))
        expected = likeness.reoriented(likeness.waves(image), orientation)
        assert np.allclose(likeness.waves(turned), expected, atol=2e-3)


def test_first_look_is_complete(make_texture):
    """The blocks, the four small products and the limit give what all pairs by hand give."""
    waves = np.stack([likeness.waves(make_texture(seed % 40, 64, 64)) for seed in range(300)])
    waves += np.random.default_rng(0).normal(0, 0.02, waves.shape).astype(np.float32)
    got = duplicates._alike(waves, 0)
    scores = np.stack(
        [likeness.reoriented(waves[: duplicates.ROWS], k) @ waves.T for k in range(8)]
    )
    scores[:, ~np.triu(np.ones(scores.shape[1:], bool), 1)] = 0
    expected = set(zip(*np.nonzero(scores > duplicates.ALIKE), strict=True))
    assert set(zip(got.orientation, got.row, got.column, strict=True)) == expected
    assert len(expected) > 300


def test_a_crowd_of_copies_holds_together(phantom, monkeypatch):
    monkeypatch.setattr(duplicates, "BEST", 2)
    monkeypatch.setattr(duplicates, "EFFORT", 0)
    crowd = np.stack([as_jpeg(phantom[0][5], quality) for quality in range(60, 96)])
    pairs = near_duplicates(crowd)
    assert set(pairs[:, 0]) == set(range(len(crowd) - 1))
    assert np.bincount(pairs[:, 0]).max() <= 2


def test_interrupted_and_continued_is_unbroken(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS", 16)
    images = np.concatenate([phantom[0][:60], phantom[0][:40, ::-1]])
    whole = near_duplicates(images)
    compare, done = duplicates._compare, []

    def fail(images, looks, start):
        if start >= 48:
            raise KeyboardInterrupt
        return compare(images, looks, start)

    monkeypatch.setattr(duplicates, "_compare", fail)
    with pytest.raises(KeyboardInterrupt):
        near_duplicates(images, tmp_path)
    monkeypatch.setattr(duplicates, "_compare", lambda *a: done.append(a[2]) or compare(*a))
    monkeypatch.setattr(likeness, "waves", None)  # not looked at again
    assert np.array_equal(near_duplicates(images, tmp_path), whole)
    assert 0 < len(done) < 7
    assert 0 not in done
    assert len(whole) >= 38


@pytest.mark.parametrize("sign", ["looked-*", "pairs-*"])
def test_killed_and_continued_is_unbroken(phantom, tmp_path, monkeypatch, sign):
    """A real kill, while looking or while comparing."""
    images = np.concatenate([phantom[0][:100], phantom[0][:100, :, ::-1]])
    np.save(tmp_path / "images.npy", images)
    code = (
        "import numpy as np; from pathlib import Path\n"
        "from data.preparation import duplicates as d\n"
        "d.ROWS = 16; d.near_duplicates(np.load('images.npy', mmap_mode='r'), Path('work'))"
    )
    root = Path(__file__).parents[2]
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)}
    )
    folder = tmp_path / "work" / "duplicates"
    end = time.time() + 60
    while time.time() < end and run.poll() is None and not list(folder.glob(sign)):
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = {path: path.stat().st_mtime_ns for path in folder.glob(sign)}
    assert before
    monkeypatch.setattr(duplicates, "ROWS", 16)
    assert np.array_equal(near_duplicates(images, tmp_path / "work"), near_duplicates(images))
    assert all(path.stat().st_mtime_ns == was for path, was in before.items())


@pytest.mark.parametrize("name", ["waves", "fine", "state", "looked-*"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_damaged_scratch_is_found_again(phantom, tmp_path, monkeypatch, name, harm):
    monkeypatch.setattr(duplicates, "ROWS", 16)
    images = np.concatenate([phantom[0][:30], phantom[0][:20, ::-1]])
    whole = near_duplicates(images, tmp_path)
    assert len(whole) >= 19
    for path in (tmp_path / "duplicates").glob("pairs-*"):
        path.unlink()  # so that what is damaged is needed
    for path in (tmp_path / "duplicates").glob(name):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 64
        path.write_bytes({"flip": content, "cut": content[:-9], "empty": b""}[harm])
    assert np.array_equal(near_duplicates(images, tmp_path), whole)


def test_damaged_pairs_are_found_again(phantom, tmp_path):
    images = np.concatenate([phantom[0][:30], phantom[0][:20, ::-1]])
    whole = near_duplicates(images, tmp_path)
    for path in (tmp_path / "duplicates").glob("pairs-*"):
        path.write_bytes(path.read_bytes()[:-16])
    assert np.array_equal(near_duplicates(images, tmp_path), whole)


def test_a_full_disk_is_an_error_before_anything_is_mapped(phantom, tmp_path, monkeypatch):
    """Writing into a map that the disk cannot hold would kill the process."""

    def full(file, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device: .*waves") as caught:
        near_duplicates(phantom[0][:30], tmp_path)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_without_allocation_the_space_is_written(tmp_path, monkeypatch, number):
    def unknown(file, start, size):
        raise OSError(number, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    values = mapped(tmp_path / "a", np.float32, (300_000, 4))
    assert (tmp_path / "a").stat().st_blocks * 512 >= values.nbytes
    assert not values.any()
    values[7] = 1
    assert mapped(tmp_path / "a", np.float32, (300_000, 4))[7].tolist() == [1, 1, 1, 1]


def test_other_images_start_anew(phantom, tmp_path):
    images = phantom[0][:30]
    first = near_duplicates(np.concatenate([images[:20], images[:10]]), tmp_path)
    second = near_duplicates(np.concatenate([images[:20], images[20:30]]), tmp_path)
    assert len(first) == 10
    assert len(second) == 0


@pytest.fixture(scope="module")
def real(real_ham):
    """The named pairs among a few hundred other images."""
    files = {path.stem: path for path in find_images(real_ham)}
    named = [f"ISIC_00{k}" for pair in ACROSS_LESIONS | LOOK_ALIKE for k in pair.split("-")]
    names = sorted({*named, *sorted(files)[::50]})
    table = pd.read_csv(real_ham / "HAM10000_metadata.csv", index_col="image_id").loc[names]
    results = decode_all([Encoded(files[name]) for name in names], Preprocessing(128))
    images = np.stack([result.pixels for result in results])
    return names, images, table["lesion_id"].to_numpy()


def across(pairs, names, lesion):
    pairs = [(i, j) for i, j in pairs if lesion[i] != lesion[j]]
    return {f"{names[i][-5:]}-{names[j][-5:]}" for i, j in pairs}


def test_same_lesion_under_two_ids(real):
    names, images, lesion = real
    assert across(near_duplicates(images), names, lesion) == ACROSS_LESIONS


def test_smaller_stored_size_finds_nothing_false(real):
    names, images, lesion = real
    small = np.stack(
        [cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in images]
    )
    found = across(near_duplicates(small), names, lesion)
    assert found <= ACROSS_LESIONS
    assert len(found) >= 6


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no /proc here")
def test_what_was_read_of_a_memory_map_does_not_stay_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (600, 64, 64, 3), np.uint8))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    near_duplicates(images)
    resident, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:  # the header of a mapping
            ours = line.endswith(str(tmp_path / "images.npy"))  # others' maps are none of it
        elif ours and line.startswith("Rss:"):
            resident += int(line.split()[1])  # kB
    assert resident < images.nbytes / 1024 / 4
