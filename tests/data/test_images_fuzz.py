"""Bytes from nowhere: the outcome is an image or a BadImage, never anything else."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.images.decoding import Preprocessing, decode_bytes
from data.images.files import BadImage

LOOK = Preprocessing(32)
LOOKS = st.builds(
    Preprocessing,
    st.sampled_from([32, 64]),
    st.sampled_from(["crop", "letterbox"]),
    st.sampled_from([(), ("frame", "hair", "colour")]),
)
FUZZ = settings(max_examples=150, suppress_health_check=list(HealthCheck))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow, of odd metadata


def outcome(content, look):
    try:
        return decode_bytes(content, Path("x.jpg"), look)
    except BadImage as problem:
        return problem


def check(content, look=LOOK):
    """Returns whether it was an image."""
    decoded = outcome(content, look)
    if isinstance(decoded, BadImage):
        assert str(decoded) == f"x.jpg: {decoded.reason}"
        assert "\n" not in decoded.reason
        assert len(decoded.reason) < 200
        return False
    assert decoded.pixels.shape == (look.size, look.size, 3)
    assert decoded.pixels.dtype == np.uint8
    assert min(decoded.width, decoded.height) >= 32
    assert len(decoded.sha256) == 64
    assert len(decoded.phash) == 16
    return True


def seeds():
    """Small valid files of every kind that is let in, and of some that are not."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (48, 40, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a lesion"
    found = []
    for form, options in (
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": exif, "icc_profile": bytes(300)}),
        ("JPEG", {"subsampling": 2, "optimize": True, "xmp": b"<x tiff:Orientation='3'/>"}),
        ("PNG", {"exif": exif}),
        ("BMP", {}),
        ("TIFF", {"exif": exif}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"exif": exif}),
        ("AVIF", {"speed": 10}),
        ("GIF", {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        found.append(buffer.getvalue())
    return found


SEEDS = seeds()


@st.composite
def mutated(draw):
    """A valid file with bytes changed, cut out, repeated, or spliced with another one's."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        if not content:
            break
        place = draw(st.integers(0, len(content) - 1))
        length = draw(st.integers(1, 40))
        kind = draw(st.sampled_from(["set", "cut", "repeat", "splice", "number"]))
        if kind == "set":
            content[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place : place + length]
        elif kind == "repeat":
            content[place:place] = content[place : place + length] * draw(st.integers(1, 20))
        elif kind == "splice":
            other = draw(st.sampled_from(SEEDS))
            content[place : place + length] = other[place : place + length]
        else:
            value = draw(st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
            content[place : place + 4] = struct.pack(">I", value)
    return bytes(content)


@FUZZ
@given(mutated(), LOOKS)
def test_mutations_of_valid_files(content, look):
    check(content, look)


@FUZZ
@given(st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF"]), st.binary())
def test_noise(head, content):
    assert not check(head + content)


@FUZZ
@given(
    st.integers(0, 2**32 - 1) | st.integers(30, 70),
    st.integers(0, 2**32 - 1) | st.integers(30, 70),
    st.integers(0, 255) | st.just(8),
    st.integers(0, 255) | st.just(2),
    st.integers(0, 3),
    st.binary(max_size=200),
    st.lists(
        st.tuples(
            st.sampled_from([b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"gAMA", b"tRNS"])
            | st.sampled_from([b"pHYs", b"acTL", b"fcTL", b"fdAT", b"PLTE", b"cHRM", b"sRGB"]),
            st.binary(max_size=60),
        ),
        max_size=4,
    ),
)
def test_png_headers(width, height, bits, colour, interlace, data, extra):
    """Headers that promise anything, with checksums that are right."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        content += struct.pack(">I", len(body)) + kind + body
        content += struct.pack(">I", zlib.crc32(kind + body))
    check(content)


@FUZZ
@given(
    st.lists(
        st.tuples(st.integers(0xC0, 0xFE), st.binary(max_size=60), st.integers(-2, 2)), max_size=6
    ),
    st.integers(0, 65535) | st.integers(30, 70),
    st.integers(0, 65535) | st.integers(30, 70),
)
def test_jpeg_segments(segments, width, height):
    """Segments of every kind, of lengths that lie, before a valid image's own."""
    content = SEEDS[0]
    size = content.index(b"\xff\xc0") + 5
    body = content[2:size] + struct.pack(">HH", height, width) + content[size + 4 :]
    head = b"".join(
        bytes([0xFF, kind]) + struct.pack(">H", max(0, len(data) + 2 + lie)) + data
        for kind, data, lie in segments
    )
    check(b"\xff\xd8" + head + body)


def test_the_valid_files_are_valid():
    assert [check(content) for content in SEEDS] == [True] * 9 + [False]
