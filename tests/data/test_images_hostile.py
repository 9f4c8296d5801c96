"""Files that are not what they say, and files made to do harm."""

import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images import files, formats
from data.images.decoding import Preprocessing, decode, decode_all, decode_bytes
from data.images.files import BadImage, Encoded

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def reason(path):
    with pytest.raises(BadImage) as caught:
        decode(path, Preprocessing(64))
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.reason


def encoded(pixels, form, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, rows=b"", bits=8, colour=2, extra=b""):
    """A PNG whose header may promise more than there is."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        SIGNATURE
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def test_every_cut_is_noticed(tmp_path, make_texture):
    """Pillow decodes lazily; a file cut anywhere must fail, not turn grey at the bottom."""
    for form, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})):
        content = encoded(make_texture(1, 400, 300), form, **options)
        for share in np.linspace(0.01, 0.99, 25):
            (tmp_path / "cut.jpg").write_bytes(content[: int(len(content) * share)])
            found = reason(tmp_path / "cut.jpg")
            assert found == "damaged or cut off" or found.startswith("not a JPEG")


def test_every_changed_byte_of_png_pixels_is_noticed(make_texture):
    """Pillow does not compare the checksums of pixel data."""
    content = encoded(make_texture(1), "PNG")
    start = content.index(b"IDAT")
    for place in range(start, len(content) - 12, 997):
        flipped = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        with pytest.raises(BadImage, match="damaged or cut off"):
            decode_bytes(flipped, Path("a.png"), Preprocessing(64))


def test_unusable_files(tmp_path, make_texture):
    pixels = make_texture(0)
    image = Image.fromarray(pixels)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404 not found</html>" * 50)
    (tmp_path / "folder.jpg").mkdir()
    image.convert("L").save(tmp_path / "grey.jpg")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.convert("RGBA").save(tmp_path / "rgba.png")
    image.convert("P").save(tmp_path / "palette.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    image.resize((8, 8)).save(tmp_path / "icon.png")
    image.resize((1, 1)).save(tmp_path / "dot.jpg")
    assert "empty (0 bytes)" in reason(tmp_path / "empty.jpg")
    assert "not a JPEG or PNG" in reason(tmp_path / "text.jpg")
    assert "a folder" in reason(tmp_path / "folder.jpg")
    assert "grayscale, expected 8-bit RGB" in reason(tmp_path / "grey.jpg")
    assert "CMYK, expected 8-bit RGB" in reason(tmp_path / "cmyk.jpg")
    assert "RGBA, expected 8-bit RGB" in reason(tmp_path / "rgba.png")
    assert "palette, expected 8-bit RGB" in reason(tmp_path / "palette.png")
    assert "16-bit, expected 8-bit RGB" in reason(tmp_path / "deep.png")
    assert "smaller than 32 px" in reason(tmp_path / "icon.png") == reason(tmp_path / "dot.jpg")
    assert "No such file" in reason(tmp_path / "nowhere.png")


def test_sixteen_bit_rgb_is_not_cut_to_eight_silently(tmp_path):
    """Pillow opens it as plain RGB and cannot write it: made by hand, as PNG's standard says."""
    content = png(40, 40, b"".join(b"\0" + bytes(6 * 40) for _ in range(40)), bits=16)
    (tmp_path / "a.png").write_bytes(content)
    assert Image.open(io.BytesIO(content)).mode == "RGB"
    assert "16-bit" in reason(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("form", "name", "options"),
    [
        ("GIF", "a GIF image", {}),
        ("JPEG2000", "a JPEG 2000 image", {}),
        ("PDF", "a PDF document", {}),
    ],
)
def test_other_formats_are_told_by_content(tmp_path, make_texture, form, name, options):
    """The reason names the format that was found, and the advice to convert it works."""
    (tmp_path / "a.jpg").write_bytes(encoded(make_texture(0), form, **options))
    found = reason(tmp_path / "a.jpg")
    assert found.startswith(f"{name}, expected a JPEG or PNG image")
    assert (formats.TO_RGB in found) == (form != "PDF")


def test_animated_gif(tmp_path, make_texture):
    frames = [Image.fromarray(make_texture(k)) for k in range(3)]
    frames[0].save(tmp_path / "a.jpg", "GIF", save_all=True, append_images=frames[1:])
    assert reason(tmp_path / "a.jpg").startswith("a GIF image")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500), ("a HEIC image", "damaged")),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(500), ("a HEIC image", "damaged")),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(500), "a camera's raw file"),
        (bytes(128) + b"DICM" + bytes(500), "a DICOM file"),
        (b"PK\x03\x04" + bytes(500), "a ZIP archive"),
        (b"\x1f\x8b\x08" + bytes(500), "a gzip archive"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(500), "a JPEG XL image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
    ],
)
def test_formats_that_cannot_be_written_here(content, name):
    with pytest.raises(BadImage) as caught:
        decode_bytes(content, Path("a.png"), Preprocessing(64))
    assert caught.value.reason.startswith(name)


def test_pipes_sockets_and_devices_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        (tmp_path / "device.jpg").symlink_to("/dev/zero")
        found = {reason(tmp_path / f"{name}.jpg") for name in ("pipe", "socket", "device")}
    assert found == {"a pipe, a socket or a device, not an image"}


def test_a_link_to_itself(tmp_path):
    (tmp_path / "a.jpg").symlink_to("a.jpg")
    assert reason(tmp_path / "a.jpg").startswith("cannot be read")


def test_permission_denied(tmp_path, make_texture, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(make_texture(0), "PNG"))

    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "open", deny, raising=False)
    assert reason(tmp_path / "a.png") == "cannot be read (Permission denied)"


def test_a_huge_file_is_not_read(tmp_path):
    """A terabyte, all of it a hole."""
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(2**40)
    assert reason(tmp_path / "a.jpg") == "more than 64 MiB"
    (result,) = decode_all([Encoded(tmp_path / "a.jpg", 100, 2**30)], Preprocessing(64))
    assert result.reason == "more than 64 MiB"


@pytest.mark.parametrize("side", [10_500, 15_000])
def test_many_pixels(tmp_path, side, recwarn):
    """110 and 225 megapixels: Pillow warns of the first and refuses the second."""
    (tmp_path / "bomb.png").write_bytes(png(side, side, bytes((side + 7) // 8 + 1) * side, 1, 0))
    (result,) = decode_all([Encoded(tmp_path / "bomb.png")], Preprocessing(64))
    assert result.reason == "more than 100 megapixels"
    assert not recwarn.list


def test_a_jpeg_of_too_many_scans(make_texture):
    """Each scan of a progressive JPEG is a pass over the whole image, however short it is."""
    content = encoded(make_texture(0, 400, 300), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    bomb = content[:last] + content[last:-2] * 5000 + content[-2:]
    with pytest.raises(BadImage, match="more than 100 scans"):
        decode_bytes(bomb, Path("a.jpg"), Preprocessing(64))


def test_text_and_profiles_that_unpack_to_gigabytes():
    rows = b"".join(b"\0" + bytes(3 * 40) for _ in range(40))
    zeros = zlib.compress(bytes(50 * 2**20), 9)
    for extra in (
        chunk(b"iCCP", b"x\0\0" + zeros),
        chunk(b"zTXt", b"x\0\0" + zeros),
        chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(10**6))) * 100,
    ):
        with pytest.raises(BadImage, match="more than 1 MB of text or colour profile"):
            decode_bytes(png(40, 40, rows, extra=extra), Path("a.png"), Preprocessing(64))


def test_faults_of_one_kind_have_one_reason(tmp_path, make_texture):
    """They are counted."""
    contents = [encoded(make_texture(k, 200, 200), "JPEG")[: -700 * k] for k in range(1, 5)]
    for k, content in enumerate(contents):
        (tmp_path / f"{k}.jpg").write_bytes(content)
    assert len({reason(tmp_path / f"{k}.jpg") for k in range(4)}) == 1


BOMBS = """
import resource, sys
from pathlib import Path
from data.images.decoding import Preprocessing, decode_all
from data.images.files import BadImage, Encoded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
paths = sorted(Path(sys.argv[1]).iterdir())
for result in decode_all([Encoded(path) for path in paths], Preprocessing(64)):
    print(result.reason if isinstance(result, BadImage) else "fine")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_bombs_stay_within_memory(tmp_path):
    """Eight at once, in a process of their own: 2.5 gigapixels promised in 30 KB, and the most
    that is let in, 98 megapixels, as PNG and as progressive JPEG."""
    for number in range(3):
        rows = bytes(30_000_000 if number == 0 else 10)
        (tmp_path / f"{number}.png").write_bytes(png(50_000, 50_000, rows))
    for number in range(3, 6):
        (tmp_path / f"{number}.png").write_bytes(png(9900, 9900, bytes(9900 * (9900 * 3 + 1))))
    buffer = io.BytesIO()
    Image.new("RGB", (9900, 9900)).save(buffer, "JPEG", progressive=True, quality=10)
    for number in range(6, 8):
        (tmp_path / f"{number}.jpg").write_bytes(buffer.getvalue())
    command = [sys.executable, "-c", BOMBS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    *reasons, grown = done.stdout.split("\n")[:-1]
    assert reasons == ["more than 100 megapixels"] * 3 + ["fine"] * 5, done.stderr
    assert int(grown) < 1200  # MiB
