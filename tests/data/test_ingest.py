"""Files into pixels, chunk by chunk, whatever interrupts it; and native stores."""

import hashlib
import io
import os
import tarfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.images.decoding import Preprocessing, decode
from data.images.files import Encoded
from data.images.native import NativeImages, ShardWriter, shard_path
from data.images.stored import IMAGES
from data.preparation import ingest as module
from data.preparation.ingest import fingerprint, forget, ingest
from dermsynth.errors import UserError

LOOK = Preprocessing(32)
FULL = ("crop", ())


@pytest.fixture
def files(tmp_path, make_texture, monkeypatch):
    """Ten rows in chunks of three: one absent, one broken, one a copy of the first."""
    monkeypatch.setattr(module, "CHUNK", 3)
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(10):
        suffix = "png" if number % 2 else "jpg"
        Image.fromarray(make_texture(number)).save(folder / f"{number}.{suffix}")
    (folder / "4.jpg").write_bytes(b"not an image")
    (folder / "7.png").write_bytes((folder / "0.jpg").read_bytes())
    paths = [Encoded(path) for path in sorted(folder.iterdir())]
    return [*paths[:2], None, *paths[3:]]


NAMES = [f"i{number}" for number in range(10)]


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("native", [False, True])
def test_what_becomes_of_each_file(files, work, native):
    taken = ingest(work, NAMES, files, LOOK, native)
    assert taken.kept["row"].tolist() == [0, 1, 3, 5, 6, 8, 9]
    assert taken.copies.to_numpy().tolist() == [[7, 0]]
    assert list(taken.bad) == [4]
    images = np.load(work / IMAGES)
    assert len(images) == len(taken.kept)
    for image, row in zip(images, taken.kept.itertuples(), strict=True):
        decoded = decode(files[row.row], LOOK)
        assert (image == decoded.pixels).all()
        assert (row.width, row.height) == (decoded.width, decoded.height) == (80, 60)
        assert (row.sha256, row.phash) == (decoded.sha256, decoded.phash)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("after", [0, 1, 2, 4, 6])
def test_stopped_anywhere_it_goes_on_to_the_same(files, tmp_path, work, monkeypatch, after, native):
    unbroken = tmp_path / "unbroken"
    unbroken.mkdir()
    expected = ingest(unbroken, NAMES, files, LOOK, native)
    real, decoded = module.decode_all, []

    def stopping(sources, *args, **more):
        for number, result in enumerate(real(sources, *args, **more)):
            if number == after:
                raise KeyboardInterrupt
            yield result

    def counting(sources, *args, **more):
        decoded.extend(sources)
        return real(sources, *args, **more)

    monkeypatch.setattr(module, "decode_all", stopping)
    with pytest.raises(KeyboardInterrupt):
        ingest(work, NAMES, files, LOOK, native)
    with open(work / IMAGES, "ab") as file:
        file.write(b"what a kill in the middle of a write leaves")
    monkeypatch.setattr(module, "decode_all", counting)
    again = ingest(work, NAMES, files, LOOK, native)
    assert len(decoded) == 9 - after // 3 * 3
    pd.testing.assert_frame_equal(again.kept, expected.kept)
    pd.testing.assert_frame_equal(again.copies, expected.copies)
    assert again.bad == expected.bad
    for path in unbroken.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (work / path.relative_to(unbroken)).read_bytes()


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("name", "redone"),
    [
        *((IMAGES, 6), ("images.sha256", 6), ("journal/000001", 6), ("shards/00001.tar", 6)),
        ("journal/000000", 9),
    ],
)
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_damaged_work_is_done_again(files, work, monkeypatch, name, redone, native, harm, capsys):
    """Damage in the middle chunk: from there on all is decoded again, to the same files."""
    if name.startswith("shards") and not native:
        pytest.skip("only in native stores")
    expected = ingest(work, NAMES, files, LOOK, native)
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    content = before[work / name]
    at = 1000 if name.startswith("shards") else 6 * len(content) // 10
    flipped = bytearray(content)
    flipped[at] ^= 1
    (work / name).write_bytes(flipped if harm == "flip" else content[:at])
    if harm == "gone":
        (work / name).unlink()
        redone = 9 if name.startswith("images") else redone
    decoded, real = [], module.decode_all

    def counting(sources, *args, **more):
        decoded.extend(sources)
        return real(sources, *args, **more)

    monkeypatch.setattr(module, "decode_all", counting)
    capsys.readouterr()
    again = ingest(work, NAMES, files, LOOK, native)
    assert len(decoded) == redone
    assert "chunks are damaged and done again" in capsys.readouterr().out
    pd.testing.assert_frame_equal(again.kept, expected.kept)
    pd.testing.assert_frame_equal(again.copies, expected.copies)
    assert again.bad == expected.bad
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before


def test_nothing_to_do(work):
    taken = ingest(work, ["a"], [None], LOOK)
    assert len(taken.kept) == len(taken.copies) == len(taken.bad) == 0
    assert np.load(work / IMAGES).shape == (0, 32, 32, 3)


def test_fingerprint_tells_other_inputs_apart(files):
    first = fingerprint({"size": 32}, NAMES, files)
    assert fingerprint({"size": 32}, NAMES, files) == first
    others = [
        fingerprint({"size": 64}, NAMES, files),
        fingerprint({"size": 32}, [*NAMES[:-1], "other"], files),
        fingerprint({"size": 32}, NAMES, [*files[:-1], None]),
    ]
    files[0].path.write_bytes(b"changed")
    others.append(fingerprint({"size": 32}, NAMES, files))
    assert len({first, *others}) == 5


# ----------------------------------------------------------------------------------------- native


@pytest.fixture
def native(files, work):
    taken = ingest(work, NAMES, files, LOOK, native=True)
    forget(work, pixels_too=True)
    return NativeImages(work, taken.kept, *FULL, 48), taken.kept["row"].tolist()


def test_files_stay_as_they_are_and_are_read_at_any_size(native, files, work):
    images, rows = native
    assert sorted(path.name for path in work.iterdir()) == ["shards"]
    assert images.shape == (7, 48, 48, 3)
    assert images.dtype == np.uint8
    for number, row in enumerate(rows):
        assert images.content(number) == files[row].path.read_bytes()
        assert (images[number] == decode(files[row], Preprocessing(48)).pixels).all()
    whole = images[:]
    assert (images[np.array([5, 0, 5])] == whole[[5, 0, 5]]).all()
    assert (images[2:4] == whole[2:4]).all()
    assert images[np.array([], np.int64)].shape == (0, 48, 48, 3)


def test_shards_are_plain_tar_files(native, files, work):
    _, rows = native
    found = {}
    for path in sorted((work / "shards").iterdir()):
        with tarfile.open(path) as tar:
            found |= {entry.name: tar.extractfile(entry).read() for entry in tar}
    suffix = {row: files[row].path.suffix for row in rows}
    assert found == {f"i{row}{suffix[row]}": files[row].path.read_bytes() for row in rows}


def test_long_names_do_not_move_the_bytes(tmp_path):
    with ShardWriter(tmp_path, 0) as shard:
        places = [
            (shard.add(name, body), body) for name, body in (("x" * 300, b"one"), ("ä", b"2"))
        ]
    content = shard_path(tmp_path, 0).read_bytes()
    for offset, body in places:
        assert content[offset : offset + len(body)] == body


def test_damaged_shards_are_named(native, work):
    images, _ = native
    shard_path(work, 2).write_bytes(b"")
    with pytest.raises(UserError, match=r"00002\.tar: cut off; prepare the dataset again"):
        images[:]
    shard_path(work, 2).unlink()
    table = pd.DataFrame({"shard": [2], "offset": [0], "length": [1], "sha256": [""]})
    with pytest.raises(UserError, match=r"00002\.tar: missing"):
        NativeImages(work, table, *FULL, 32)


def test_one_flipped_bit_in_a_shard_is_named(native, work):
    images, _ = native
    content = bytearray(shard_path(work, 0).read_bytes())
    content[1000] ^= 1
    shard_path(work, 0).write_bytes(content)
    with pytest.raises(UserError, match=r"00000\.tar: image 0 .* is not what was written"):
        images[0]
    assert images[6].shape == (48, 48, 3)


def test_a_jpeg_that_came_damaged_is_named(tmp_path, make_texture):
    """Its hash is right: it was damaged before it was sealed."""
    file = io.BytesIO()
    Image.fromarray(make_texture(0)).save(file, "JPEG")
    content = file.getvalue()[:-400]
    with ShardWriter(tmp_path, 0) as shard:
        offset = shard.add("a.jpg", content)
    digest = hashlib.sha256(content).hexdigest()
    places = {"shard": [0], "offset": [offset], "length": [len(content)], "sha256": [digest]}
    images = NativeImages(tmp_path, pd.DataFrame(places), *FULL, 48)
    with pytest.raises(UserError, match=r"00000\.tar: image 0 .*: damaged or cut off; prepare"):
        images[0]


@pytest.mark.usefixtures("native")
def test_a_named_pipe_in_place_of_a_shard_is_not_waited_for(work):
    shard_path(work, 1).unlink()
    os.mkfifo(shard_path(work, 1))
    table = pd.DataFrame({"shard": [1], "offset": [0], "length": [1], "sha256": [""]})
    with pytest.raises(UserError, match=r"00001\.tar: missing, or no file"):
        NativeImages(work, table, *FULL, 32)


def test_what_the_manifest_says_of_a_shard_is_hashed_while_it_is_written(files, work):
    taken = ingest(work, NAMES, files, LOOK, native=True)
    assert len(taken.shards) == 3
    for name, entry in taken.shards.items():
        content = (work / name).read_bytes()
        assert entry.size == len(content)
        assert entry.sha256 == hashlib.sha256(content).hexdigest()
