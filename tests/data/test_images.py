import io

import numpy as np
import pytest
from PIL import Image

from data import images
from data.images import BadImage, decode, decode_all, find_images


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def reason(path):
    with pytest.raises(BadImage) as caught:
        decode(path, 64)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.reason


def test_centre_crop_and_scale_keep_the_middle(tmp_path):
    """A wide image whose centre square has a colour of its own, in RGB order."""
    pixels = np.full((64, 128, 3), 10, np.uint8)
    pixels[:, 32:96] = (200, 100, 50)
    decoded = decode(save(tmp_path / "a.png", pixels), 32)
    assert decoded.pixels.shape == (32, 32, 3)
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.pixels[:, 3:-3] == (200, 100, 50)).all()  # Lanczos looks 3 px far
    assert (decoded.width, decoded.height) == (128, 64)


def test_stored_size_passes_unchanged(tmp_path, make_texture):
    pixels = make_texture(0, 64, 64)
    assert (decode(save(tmp_path / "a.png", pixels), 64).pixels == pixels).all()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_scaled_decoding_agrees_with_full_decoding(tmp_path, make_texture, size):
    path = save(tmp_path / "a.jpg", make_texture(0, 1024, 768), quality=92)
    full = Image.open(path).resize((size, size), Image.Resampling.LANCZOS, box=(128, 0, 896, 768))
    difference = np.asarray(full, float) - decode(path, size).pixels
    assert np.abs(difference).mean() < 1.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """The same picture in all eight ways a camera may store it."""
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48], upright[32:, 48:] = (255, 0, 0), (0, 0, 255)
    undo = [None, 0, 3, 1, 5, 2, 6, 4]  # Image.Transpose that turns upright into stored
    image = Image.fromarray(upright)
    if orientation > 1:
        image = image.transpose(Image.Transpose(undo[orientation - 1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    decoded = decode(tmp_path / "a.png", 64)
    assert (decoded.width, decoded.height) == (96, 64)
    assert (decoded.pixels[5, 5] == (255, 0, 0)).all()
    assert (decoded.pixels[60, 60] == (0, 0, 255)).all()


def test_every_cut_is_noticed(tmp_path, make_texture):
    """Pillow decodes lazily; a file cut anywhere must fail, not turn grey at the bottom."""
    for suffix, options in (("jpg", {}), ("jpg", {"progressive": True}), ("png", {})):
        whole = save(tmp_path / f"whole.{suffix}", make_texture(1, 400, 300), **options)
        content = whole.read_bytes()
        for share in np.linspace(0.01, 0.99, 25):
            cut = tmp_path / f"cut.{suffix}"
            cut.write_bytes(content[: int(len(content) * share)])
            assert "damaged" in reason(cut) or "not a JPEG" in reason(cut)


def test_unusable_files(tmp_path, make_texture):
    pixels = make_texture(0)
    image = Image.fromarray(pixels)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404 not found</html>" * 50)
    (tmp_path / "folder.jpg").mkdir()
    image.save(tmp_path / "gif.jpg", format="GIF")
    image.convert("L").save(tmp_path / "grey.jpg")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.convert("RGBA").save(tmp_path / "rgba.png")
    image.convert("P").save(tmp_path / "palette.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    image.resize((8, 8)).save(tmp_path / "icon.png")
    assert "empty (0 bytes)" in reason(tmp_path / "empty.jpg")
    assert "not a JPEG or PNG" in reason(tmp_path / "text.jpg")
    assert "not a JPEG or PNG" in reason(tmp_path / "gif.jpg")
    assert "a folder" in reason(tmp_path / "folder.jpg")
    assert "grayscale, expected 8-bit RGB" in reason(tmp_path / "grey.jpg")
    assert "CMYK, expected 8-bit RGB" in reason(tmp_path / "cmyk.jpg")
    assert "RGBA, expected 8-bit RGB" in reason(tmp_path / "rgba.png")
    assert "palette, expected 8-bit RGB" in reason(tmp_path / "palette.png")
    assert "16-bit, expected 8-bit RGB" in reason(tmp_path / "deep.png")
    assert "smaller than 32 px" in reason(tmp_path / "icon.png")
    assert "No such file" in reason(tmp_path / "nowhere.png")


def test_sixteen_bit_rgb_is_not_cut_to_eight_silently(tmp_path):
    """Pillow opens it as plain RGB and cannot write it: made by hand, as PNG's standard says."""
    import struct
    import zlib

    side = 40
    rows = b"".join(b"\0" + bytes(6 * side) for _ in range(side))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        png += struct.pack(">I", len(body)) + kind + body
        png += struct.pack(">I", zlib.crc32(kind + body))
    (tmp_path / "a.png").write_bytes(png)
    assert Image.open(io.BytesIO(png)).mode == "RGB"
    assert "16-bit" in reason(tmp_path / "a.png")


def test_the_advice_for_other_modes_works(tmp_path, make_texture, monkeypatch):
    save(tmp_path / "IN", make_texture(0)[..., 0], format="PNG")
    code = images.TO_RGB.split('"')[1]
    monkeypatch.chdir(tmp_path)
    exec(code)
    assert decode(tmp_path / "OUT.png", 64).pixels.shape == (64, 64, 3)


@pytest.mark.parametrize("side", [10_500, 15_000])
def test_decompression_bomb(tmp_path, side, recwarn):
    """110 and 225 megapixels: Pillow warns of the first and refuses the second."""
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    (result,) = decode_all([path], 64)
    assert "more than 100 megapixels" in result.reason
    assert not recwarn.list


def test_permission_denied(tmp_path, make_texture, monkeypatch):
    path = save(tmp_path / "a.png", make_texture(0))

    def deny(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", deny)
    assert reason(path) == "cannot be read (Permission denied)"


def test_order_is_kept_and_faults_stay_where_they_are(tmp_path, make_texture):
    paths = [save(tmp_path / f"{k}.png", make_texture(k, 64, 64)) for k in range(12)]
    paths[5].write_bytes(b"")
    results = list(decode_all(paths, 64))
    assert isinstance(results[5], BadImage)
    for k, result in enumerate(results):
        assert k == 5 or (result.pixels == make_texture(k, 64, 64)).all()


def test_finding(tmp_path):
    for name in ("b/1.JPG", "a/2.jpeg", "a/3.PNG", "a/._2.jpeg", ".cache/4.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert names == ["a/2.jpeg", "a/3.PNG", "b/1.JPG"]


def test_links_to_folders_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "part").symlink_to(tmp_path / "elsewhere")
    assert [path.name for path in find_images(tmp_path / "root")] == ["1.jpg"]
