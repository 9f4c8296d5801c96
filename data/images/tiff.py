"""Which TIFF files are let in: the plain ones, whose parts are of bounded number and size.

TIFF is a box for a dozen compressions and for layouts that Pillow and libtiff allocate memory for
before they look. What is let in is what cameras, scanners and Photoshop write for RGB.
"""

import struct

COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits"}
WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS = 256, 257, 258, 259, 262
STRIPS, STRIP_LENGTHS, PLANES, TILE_WIDTH, TILE_HEIGHT = 273, 279, 284, 322, 323
TILES, TILE_LENGTHS, SUBFILE, DNG_VERSION = 324, 325, 254, 50706
TYPES = {1: "B", 3: "H", 4: "I"}
MAX_TAGS = 500
MAX_PIECES = 200_000  # strips or tiles; each is an object in memory
MAX_TILE = 4096 * 4096  # px
# A camera's raw file (DNG, NEF) is a TIFF that begins with a thumbnail: not to be taken for it.
THUMBNAIL = "that begins with a thumbnail, or a camera's raw file; export it as TIFF or JPEG"


def refusal(content: bytes) -> str:
    """Why the first picture of a TIFF file is not let in ("of ...", THUMBNAIL), or "".

    Raises struct.error where the file is cut off.
    """
    order = "<" if content.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    if count > MAX_TAGS:
        return f"of more than {MAX_TAGS} tags"
    tags = {}
    for number in range(count):
        at = start + 2 + 12 * number
        tag, kind, values = struct.unpack_from(f"{order}HHI", content, at)
        tags[tag] = (kind, values, at + 8)

    def first(tag: int, default: int) -> int:
        """The first value of a tag."""
        if tag not in tags or tags[tag][0] not in TYPES:
            return default
        kind, values, at = tags[tag]
        if struct.calcsize(TYPES[kind]) * values > 4:
            (at,) = struct.unpack_from(f"{order}I", content, at)
        value: int = struct.unpack_from(f"{order}{TYPES[kind]}", content, at)[0]
        return value

    if first(SUBFILE, 0) & 1 or DNG_VERSION in tags:
        return THUMBNAIL
    compression = first(COMPRESSION, 1)
    if compression not in COMPRESSIONS:
        return f"of compression {compression}"
    if first(PLANES, 1) != 1:
        return "of one plane a channel"
    if max(tags.get(tag, (0, 0, 0))[1] for tag in (STRIPS, STRIP_LENGTHS, TILES, TILE_LENGTHS)) > (
        MAX_PIECES
    ):
        return f"of more than {MAX_PIECES:,} pieces"
    if first(TILE_WIDTH, 1) * first(TILE_HEIGHT, 1) > MAX_TILE:
        return "of tiles that are too large"
    return ""
