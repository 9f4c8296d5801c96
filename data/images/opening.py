"""Opening encoded images from outside: what is refused, and why.

Nothing here decodes pixels. What comes back is a Pillow image of 8-bit RGB whose size, scans and
metadata are within bounds, so that decoding it takes bounded time and memory. Formats are told by
their first bytes (data.images.formats), never by a name.
"""

import io
import zlib

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from data.images import tiff
from data.images.formats import TO_8_BIT, TO_RGB, foreign, kind_of

MIN_SIDE = 32  # px; anything smaller is an icon or a thumbnail, not a lesion
MAX_PIXELS = 100_000_000  # more is a mistake, or meant to exhaust the memory
MAX_PIXELS_WHOLE = 50_000_000  # of formats whose decoders hold several copies of the image
MAX_SCANS = 100  # of one JPEG; encoders write about 10, and each costs a pass over the image
COPIES = {"WEBP": 4, "AVIF": 4, "HEIF": 4, "TIFF": 2}  # times the memory of a JPEG's pixels
NO_HEIC = "a HEIC image, which needs pillow-heif: `pip install 'dermsynth[heic]'`"


class Unusable(Exception):
    """The reason why an image is refused."""


def open_image(content: bytes) -> Image.Image:
    """Read the header of an encoded image. Raises Unusable, or anything for a damaged one."""
    image = open_any(content)
    if min(image.size) < MIN_SIDE:
        raise Unusable(f"smaller than {MIN_SIDE} px a side")
    # Pillow opens 16-bit RGB as "RGB" and drops the lower bits
    if image.mode[0] in "IF" or any(";16" in str(tile) for tile in image.tile):
        deep = "32-bit" if image.mode in ("I", "F") else "16-bit"
        raise Unusable(f"{deep}, expected 8-bit RGB; to convert a file: `{TO_8_BIT}`")
    if image.mode != "RGB":
        names = {"L": "grayscale", "P": "palette", "1": "1-bit", "LA": "grayscale with alpha"}
        mode = names.get(image.mode, image.mode)
        raise Unusable(f"{mode}, expected 8-bit RGB; to convert a file: `{TO_RGB}`")
    return image


def open_any(content: bytes) -> Image.Image:
    """Read the header of an image of any mode and at least 1 px, within the bounds on its size.

    Raises Unusable, or anything for a damaged one.
    """
    # Not Image.open: it warns of large images, refuses still larger ones by limits of its own
    # that are global, and opens the further pictures that a camera hides in a JPEG.
    kind, file = kind_of(content), io.BytesIO(content)
    image: Image.Image
    if kind == "jpg":
        image = _open_jpeg(file, content)
    elif kind == "png":
        image = PngImagePlugin.PngImageFile(file)
        _check_sums(content)
    elif kind == "bmp":
        image = BmpImagePlugin.BmpImageFile(file)
    elif kind == "tif":
        if refused := tiff.refusal(content):
            advice = "" if refused == tiff.THUMBNAIL else f"; to convert a file: `{TO_RGB}`"
            raise Unusable(f"a TIFF image {refused}{advice}")
        image = TiffImagePlugin.TiffImageFile(file)
    elif kind == "webp" and WebPImagePlugin.SUPPORTED:
        image = WebPImagePlugin.WebPImageFile(file)
    elif kind == "avif" and AvifImagePlugin.SUPPORTED:
        image = AvifImagePlugin.AvifImageFile(file)
    elif kind == "heic":
        image = _open_heic(file)
    else:
        raise Unusable(foreign(content))
    limit = MAX_PIXELS if COPIES.get(image.format or "", 1) <= 2 else MAX_PIXELS_WHOLE
    if image.width * image.height > limit:
        raise Unusable(f"more than {limit // 10**6} megapixels")
    return image


def _open_jpeg(file: io.BytesIO, content: bytes) -> Image.Image:
    """Open a JPEG; `info` has "progressive" where decoding needs memory for the whole image."""
    image = JpegImagePlugin.JpegImageFile(file)
    start = image.fp.tell()  # of the first scan's data
    if content[start - 14 : start - 9] != b"\xff\xda\0\x0c\3":  # not all three channels in it
        image.info["progressive"] = 1  # no more scans are read after one with all of them
    if "progressive" in image.info and content.count(b"\xff\xda") > MAX_SCANS:
        raise Unusable(f"more than {MAX_SCANS} scans in a progressive JPEG")
    return image


def _open_heic(file: io.BytesIO) -> Image.Image:
    """Open a HEIC; libheif's own limits hold for what it is made of (tiles, layers)."""
    try:
        from pillow_heif import HeifImageFile  # an extra
    except ImportError:
        raise Unusable(NO_HEIC) from None
    image: Image.Image = HeifImageFile(file)
    return image


def fault(error: Exception) -> str:
    """What is wrong with an image that raised `error` while it was opened or decoded."""
    if isinstance(error, Unusable):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):  # of WebP, whose plugin asks itself
        return f"more than {MAX_PIXELS_WHOLE // 10**6} megapixels"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    # Pillow's own bounds on what compressed text and colour profiles unpack to
    if isinstance(error, ValueError) and ("too large" in str(error) or "MAX_TEXT" in str(error)):
        return "more than 1 MB of text or colour profile in a PNG"
    return "damaged or cut off"


def _check_sums(content: bytes) -> None:
    """Compare the checksums of a PNG's pixel data, which Pillow skips. Raises Unusable."""
    view, start = memoryview(content), 8
    while start + 12 <= len(view):
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        sum_given = int.from_bytes(view[end : end + 4], "big")
        kind = view[start + 4 : start + 8]
        if kind == b"IDAT" and zlib.crc32(view[start + 4 : end]) != sum_given:
            raise Unusable("damaged or cut off")
        start = end + 4
