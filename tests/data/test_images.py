import subprocess
import tarfile
import tracemalloc

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image

from data.images import decoding
from data.images.decoding import (
    Preprocessing,
    decode,
    decode_all,
    decode_bytes,
    perceptual_hash,
    pixels_at,
)
from data.images.files import BadImage, Encoded, find_files, find_images, leads_out
from dermsynth.errors import UserError
from dermsynth.machine import cores


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_centre_crop_and_scale_keep_the_middle(tmp_path):
    """A wide image whose centre square has a colour of its own, in RGB order."""
    pixels = np.full((64, 128, 3), 10, np.uint8)
    pixels[:, 32:96] = (200, 100, 50)
    decoded = decode(save(tmp_path / "a.png", pixels), Preprocessing(32))
    assert decoded.pixels.shape == (32, 32, 3)
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.pixels[:, 3:-3] == (200, 100, 50)).all()  # Lanczos looks 3 px far
    assert (decoded.width, decoded.height) == (128, 64)


@pytest.mark.parametrize("upright", [False, True])
def test_letterbox_shows_all_of_it_between_black_bars(tmp_path, upright):
    pixels = np.full((300, 600, 3), (200, 100, 50), np.uint8)
    pixels = pixels.transpose(1, 0, 2) if upright else pixels
    square = decode(
        save(tmp_path / "a.jpg", pixels, quality=95), Preprocessing(64, "letterbox")
    ).pixels
    square = square.transpose(1, 0, 2) if upright else square
    assert (square[:16] == 0).all()
    assert (square[48:] == 0).all()
    assert np.abs(square[16:48].astype(int) - (200, 100, 50)).max() <= 3


def test_letterbox_of_a_strip_keeps_a_line(tmp_path):
    pixels = np.full((32, 5000, 3), 255, np.uint8)
    square = decode(save(tmp_path / "a.png", pixels), Preprocessing(32, "letterbox")).pixels
    assert (square.sum(axis=(1, 2)) > 0).sum() == 1


def test_stored_size_passes_unchanged(tmp_path, make_texture):
    pixels = make_texture(0, 64, 64)
    assert (decode(save(tmp_path / "a.png", pixels), Preprocessing(64)).pixels == pixels).all()


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
@pytest.mark.parametrize("shape", [(1024, 768), (768, 1024), (1023, 1021), (300, 400)])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_scaled_decoding_agrees_with_full_decoding(tmp_path, make_texture, size, shape, fit):
    """The same filter over the whole image: what scaled decoding changes is not seen."""
    image = Image.fromarray(make_texture(0, *shape))
    image.save(tmp_path / "a.jpg", quality=92)
    image.save(tmp_path / "a.png")
    scaled = decode(tmp_path / "a.jpg", Preprocessing(size, fit)).pixels.astype(float)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    full = decode(tmp_path / "a.png", Preprocessing(size, fit)).pixels
    assert np.abs(scaled - full).mean() < 2.0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation(tmp_path, orientation, suffix):
    """The same picture in all eight ways a camera may store it, large enough to be scaled."""
    upright = np.zeros((640, 960, 3), np.uint8)
    upright[:320, :480], upright[320:, 480:] = (255, 0, 0), (0, 0, 255)
    undo = [None, 0, 3, 1, 5, 2, 6, 4]  # Image.Transpose that turns upright into stored
    image = Image.fromarray(upright)
    if orientation > 1:
        image = image.transpose(Image.Transpose(undo[orientation - 1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    image.save(path, exif=exif)
    decoded = decode(path, Preprocessing(64))
    assert (decoded.width, decoded.height) == (960, 640)
    for pixels in (decoded.pixels, pixels_at(path.read_bytes(), Preprocessing(64))):
        assert np.abs(pixels[5, 5].astype(int) - (255, 0, 0)).max() < 5
        assert np.abs(pixels[60, 60].astype(int) - (0, 0, 255)).max() < 5
    wide = decode(path, Preprocessing(96, "letterbox")).pixels
    assert (wide[:10] < 5).all()
    assert np.abs(wide[20, 5].astype(int) - (255, 0, 0)).max() < 5


def test_odd_orientations_are_upright(tmp_path, make_texture):
    exif = Image.Exif()
    exif[0x0112] = 77
    pixels = make_texture(0, 64, 64)
    path = save(tmp_path / "a.png", pixels, exif=exif)
    assert (decode(path, Preprocessing(64)).pixels == pixels).all()


def test_a_slice_of_a_file_is_as_good_as_a_file(tmp_path, make_texture):
    """As images lie in the shards of a native dataset, and in TFRecords."""
    for number in range(3):
        save(tmp_path / f"{number}.jpg", make_texture(number))
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for number in range(3):
            shard.add(tmp_path / f"{number}.jpg", f"{number}.jpg")
    with tarfile.open(tmp_path / "shard.tar") as shard:
        places = [(member.offset_data, member.size) for member in shard]
    for number, (offset, length) in enumerate(places):
        piece = decode(Encoded(tmp_path / "shard.tar", offset, length), Preprocessing(48))
        whole = decode(tmp_path / f"{number}.jpg", Preprocessing(48))
        assert (piece.pixels == whole.pixels).all()
        assert (piece.sha256, piece.phash) == (whole.sha256, whole.phash)
    with pytest.raises(BadImage, match="damaged or cut off"):
        decode(Encoded(tmp_path / "shard.tar", places[-1][0], 10**6), Preprocessing(48))


def test_content_is_kept_on_request(tmp_path, make_texture):
    path = save(tmp_path / "a.jpg", make_texture(0))
    (plain,) = decode_all([Encoded(path)], Preprocessing(32))
    (kept,) = decode_all([Encoded(path)], Preprocessing(32), keep_content=True)
    assert plain.content is None
    assert kept.content == path.read_bytes()
    assert (pixels_at(kept.content, Preprocessing(32)) == kept.pixels).all()
    assert (decode_bytes(kept.content, path, Preprocessing(32)).pixels == kept.pixels).all()


def test_the_order_of_cleaners_is_fixed_and_unknown_ones_are_refused():
    assert Preprocessing(clean=("colour", "frame", "hair")).clean == ("frame", "hair", "colour")
    with pytest.raises(UserError, match="--clean acne: expected frame, hair, colour"):
        Preprocessing(clean=("acne", "hair"))


@pytest.mark.parametrize("size", [(900, 1200), (400, 300), (64, 64)])
def test_cleaning_happens_on_the_way(tmp_path, make_texture, size):
    """A colour cast is gone after decoding, at any size of the file; phash is of what is stored."""
    pixels = (make_texture(3, *size) * np.array([1.0, 0.7, 0.6])).astype(np.uint8)
    path = save(tmp_path / "a.png", pixels)
    before, after = (
        decode(path, Preprocessing(64, clean=names)) for names in ((), ("frame", "hair", "colour"))
    )
    spread = [np.ptp(d.pixels.mean(axis=(0, 1))) for d in (before, after)]
    assert spread[1] < 0.5 * spread[0]
    assert after.phash == perceptual_hash(after.pixels)
    assert (after.width, after.height) == (before.width, before.height) == size


def test_a_cropped_frame_leaves_what_was_inside(tmp_path, make_texture):
    pixels = np.zeros((600, 800, 3), np.uint8)
    pixels[100:500, 200:600] = inside = np.maximum(make_texture(4, 400, 400), 60)
    path = save(tmp_path / "a.png", pixels)
    found = decode(path, Preprocessing(100, clean=("frame",))).pixels.astype(float)
    expected = cv2.resize(inside, (100, 100), interpolation=cv2.INTER_AREA)
    assert np.abs(found - expected).mean() < 6


def test_perceptual_hash_is_that_of_imagehash(make_texture):
    for seed in range(100):
        side = int(np.random.default_rng(seed).integers(32, 300))
        pixels = make_texture(seed, side, side)
        assert perceptual_hash(pixels) == str(imagehash.phash(Image.fromarray(pixels)))
    assert perceptual_hash(np.full((64, 64, 3), 9, np.uint8)) == "8000000000000000"


def test_order_is_kept_and_faults_stay_where_they_are(tmp_path, make_texture):
    paths = [save(tmp_path / f"{k}.png", make_texture(k, 64, 64)) for k in range(40)]
    paths[5].write_bytes(b"")
    results = list(decode_all([Encoded(path) for path in paths], Preprocessing(64)))
    assert isinstance(results[5], BadImage)
    for k, result in enumerate(results):
        assert k == 5 or (result.pixels == make_texture(k, 64, 64)).all()


@pytest.mark.parametrize("keep", [pytest.param(False, marks=pytest.mark.slow), True])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, make_texture, keep, monkeypatch):
    """2,000 images of 1.2 MB: only the few in the window are ever held."""
    monkeypatch.setattr(decoding, "KEPT_BYTES", 2**20)
    content = save(tmp_path / "a.jpg", make_texture(0)).read_bytes()
    monkeypatch.setattr(decoding, "read_file", lambda source: content + bytes(2**16))
    started = 0

    def listed():
        nonlocal started
        for _ in range(2000):
            started += 1
            yield Encoded(tmp_path / "a.jpg")

    class Sources(list):
        __iter__ = staticmethod(listed)

    tracemalloc.start()
    ahead = 0
    for number, _ in enumerate(decode_all(Sources(), Preprocessing(32), keep)):
        ahead = max(ahead, started - number)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 1999
    assert ahead <= decoding.LOOK_AHEAD * cores()
    assert peak < 30e6


def test_stopping_early_stops_the_work(tmp_path, make_texture, monkeypatch):
    save(tmp_path / "a.png", make_texture(0))
    read, real = [], decoding.read_file
    monkeypatch.setattr(decoding, "read_file", lambda source: read.append(1) or real(source))
    results = decode_all([Encoded(tmp_path / "a.png")] * 5000, Preprocessing(32))
    next(results)
    results.close()
    assert len(read) < 1000


def test_finding(tmp_path):
    for name in ("b/1.JPG", "a/2.jpeg", "a/3.PNG", "a/._2.jpeg", ".cache/4.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert names == ["a/2.jpeg", "a/3.PNG", "b/1.JPG"]


def test_links_that_stay_inside_are_followed(tmp_path, make_texture):
    (tmp_path / "root" / "store").mkdir(parents=True)
    save(tmp_path / "root" / "store" / "1.png", make_texture(0))
    (tmp_path / "root" / "part").symlink_to(tmp_path / "root" / "store")
    (tmp_path / "root" / "2.png").symlink_to("store/1.png")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    for root in (tmp_path / "root", tmp_path / "link"):
        found = find_images(root)
        assert [path.name for path in found] == ["2.png", "1.png"]
        results = decode_all([Encoded(path) for path in found], Preprocessing(32), roots=(root,))
        assert not any(isinstance(result, BadImage) for result in results)


def test_links_that_lead_out_are_listed_and_not_read(tmp_path, make_texture):
    """A folder that someone else packed must not make this machine read its own files."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    save(outside / "1.png", make_texture(0))
    (root / "part").symlink_to(outside)
    (root / "a.png").symlink_to(outside / "1.png")
    (root / "b.png").symlink_to("../outside/nowhere.png")
    (root / "rows.csv").symlink_to(outside / "1.png")
    found = find_images(root)
    assert [path.name for path in found] == ["a.png", "b.png", "part"]
    assert [path.name for path in find_files(root)] == ["a.png", "b.png", "part", "rows.csv"]
    results = list(decode_all([Encoded(path) for path in found], Preprocessing(32), roots=(root,)))
    reasons = [result.reason for result in results]
    for reason, where in zip(
        reasons, ("to files in", "to nothing in", "to the folder"), strict=True
    ):
        assert reason.startswith(f"a link that leads out of the folder, {where} {outside}; read ")
        assert reason.endswith(f"`cp -rL {root} NEW`")
    subprocess.run(["cp", "-rL", root, tmp_path / "NEW"], check=False)  # one leads nowhere
    copied = find_images(tmp_path / "NEW")
    assert [path.relative_to(tmp_path).as_posix() for path in copied] == [
        "NEW/a.png",
        "NEW/part/1.png",
    ]
    assert leads_out(root / "rows.csv", root)
    (both,) = decode_all([Encoded(root / "a.png")], Preprocessing(32), roots=(root, outside))
    assert both.pixels.shape == (32, 32, 3)
