"""Files of unfinished work, which a kill or a bad disk may leave in any state.

Each begins with the SHA-256 of what follows; one that does not fit it counts as not there.
"""

import hashlib
from pathlib import Path

from dermsynth.errors import UserError
from dermsynth.files import read_bytes, write_bytes

BYTES = 32  # of a SHA-256
MOST_BYTES = 2**30


def write_scratch(path: Path, content: bytes) -> None:
    """Replace a file atomically."""
    write_bytes(path, hashlib.sha256(content).digest() + content)


def read_scratch(path: Path) -> bytes | None:
    """What was written; None where the file is missing or damaged."""
    try:
        content = read_bytes(path, MOST_BYTES, "")
    except UserError:
        return None
    whole = hashlib.sha256(content[BYTES:]).digest() == content[:BYTES]
    return content[BYTES:] if whole else None
