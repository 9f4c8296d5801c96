"""What a file holds, by its first bytes; what its name promises; how to convert what is not read.

No decoder is asked here, so that it costs nothing and cannot be harmed.
"""

READ = (  # suffixes of what is read; .heic with an extra (data.images.opening)
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".tif", ".tiff"),
    *(".webp", ".avif", ".heic", ".heif", ".hif"),
)
SUFFIXES = (  # of what is a picture: what is not read must be told, not overlooked
    *READ,
    *(".gif", ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".dcm", ".dicom", ".psd", ".tga", ".pcx"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".exr", ".svg", ".xcf"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
IN_WORDS = ".jpg, .png, .tif, .bmp, .webp, .avif or .heic"
TO_RGB = "python -c \"from PIL import Image; Image.open('IN').convert('RGB').save('OUT.png')\""
# Pillow clips grey values above 255, so that all is white; OpenCV divides them by 256.
TO_8_BIT = "python -c \"import cv2; cv2.imwrite('OUT.png', cv2.imread('IN'))\""
FOREIGN = (  # where, which bytes, what it is, how to convert it
    (0, b"GIF8", "a GIF image", TO_RGB),
    (0, b"II+\0", "a BigTIFF image", TO_RGB),
    (0, b"MM\0+", "a BigTIFF image", TO_RGB),
    (8, b"WEBP", "a WebP image", ""),  # of a Pillow that was built without it; so the next
    (4, b"ftypavi", "an AVIF image", ""),
    (4, b"jP  ", "a JPEG 2000 image", TO_RGB),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", TO_RGB),
    (4, b"JXL ", "a JPEG XL image", "djxl IN OUT.png"),
    (0, b"\xff\x0a", "a JPEG XL image", "djxl IN OUT.png"),
    (128, b"DICM", "a DICOM file", "dcmj2pnm --write-png IN OUT.png"),
    (0, b"8BPS", "a Photoshop file", TO_RGB),
    (0, b"P6", "a PPM image", TO_RGB),
    (0, b"P5", "a PGM image", TO_RGB),
    (0, b"FUJIFILM", "a camera's raw file", ""),
    (0, b"IIRO", "a camera's raw file", ""),
    (0, b"IIU\0", "a camera's raw file", ""),
    (4, b"ftypcrx", "a camera's raw file", ""),
    (0, b"%PDF", "a PDF document", ""),
    (0, b"PK\x03\x04", "a ZIP archive", ""),
    (0, b"\x1f\x8b", "a gzip archive", ""),
    (0, b"version https://git-lfs", "a Git LFS pointer (`git lfs pull` brings the file)", ""),
)
# What may stand at the beginning of other files as well, so that a suffix must tell
NO_PICTURES = (
    *("a PDF document", "a ZIP archive", "a gzip archive", "a PPM image", "a PGM image"),
    "a Git LFS pointer (`git lfs pull` brings the file)",
)
HEAD = 132  # bytes that tell
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes; "BM" alone may begin any text
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def kind_of(content: bytes) -> str | None:
    """The format as a suffix, "jpg", "png", "bmp", "tif", "webp", "avif" or "heic", or None."""
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith((b"II*\0", b"MM\0*")):
        return "tif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "webp"
    if content.startswith(b"BM") and int.from_bytes(content[14:18], "little") in BMP_HEADERS:
        return "bmp"
    if content[4:8] == b"ftyp":
        length = min(int.from_bytes(content[:4], "big"), HEAD)
        brands = {content[at : at + 4] for at in (8, *range(16, max(length, 16), 4))}
        if brands & {b"avif", b"avis"}:
            return "avif"
        if brands & set(HEIC_BRANDS):
            return "heic"
    return None


def is_picture(head: bytes) -> bool:
    """Whether a file that begins with these HEAD bytes holds a picture, read here or not."""
    if kind_of(head):
        return True
    names = {name for offset, magic, name, _ in FOREIGN if head.startswith(magic, offset)}
    return bool(names - set(NO_PICTURES))


def foreign(content: bytes) -> str:
    """What content of none of the formats that are read is, and what to do about it."""
    for offset, magic, name, convert in FOREIGN:
        if content.startswith(magic, offset):
            advice = f"; to convert a file: `{convert}`" if convert else ""
            return f"{name}, expected a JPEG or PNG image{advice}"
    return "not a JPEG or PNG image, whatever its name says"
