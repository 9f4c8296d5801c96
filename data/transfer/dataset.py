"""Fetching a data set: its files over HTTP, or the ISIC archive with the archive's own tool.

`download.json` in the folder says what was got, from where, and its SHA-256; what is complete by it
is not fetched again.
"""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests

from data.transfer.fetch import (
    Remote,
    describe,
    fetch,
    get_json,
    human,
    new_session,
    reach,
    size_of,
)
from data.transfer.published import SOURCES, DownloadOptions
from data.transfer.records import VERSION, DownloadRecord, Got, Unpacked
from data.transfer.unzip import SPARE, BadArchive, contents, unpack
from dermsynth.errors import UserError, some
from dermsynth.files import free_space
from dermsynth.leaving import CANNOT_BE_MADE
from dermsynth.locks import locked
from dermsynth.records import read_record, write_record

RECORD = "download.json"
HAM_PARTS = ("HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip")
HAM_METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")


def fetch_dataset(options: DownloadOptions) -> None:
    """Fetch a data set into `options.out`, keeping what is complete whatever happens.

    Raises UserError, where there is no network for instance.
    """
    source, out = SOURCES[options.source], options.out
    record = _open(options)
    print(f"{options.source}: {source.page}\n  licence: {source.licence}")
    print(f"  please cite: {source.citation}", flush=True)
    with _cannot_be_written(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out), new_session() as session:
            if options.source == "isic-archive":
                _run_isic(session, options, record)
            else:
                _fetch_all(session, _remotes(session, options), options, record)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"run the same command again to go on in {out}") from None
    print(f"{out} is complete")


def _open(options: DownloadOptions) -> DownloadRecord:
    """The record of an earlier run in the folder, or a new one. Raises UserError."""
    out, source = options.out, SOURCES[options.source]
    record = DownloadRecord(
        schema_version=VERSION,
        source=options.source,
        page=source.page,
        licence=source.licence,
        citation=source.citation,
        search=options.search,
        limit=options.limit,
        files={},
    )
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file of that name exists; choose another name")
    if not (out / RECORD).exists():
        return record
    mend = "choose another --out, or remove this file: what is complete is not fetched again"
    before = read_record(out / RECORD, DownloadRecord, mend, VERSION)
    if changed := [
        f"{key} was {getattr(before, key)!r}, now {getattr(record, key)!r}"
        for key in ("source", "search", "limit")
        if getattr(before, key) != getattr(record, key)
    ]:
        raise UserError(f"--out {out}: holds another download ({some(changed)}); choose another")
    return record.model_copy(update={"files": dict(before.files)})


def _make(out: Path, record: DownloadRecord) -> None:
    """The folder and its record. Raises UserError where it cannot be written."""
    with _cannot_be_written(out):
        out.mkdir(parents=True, exist_ok=True)
        write_record(out / RECORD, record)


@contextlib.contextmanager
def _cannot_be_written(out: Path) -> Iterator[None]:
    """In the block: what the system says of folders that cannot be made is a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_BE_MADE:
            raise
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None


# ------------------------------------------------------------------------------- files over HTTP


def _remotes(session: requests.Session, options: DownloadOptions) -> list[Remote]:
    source = SOURCES[options.source]
    if options.source == "ham10000":
        return _dataverse_files(session, source.base)
    names = source.files + (source.test_files if options.test else ())
    return [Remote(f"{source.base}/{name}", name) for name in names]


def _dataverse_files(session: requests.Session, api: str) -> list[Remote]:
    """Ids, sizes and checksums of HAM10000's files as Harvard Dataverse lists them now.

    Tables that Dataverse converted (`.tab`) are asked for as they were uploaded: the checksum that
    it publishes is of those (Dataverse guide, Data Access API, `format=original`).
    """
    url = f"{api}/datasets/:persistentId/versions/:latest-published/files?persistentId=doi:"
    url += "10.7910/DVN/DBW86T"
    listed = get_json(session, url)
    try:
        files = {item["dataFile"]["filename"]: item["dataFile"] for item in listed["data"]}
        wanted = [*HAM_PARTS, next(name for name in HAM_METADATA if name in files)]
        return [_dataverse_file(api, name, files[name]) for name in wanted]
    except (KeyError, TypeError, ValueError, StopIteration):
        names = some(list(files)) if "files" in locals() else "nothing that can be read"
        raise UserError(
            f"{url}: expected {', '.join(HAM_PARTS)} and {HAM_METADATA[0]}, found {names}; "
            "the data set may have moved, see " + SOURCES["ham10000"].page
        ) from None


def _dataverse_file(api: str, name: str, entry: dict[str, Any]) -> Remote:
    converted = "originalFileFormat" in entry
    size = entry.get("originalFileSize") if converted else entry["filesize"]
    algorithm = str(entry["checksum"]["type"]).lower().replace("sha-", "sha")
    if algorithm not in ("md5", "sha1", "sha256", "sha512"):
        raise ValueError(algorithm)
    return Remote(
        f"{api}/access/datafile/{int(entry['id'])}" + ("?format=original" if converted else ""),
        HAM_METADATA[0] if name in HAM_METADATA else name,
        None if size is None else int(size),
        (algorithm, str(entry["checksum"]["value"])),
    )


def _fetch_all(
    session: requests.Session,
    remotes: list[Remote],
    options: DownloadOptions,
    record: DownloadRecord,
) -> None:
    out, done = options.out, record.files
    missing = [remote for remote in remotes if not _complete(out, remote.name, done)]
    for remote in remotes:
        if remote not in missing:
            print(f"{remote.name}: complete, not fetched again")
    missing = [replace(remote, size=size_of(session, remote)) for remote in missing]
    _check_space(missing, options)
    _make(out, record)
    for remote in missing:
        target = out / remote.name
        if target.exists():  # fetched but not unpacked, or put there by hand
            done[remote.name] = describe(remote, target)
        else:
            done[remote.name] = fetch(session, remote, out)
        write_record(out / RECORD, record)
        if target.suffix == ".zip":
            unpacked = _unpack(target)
            done[remote.name] = done[remote.name].model_copy(update={"unpacked": unpacked})
            write_record(out / RECORD, record)
            if not options.keep_archives:
                target.unlink()


def _unpack(archive: Path) -> Unpacked:
    """Unpack beside the archive; one that is damaged makes room for another try."""
    try:
        return unpack(archive, archive.with_suffix(""))
    except BadArchive:
        archive.replace(archive.with_name(f"{archive.name}.damaged"))
        raise


def _complete(out: Path, name: str, done: dict[str, Got]) -> bool:
    """Whether a file is here as it was got: its size, or what was unpacked of it."""
    if name not in done:
        return False
    if not name.endswith(".zip"):
        return (out / name).is_file() and (out / name).stat().st_size == done[name].bytes
    folder, unpacked = out / Path(name).stem, done[name].unpacked
    return unpacked is not None and folder.is_dir() and contents(folder) == unpacked


def _check_space(remotes: list[Remote], options: DownloadOptions) -> None:
    """Raise UserError unless the disk holds all files, and what is unpacked of them."""
    if not remotes:
        return
    packed = [remote.size or 0 for remote in remotes if remote.name.endswith(".zip")]
    archives = sum(packed) if options.keep_archives else max(packed, default=0)
    local = [options.out / f"{remote.name}{end}" for remote in remotes for end in ("", ".part")]
    have = sum(path.stat().st_size for path in local if path.is_file())
    rest = max(sum(remote.size or 0 for remote in remotes) - have, 0)
    print(f"to fetch: {human(rest)} into {options.out}", flush=True)
    free = free_space(options.out)
    if rest + archives + SPARE > free:
        raise UserError(
            f"--out {options.out}: it takes {human(rest + archives + SPARE)} with the unpacked "
            f"images, and {human(free)} are free there; free some space or choose another --out"
        )


# ------------------------------------------------------------------------------------ isic-cli


def _run_isic(session: requests.Session, options: DownloadOptions, record: DownloadRecord) -> None:
    """The archive's own tool, which skips images that are there already. Raises UserError."""
    beside = Path(sys.executable).with_name("isic")
    program = str(beside) if beside.is_file() else shutil.which("isic")
    if program is None:
        raise UserError(
            "isic-archive is fetched with its official tool, which is not installed: "
            "pip install 'dermsynth[download]' (or pip install isic-cli)"
        )
    reach(session, SOURCES["isic-archive"].base)
    _make(options.out, record)
    command = [program, "image", "download"]
    command += ["--search", options.search] if options.search else []
    command += ["--limit", str(options.limit)] if options.limit else []
    tool = subprocess.Popen([*command, "--", str(options.out)])  # its progress goes to the terminal
    try:
        code = tool.wait()
    except KeyboardInterrupt:  # the terminal told the tool too; it removes its unfinished files
        try:
            tool.wait(timeout=10)
        except subprocess.TimeoutExpired:
            tool.kill()
        raise
    table = options.out / "metadata.csv"
    if code or not table.is_file():
        raise UserError(
            f"isic image download ended with exit code {code}, see above; run the same command "
            "again, images that are complete are not fetched again"
        )
    record.files[table.name] = describe(Remote("", table.name), table)
    write_record(options.out / RECORD, record)
