"""What a download leaves on disk of itself, as typed records."""

from dermsynth.records import Record, Sha256

VERSION = 1


class Unpacked(Record):
    """What came out of an archive."""

    files: int
    bytes: int


class Got(Record):
    """A file that was fetched."""

    url: str
    bytes: int
    sha256: Sha256
    checked: str | None  # algorithm of the checksum that the source publishes
    etag: str | None
    unpacked: Unpacked | None = None


class Partial(Record):
    """`NAME.part.json`: what proves that a later answer belongs to the same file."""

    url: str
    etag: str | None
    validator: str | None


class DownloadRecord(Record):
    """`download.json`."""

    schema_version: int
    source: str
    page: str
    licence: str
    citation: str
    search: str
    limit: int
    files: dict[str, Got]  # by name; filled as they arrive
