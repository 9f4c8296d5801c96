"""Opening encoded images from outside: what is refused, and why.

Nothing here decodes pixels. What comes back is a Pillow image of 8-bit RGB whose size, scans and
metadata are within bounds, so that decoding it takes bounded time and memory.
"""

import io
import zlib

from PIL import Image, JpegImagePlugin, PngImagePlugin

MIN_SIDE = 32  # px; anything smaller is an icon or a thumbnail, not a lesion
MAX_PIXELS = 100_000_000  # more is a mistake, or meant to exhaust the memory
MAX_SCANS = 100  # of one JPEG; encoders write about 10, and each costs a pass over the image
TO_RGB = "python -c \"from PIL import Image; Image.open('IN').convert('RGB').save('OUT.png')\""
HEIF = "heif-convert IN OUT.png"  # of libheif; Pillow does not read HEIC
FOREIGN = (  # where, which bytes, what it is, how to convert it
    (0, b"GIF8", "a GIF image", TO_RGB),
    (0, b"BM", "a BMP image", TO_RGB),
    (0, b"II*\0", "a TIFF image", TO_RGB),
    (0, b"MM\0*", "a TIFF image", TO_RGB),
    (8, b"WEBP", "a WebP image", TO_RGB),
    (4, b"ftypavi", "an AVIF image", TO_RGB),
    (4, b"ftyphe", "a HEIC image", HEIF),
    (4, b"ftypmif1", "a HEIC image", HEIF),
    (4, b"ftypmsf1", "a HEIC image", HEIF),
    (4, b"jP  ", "a JPEG 2000 image", TO_RGB),
    (4, b"JXL ", "a JPEG XL image", "djxl IN OUT.png"),
    (0, b"\xff\x0a", "a JPEG XL image", "djxl IN OUT.png"),
    (128, b"DICM", "a DICOM file", "dcmj2pnm --write-png IN OUT.png"),
    (0, b"%PDF", "a PDF document", ""),
    (0, b"PK\x03\x04", "a ZIP archive", ""),
    (0, b"\x1f\x8b", "a gzip archive", ""),
    (0, b"version https://git-lfs", "a Git LFS pointer (`git lfs pull` brings the file)", ""),
)


class Unusable(Exception):
    """The reason why an image is refused."""


def open_image(content: bytes) -> Image.Image:
    """Read the header of an encoded image. Raises Unusable, or anything for a damaged one."""
    # Not Image.open: it warns of large images, refuses still larger ones by limits of its own
    # that are global, and opens the further pictures that a camera hides in a JPEG.
    if content.startswith(b"\xff\xd8\xff"):
        image = _open_jpeg(content)
    elif content.startswith(b"\x89PNG\r\n\x1a\n"):
        image = PngImagePlugin.PngImageFile(io.BytesIO(content))
        _check_sums(content)
    else:
        raise Unusable(_foreign(content))
    if image.width * image.height > MAX_PIXELS:
        raise Unusable(f"more than {MAX_PIXELS // 10**6} megapixels")
    if min(image.size) < MIN_SIDE:
        raise Unusable(f"smaller than {MIN_SIDE} px a side")
    deep = image.mode.startswith("I") or any(";16" in str(tile) for tile in image.tile)
    if deep or image.mode != "RGB":  # Pillow opens 16-bit RGB as "RGB" and drops the lower bits
        names = {"L": "grayscale", "P": "palette", "1": "1-bit", "LA": "grayscale with alpha"}
        mode = "16-bit" if deep else names.get(image.mode, image.mode)
        raise Unusable(f"{mode}, expected 8-bit RGB; to convert a file: `{TO_RGB}`")
    return image


def _open_jpeg(content: bytes) -> Image.Image:
    """Open a JPEG; `info` has "progressive" where decoding needs memory for the whole image."""
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
    start = image.fp.tell()  # of the first scan's data
    if content[start - 14 : start - 9] != b"\xff\xda\0\x0c\3":  # not all three channels in it
        image.info["progressive"] = 1  # no more scans are read after one with all of them
    if "progressive" in image.info and content.count(b"\xff\xda") > MAX_SCANS:
        raise Unusable(f"more than {MAX_SCANS} scans in a progressive JPEG")
    return image


def fault(error: Exception) -> str:
    """What is wrong with an image that raised `error` while it was opened or decoded."""
    if isinstance(error, Unusable):
        return str(error)
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


def _foreign(content: bytes) -> str:
    """What content that is neither JPEG nor PNG is, and what to do about it."""
    for offset, magic, name, convert in FOREIGN:
        if content.startswith(magic, offset):
            advice = f"; to convert a file: `{convert}`" if convert else ""
            return f"{name}, expected a JPEG or PNG image{advice}"
    return "not a JPEG or PNG image, whatever its name says"
