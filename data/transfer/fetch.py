"""One file over HTTP: resumed where it was cut, retried with patience, the same bytes or an error.

Beside the file `NAME` lie, until it is complete, `NAME.part` and `NAME.part.json` (the address and
the server's ETag). A cut transfer goes on with `Range` and `If-Range` (RFC 9110, 13.1.5 and 14.2);
where the server knows no ranges, or the file changed in the meantime, it starts again.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests

from data.transfer.records import Got, Partial
from dermsynth import progress
from dermsynth.errors import UserError
from dermsynth.files import sha256
from dermsynth.records import read_record, write_record

TRIES = 6  # in a row that bring not one byte
PAUSE = 1.0  # s before the second try; doubled after each, up to LONGEST_PAUSE
LONGEST_PAUSE = 60.0  # s
TIMEOUT = (10, 60)  # s to connect, s between two pieces
BLOCK = 2**16  # bytes; what a cut may lose
BUSY = (408, 425, 429, 500, 502, 503, 504)
T = TypeVar("T")
SIZE_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Remote:
    """A file that somebody publishes, and what is known of it beforehand."""

    url: str
    name: str  # what it is called here
    size: int | None = None  # bytes
    checksum: tuple[str, str] | None = None  # algorithm of hashlib, hex digits


class _Again(Exception):
    """This try failed; the next one may not. Says why."""


def new_session() -> requests.Session:
    """A session that asks for files as they are, uncompressed. Proxies are the environment's."""
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"  # or offsets are not those of the file
    return session


def get_json(session: requests.Session, url: str) -> Any:
    """A small JSON document. Raises UserError."""

    def ask() -> Any:
        response = session.get(url, timeout=TIMEOUT)
        _check_status(response, url)
        try:
            return response.json()
        except ValueError:
            raise UserError(f"{url}: the answer is not JSON; is a login page in between?") from None

    return _patiently(url, ask)


def reach(session: requests.Session, url: str) -> None:
    """Raise UserError unless the server of `url` answers at all."""
    _patiently(url, lambda: session.head(url, timeout=TIMEOUT).close())


def size_of(session: requests.Session, remote: Remote) -> int | None:
    """Bytes of a remote file, None where the server does not tell. Raises UserError."""

    def ask() -> int | None:
        with session.head(remote.url, timeout=TIMEOUT, allow_redirects=True) as response:
            if response.status_code in (403, 405, 501):  # signed addresses often allow GET alone
                return None
            _check_status(response, remote.url)
            return _length(response)

    return remote.size if remote.size is not None else _patiently(remote.url, ask)


def fetch(session: requests.Session, remote: Remote, folder: Path) -> Got:
    """Bring `remote` to `folder / remote.name`, going on from its `.part`.

    Raises UserError, and OSError where the disk is full.
    """
    target = folder / remote.name
    for again in (True, False):
        etag = _transfer(session, remote, target)
        partial = _partial(target)
        try:
            got = _verified(remote, partial, target, etag)
        except UserError:
            _forget(target)
            if not again:
                raise
            print(f"{remote.name}: damaged on its way, once more from the start")
            continue
        os.replace(partial, target)
        _forget(target)
        return got
    raise AssertionError  # the second round returns or raises


def describe(remote: Remote, path: Path) -> Got:
    """Size and checksums of a file that is there already. Raises UserError where they are wrong."""
    if not path.is_file():
        raise UserError(f"{path}: not a regular file; move it away and run again")
    return _verified(remote, path, path, None)


def human(size: float) -> str:
    """`12.3 GB`."""
    for unit in SIZE_UNITS:
        if size < 1000 or unit == SIZE_UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"


def _transfer(session: requests.Session, remote: Remote, target: Path) -> str | None:
    """Fill `NAME.part` to its end; returns the ETag."""
    partial = _partial(target)
    with progress.bar(
        remote.size, remote.name, "B", unit_scale=True, initial=_size(partial)
    ) as bar:
        return _patiently(
            remote.url, lambda: _one_try(session, remote, target, bar), lambda: _size(partial)
        )


def _one_try(session: requests.Session, remote: Remote, target: Path, bar: Any) -> str | None:
    """Open, go on where the part ends, and read to the end. Raises _Again or UserError."""
    partial, known = _partial(target), _known(remote, target)
    have = _size(partial) if known else 0
    headers = {"Range": f"bytes={have}-", "If-Range": known.validator} if known and have else {}
    with session.get(remote.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing lies behind the part: complete, or not ours
            if known and response.headers.get("Content-Range", "").endswith(f"*/{have}"):
                return known.etag
            _forget(target)
            raise _Again("the file on the server changed")
        _check_status(response, remote.url)
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise UserError(
                f"{remote.url}: a web page instead of {remote.name}; is a login page in between?"
            )
        resumed = response.status_code == 206
        if resumed and not (have and known and _continues(response, have, known)):
            _forget(target)
            raise _Again("the server sent another part than asked for")
        start = have if resumed else 0
        length = _length(response)
        total = remote.size if length is None else start + length
        if remote.size is not None and total != remote.size:
            raise UserError(
                f"{remote.url}: {human(total)}, expected {human(remote.size)}; it changed since it "
                "was listed, run the command again"
            )
        if not resumed:
            _remember(remote, target, response)
        bar.total, bar.n = total, start
        bar.refresh()
        with open(partial, "ab" if resumed else "wb") as file:
            for block in response.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and _size(partial) != total:
        raise _Again(f"cut off after {human(_size(partial))} of {human(total)}")
    return response.headers.get("ETag")


def _patiently(url: str, ask: Callable[[], T], size: Callable[[], int] | None = None) -> T:
    """Call `ask` until it succeeds; a try after which `size` is larger than ever does not count.

    Without `size` (a small question, the first of all) a server that cannot be reached at all is
    not waited for: there is no network.
    """
    host = urlsplit(url).netloc
    failed, best = 0, size() if size else 0
    while True:
        try:
            return ask()
        except requests.exceptions.InvalidURL:
            raise UserError(f"{url}: not an address") from None
        except requests.RequestException as error:
            reason, hopeless = _reason(error), size is None and _never_reached(error)
        except _Again as error:
            reason, hopeless = str(error), False
        now = size() if size else 0
        failed, best = (1, now) if now > best else (failed + 1, best)
        if hopeless or failed >= TRIES:
            raise UserError(
                f"{host}: {reason}; check the network (or the proxy settings) and run the same "
                "command again, it goes on where it stopped"
            )
        pause = min(PAUSE * 2 ** (failed - 1), LONGEST_PAUSE)
        print(f"{host}: {reason}; again in {pause:.0f} s", flush=True)
        time.sleep(pause)


def _check_status(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in BUSY:
        raise _Again(f"the server answers {status} {response.reason}")
    if status not in (200, 206):
        raise UserError(
            f"{url}: the server answers {status} {response.reason}; the address may have moved, "
            "see the source's own page"
        )


def _never_reached(error: requests.RequestException) -> bool:
    words = ("NewConnectionError", "NameResolutionError", "ConnectTimeout")
    return any(word in repr(error) for word in words)


def _reason(error: requests.RequestException) -> str:
    """A few words; the library's own message is an address book of wrapped exceptions."""
    if isinstance(error, requests.exceptions.SSLError):
        return "no trusted connection (certificate)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refuses the connection"
    if _never_reached(error):
        return "cannot be reached"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "the connection was cut"


def _continues(response: requests.Response, have: int, known: Partial) -> bool:
    """A 206 answer starts where the part ends, and belongs to the same file."""
    starts = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    return starts and response.headers.get("ETag") in (None, known.etag)


def _length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdecimal() else None


def _verified(remote: Remote, path: Path, target: Path, etag: str | None) -> Got:
    size = _size(path)
    if remote.size is not None and size != remote.size:
        raise UserError(
            f"{target}: {human(size)}, expected {human(remote.size)}; move it away and run again"
        )
    digest, algorithm = sha256(path), None
    if remote.checksum is not None:
        algorithm, expected = remote.checksum
        with open(path, "rb") as file:
            actual = hashlib.file_digest(file, algorithm).hexdigest()
        if actual != expected.lower():
            raise UserError(
                f"{target}: {algorithm} {actual}, the source says {expected}; damaged on its way"
            )
    return Got(url=remote.url, bytes=size, sha256=digest, checked=algorithm, etag=etag)


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _state(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _remember(remote: Remote, target: Path, response: requests.Response) -> None:
    """Keep what proves that a later answer belongs to the same file; a weak ETag does not."""
    etag = response.headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    validator = strong or response.headers.get("Last-Modified")
    write_record(_state(target), Partial(url=remote.url, etag=etag, validator=validator))


def _known(remote: Remote, target: Path) -> Partial | None:
    """What `_remember` kept, if the part can be gone on with."""
    try:
        known = read_record(_state(target), Partial, "")
    except UserError:
        return None
    return known if known.url == remote.url and known.validator else None


def _forget(target: Path) -> None:
    _partial(target).unlink(missing_ok=True)
    _state(target).unlink(missing_ok=True)
