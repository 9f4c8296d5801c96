"""Pictures that are neither JPEG nor PNG: read the same way, or told with what helps."""

import io
import shlex
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.images import formats, opening, tiff
from data.images.decoding import Preprocessing, decode, decode_all, decode_bytes, pixels_at
from data.images.files import BadImage
from data.images.pictures import NO_SUFFIX
from data.prepare import PrepareOptions, prepare
from dermsynth.errors import UserError
from dermsynth.options import replace

OTHER = {  # suffix: Pillow's format, how it is written, how far pixels may be off on average
    "bmp": ("BMP", {}, 0),
    "tif": ("TIFF", {}, 0),
    "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}, 0),
    "deflate.tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
    "packbits.tif": ("TIFF", {"compression": "packbits"}, 0),
    "webp": ("WEBP", {"quality": 90}, 2),
    "lossless.webp": ("WEBP", {"lossless": True}, 0),
    "avif": ("AVIF", {"quality": 90, "speed": 10}, 2),
    "heic": ("HEIF", {"quality": 90}, 2),
    "jfif": ("JPEG", {"quality": 95}, 2),
    "mpo": ("MPO", {"quality": 95}, 2),
}
UNDO = [None, 0, 3, 1, 5, 2, 6, 4]  # Image.Transpose that turns upright into stored
LOOK = Preprocessing(64)


@pytest.fixture(autouse=True)
def heic():
    pytest.importorskip("pillow_heif").register_heif_opener()


def encoded(pixels, form, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def reason(content):
    with pytest.raises(BadImage) as caught:
        decode_bytes(content, Path("a"), LOOK)
    return caught.value.reason


@pytest.mark.parametrize("suffix", OTHER)
def test_what_is_read_gives_the_pixels_of_the_same_png(make_texture, suffix):
    form, how, off = OTHER[suffix]
    pixels = make_texture(1, 400, 300)
    png = decode_bytes(encoded(pixels, "PNG"), Path("a.png"), LOOK)
    content = encoded(pixels, form, **how)
    found = decode_bytes(content, Path("a"), LOOK)
    assert np.abs(found.pixels.astype(int) - png.pixels).mean() <= off
    assert (found.width, found.height) == (400, 300)
    assert (pixels_at(content, LOOK) == found.pixels).all()


@pytest.mark.parametrize("suffix", OTHER)
def test_every_cut_is_noticed(make_texture, suffix):
    form, how, _ = OTHER[suffix]
    content = encoded(make_texture(1, 300, 200), form, **how)
    for share in np.linspace(0.01, 0.99, 25):
        found = reason(content[: int(len(content) * share)])
        assert found == "damaged or cut off" or found.startswith("not a JPEG")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["TIFF", "WEBP", "AVIF", "HEIF"])
def test_orientation(form, orientation):
    """Formats differ in who turns the picture: Pillow, the format's own decoder, or this gate."""
    upright = np.zeros((320, 480, 3), np.uint8)
    upright[:160, :240], upright[160:, 240:] = (255, 0, 0), (0, 0, 255)
    image = Image.fromarray(upright)
    if orientation > 1:
        image = image.transpose(Image.Transpose(UNDO[orientation - 1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, form, exif=exif.tobytes())
    decoded = decode_bytes(buffer.getvalue(), Path("a"), LOOK)
    assert (decoded.width, decoded.height) == (480, 320)
    assert np.abs(decoded.pixels[5, 5].astype(int) - (255, 0, 0)).max() < 10
    assert np.abs(decoded.pixels[60, 60].astype(int) - (0, 0, 255)).max() < 10
    box = decode_bytes(buffer.getvalue(), Path("a"), Preprocessing(96, "letterbox")).pixels
    assert (box[:10] < 5).all()
    assert np.abs(box[20, 5].astype(int) - (255, 0, 0)).max() < 10


@pytest.mark.parametrize(("form", "how"), [("TIFF", {}), ("WEBP", {"lossless": True})])
def test_of_several_frames_the_first_is_read(make_texture, form, how):
    frames = [Image.fromarray(make_texture(k, 64, 64)) for k in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:], **how)
    found = decode_bytes(buffer.getvalue(), Path("a"), LOOK).pixels
    assert (found == make_texture(0, 64, 64)).all()


# ------------------------------------------------------------------------------- what is refused


def tags(*entries, size=(64, 64)):
    """A TIFF header with these entries (tag, type, count, value) beside the size."""
    every = sorted([(256, 3, 1, size[0]), (257, 3, 1, size[1]), *entries])
    body = b"".join(struct.pack("<HHII", *entry) for entry in every)
    return b"II*\0" + struct.pack("<IH", 8, len(every)) + body + bytes(200)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tags((259, 3, 1, 7)), "a TIFF image of compression 7; to convert"),
        (tags((259, 3, 1, 50000)), "a TIFF image of compression 50000"),
        (tags((284, 3, 1, 2)), "a TIFF image of one plane a channel"),
        (tags((273, 4, 2**24, 0)), "a TIFF image of more than 200,000 pieces"),
        (tags((322, 4, 1, 60_000), (323, 4, 1, 60_000)), "a TIFF image of tiles that are too"),
        (tags((254, 4, 1, 1)), f"a TIFF image {tiff.THUMBNAIL}"),  # as Nikon's NEF begins
        (tags((50706, 1, 4, 1)), f"a TIFF image {tiff.THUMBNAIL}"),  # DNG
        (b"II*\0" + struct.pack("<IH", 8, 60_000) + bytes(9), "a TIFF image of more than 500"),
    ],
)
def test_tiff_that_is_made_to_exhaust_or_of_rare_kinds(content, expected):
    assert reason(content).startswith(expected)


def test_many_pixels_are_told_before_they_are_decoded(make_texture):
    bmp = bytearray(encoded(make_texture(0), "BMP"))
    bmp[18:26] = struct.pack("<ii", 20_000, 20_000)
    assert reason(bytes(bmp)) == "more than 100 megapixels"
    webp = bytearray(encoded(make_texture(0), "WEBP", lossless=True))
    webp[21:25] = struct.pack("<I", 9_999 | 9_999 << 14)  # 14 bits each
    assert reason(bytes(webp)) == "more than 50 megapixels"
    webp[21:25] = struct.pack("<I", 16_383 | 16_383 << 14)  # Pillow itself refuses that
    assert reason(bytes(webp)) == "more than 50 megapixels"


MEMORY = """
import resource, sys
from pathlib import Path
from data.images.decoding import Preprocessing, decode_all
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for result in decode_all([Path(path) for path in sys.argv[1:]] * 3, Preprocessing(64)):
    print(getattr(result, "reason", "fine"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "side", "how"),
    [
        ("WEBP", 7000, {"lossless": True, "method": 0, "quality": 0}),
        ("AVIF", 7000, {"speed": 10}),
        ("TIFF", 9900, {"compression": "tiff_adobe_deflate"}),
        ("BMP", 4700, {}),
    ],
)
def test_the_largest_that_are_let_in_stay_within_memory(tmp_path, form, side, how):
    """Three of the same at once: threads wait for one another's memory."""
    Image.new("RGB", (side, side), (90, 60, 50)).save(tmp_path / "a", form, **how)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    *reasons, grown = done.stdout.split()
    assert reasons == ["fine"] * 3, done.stderr
    assert int(grown) < 1200  # MiB


def test_heic_without_the_extra_says_what_to_install(make_texture, monkeypatch):
    content = encoded(make_texture(0), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reason(content) == opening.NO_HEIC
    assert "`pip install 'dermsynth[heic]'`" in opening.NO_HEIC


def sixteen_grey(pixels):
    return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)


REFUSED = {  # what people have: how it is made, a word of the reason
    "sixteen.png": (sixteen_grey, "PNG", "16-bit"),
    "sixteen.tif": (sixteen_grey, "TIFF", "16-bit"),
    "grey.jpg": (lambda pixels: Image.fromarray(pixels).convert("L"), "JPEG", "grayscale"),
    "grey.tif": (lambda pixels: Image.fromarray(pixels).convert("L"), "TIFF", "grayscale"),
    "palette.png": (lambda pixels: Image.fromarray(pixels).quantize(256), "PNG", "palette"),
    "palette.bmp": (lambda pixels: Image.fromarray(pixels).quantize(256), "BMP", "palette"),
    "rgba.png": (lambda pixels: Image.fromarray(pixels).convert("RGBA"), "PNG", "RGBA"),
    "cmyk.jpg": (lambda pixels: Image.fromarray(pixels).convert("CMYK"), "JPEG", "CMYK"),
    "cmyk.tif": (lambda pixels: Image.fromarray(pixels).convert("CMYK"), "TIFF", "CMYK"),
    "jpeg.tif": (Image.fromarray, "TIFF", "a TIFF image of compression 7"),
    "big.tif": (Image.fromarray, "TIFF", "a BigTIFF image"),
    "a.ppm": (Image.fromarray, "PPM", "a PPM image"),
    "a.gif": (Image.fromarray, "GIF", "a GIF image"),
    "a.jp2": (Image.fromarray, "JPEG2000", "a JPEG 2000 image"),
}


def offered(found):
    """The command that a reason offers, as words for this Python."""
    words = shlex.split(found.partition("`")[2].rpartition("`")[0])
    assert words[0] == "python"
    return [sys.executable, *words[1:]]


@pytest.mark.parametrize("name", REFUSED)
def test_the_offered_command_gives_the_picture(tmp_path, make_texture, name):
    """Its output is accepted, and as bright as the picture was: not white, not black."""
    make, form, expected = REFUSED[name]
    pixels = make_texture(2)
    how = {"jpeg.tif": {"compression": "jpeg"}, "big.tif": {"big_tiff": True}}.get(name, {})
    make(pixels).save(tmp_path / "IN", form, **how)
    found = reason((tmp_path / "IN").read_bytes())
    assert found.startswith(expected)
    subprocess.run(offered(found), cwd=tmp_path, check=True)
    if "gray" in found or "16" in found:
        grey = np.asarray(make(pixels)).astype(float)
        pixels = np.repeat(grey[..., None] / (257 if "16" in found else 1), 3, axis=2)
    mended = decode(tmp_path / "OUT.png", LOOK).pixels.astype(float)
    whole = decode_bytes(encoded(pixels.astype(np.uint8), "PNG"), Path("a"), LOOK).pixels
    assert np.abs(mended - whole).mean() < 8


def test_sixteen_bit_colour_is_mended_too(tmp_path, make_texture):
    pixels = make_texture(2)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1].astype(np.uint16) * 257)
    (tmp_path / "a.png").rename(tmp_path / "IN")
    found = reason((tmp_path / "IN").read_bytes())
    assert found.startswith("16-bit, expected 8-bit RGB")
    subprocess.run(offered(found), cwd=tmp_path, check=True)
    assert np.abs(np.asarray(Image.open(tmp_path / "OUT.png")).astype(int) - pixels).max() <= 1


def test_bytes_tell_a_picture_from_a_text():
    assert not formats.is_picture(b"BMI and age of the patients\n" * 9)
    assert not formats.is_picture(b"PK\x03\x04" + bytes(200))
    assert formats.is_picture(b"GIF89a" + bytes(200))
    assert formats.is_picture(bytes(128) + b"DICM")


# ------------------------------------------------------------------------------ a whole dataset


def test_a_native_dataset_of_many_formats(tmp_path, make_texture):
    """Files of every format are kept as they came, under their suffix, and read again."""
    root = tmp_path / "root"
    kinds = list(OTHER)
    for number in range(44):
        folder = root / ("malignant" if number % 4 == 0 else "benign")
        folder.mkdir(parents=True, exist_ok=True)
        suffix = kinds[number % len(kinds)]
        form, how, _ = OTHER[suffix]
        path = folder / f"L{number:02d}.{suffix.split('.')[-1]}"
        path.write_bytes(encoded(make_texture(number), form, **how))
    options = replace(PrepareOptions(), source="folder", root=(root,), size="native", folds=2)
    dataset = prepare(replace(options, out=tmp_path / "d"))
    assert len(dataset.table) == 44
    paths = {path.stem: path for path in root.rglob("*.*")}
    ids = dataset.table["image_id"].tolist()
    decoded = decode_all([paths[name] for name in ids], Preprocessing(dataset.images.shape[1]))
    for row, (name, image) in enumerate(zip(ids, decoded, strict=True)):
        assert dataset.images.content(row) == paths[name].read_bytes()
        assert (dataset.images[row] == image.pixels).all()
    with tarfile.open(tmp_path / "d" / "shards" / "00000.tar") as shard:
        kept = {Path(name).suffix for name in shard.getnames()}
    assert kept == {".bmp", ".tif", ".webp", ".avif", ".heic", ".jpg"}


def test_class_folders_as_people_have_them(tmp_path, make_texture, capsys):
    """Formats beside each other, masks, pictures without a suffix, a link to a shared disk."""
    root = tmp_path / "root"
    shared = tmp_path / "shared"
    for folder in (root / "malignant", root / "benign", shared):
        folder.mkdir(parents=True)
    for number in range(40):
        suffix, form = [("jpg", "JPEG"), ("bmp", "BMP"), ("tif", "TIFF")][number % 3]
        path = root / ("benign" if number % 4 else "malignant") / f"L{number:02d}.{suffix}"
        path.write_bytes(encoded(make_texture(number), form))
        mask = path.with_name(f"{path.stem}_segmentation.png")
        mask.write_bytes(encoded(np.zeros((60, 80), np.uint8), "PNG"))
    options = replace(PrepareOptions(), source="folder", root=(root,), size=32, folds=2)
    dataset = prepare(replace(options, out=tmp_path / "a"))
    assert len(dataset.table) == 40
    assert dataset.info.facts["left_out"] == {"masks": 40}
    assert f"note: {root}: masks of 40 images (ignored)" in capsys.readouterr().out
    for number in range(3):
        (root / "malignant" / f"IMG_{number}").write_bytes(encoded(make_texture(90), "JPEG"))
        (root / "malignant" / f"X{number}.gif").write_bytes(encoded(make_texture(91), "GIF"))
    (root / "malignant" / "more").symlink_to(shared)
    with pytest.raises(UserError) as caught:
        prepare(replace(options, out=tmp_path / "b"))
    assert f"3 {NO_SUFFIX}" in str(caught.value)
    assert f"1 a link that leads out of the folder, to the folder {shared}" in str(caught.value)
    dataset = prepare(replace(options, out=tmp_path / "b", on_error="skip"))
    assert len(dataset.table) == 40
    reasons = pd.read_csv(tmp_path / "b" / "skipped.csv")["reason"]
    assert reasons.str.startswith("a GIF image").sum() == 3
    assert len(reasons) == 7


def test_class_folders_that_are_all_links(tmp_path):
    for name in ("benign", "malignant"):
        (tmp_path / "shared" / name).mkdir(parents=True)
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / name).symlink_to(tmp_path / "shared" / name)
    options = replace(PrepareOptions(), source="folder", root=(tmp_path / "root",))
    with pytest.raises(UserError, match=r"no image below it.*benign is a link that leads out"):
        prepare(replace(options, out=tmp_path / "a"))
