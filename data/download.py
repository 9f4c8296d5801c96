"""Fetch a public data set from its official address, ready for `python -m data.prepare`.

Run the same command again after a cut: what is complete is not fetched twice, and what is not goes
on where it stopped. `download.json` in the folder says what was got, from where, and its SHA-256.
"""

import errno
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import requests
import tyro

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
from data.transfer.unzip import SPARE, BadArchive, contents, unpack
from dermsynth.cli import run
from dermsynth.errors import UserError, some
from dermsynth.files import read_json, write_json

RECORD = "download.json"
SCHEMA_VERSION = 1
BY_NC = "CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/): no commercial use"
HAM_PARTS = ("HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip")
HAM_METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")
Name = Literal["ham10000", "isic2019", "siim2020", "isic-archive"]


@dataclass(frozen=True)
class Source:
    """Where a data set is published, and on what terms."""

    page: str  # for people
    licence: str
    citation: str
    base: str  # address that the files' names are put behind; of ham10000 and isic-archive the API
    files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()  # without labels


SOURCES = {
    "ham10000": Source(
        "https://doi.org/10.7910/DVN/DBW86T",
        BY_NC,
        "Tschandl, Rosendahl, Kittler: The HAM10000 dataset, a large collection of multi-source "
        "dermatoscopic images of common pigmented skin lesions. Scientific Data 5, 180161 (2018), "
        "doi:10.1038/sdata.2018.161",
        "https://dataverse.harvard.edu/api",
    ),
    "isic2019": Source(
        "https://challenge.isic-archive.com/data/#2019",
        BY_NC,
        "Tschandl et al.: The HAM10000 dataset. Scientific Data 5, 180161 (2018); Codella et al.: "
        "Skin Lesion Analysis Toward Melanoma Detection, arXiv:1710.05006; Combalia et al.: "
        "BCN20000: Dermoscopic Lesions in the Wild, arXiv:1908.02288",
        "https://isic-challenge-data.s3.amazonaws.com/2019",
        (
            "ISIC_2019_Training_GroundTruth.csv",
            "ISIC_2019_Training_Metadata.csv",
            "ISIC_2019_Training_Input.zip",
        ),
    ),
    "siim2020": Source(
        "https://challenge2020.isic-archive.com/",
        BY_NC,
        "The ISIC 2020 Challenge Dataset, https://doi.org/10.34970/2020-ds01 (c) by ISDIS, 2020; "
        "Rotemberg et al.: A patient-centric dataset of images and metadata for identifying "
        "melanomas using clinical context. Scientific Data 8, 34 (2021), "
        "doi:10.1038/s41597-021-00815-z",
        "https://isic-challenge-data.s3.amazonaws.com/2020",
        (
            "ISIC_2020_Training_GroundTruth_v2.csv",
            "ISIC_2020_Training_Duplicates.csv",
            "ISIC_2020_Training_JPEG.zip",
        ),
        ("ISIC_2020_Test_Metadata.csv", "ISIC_2020_Test_JPEG.zip"),
    ),
    "isic-archive": Source(
        "https://www.isic-archive.com/",
        "of each image its own (CC-0, CC-BY, CC-BY-NC): copyright_license in metadata.csv",
        "name the contributors in attribution.txt, as their licences ask",
        "https://api.isic-archive.com/api/v2/",
    ),
}


@dataclass(frozen=True)
class DownloadOptions:
    """What to fetch."""

    source: tyro.conf.Positional[Name]  # which data set
    out: Path  # folder for it; a folder with an unfinished download goes on
    test: bool = False  # siim2020: also the test images, which have no labels (7 GB)
    keep_archives: bool = False  # keep the zip files after they are unpacked
    search: str = ""  # isic-archive: query, as 'diagnosis_3:"Melanoma Invasive" AND sex:male'
    limit: int = 0  # isic-archive: images at most; 0: all that the query finds


def download(options: DownloadOptions) -> Path:
    """Fetch a data set into `options.out` and return it.

    Raises UserError, where there is no network for instance, with everything that is complete kept.
    """
    _check_options(options)
    source, out = SOURCES[options.source], options.out
    record = _open(options)
    print(f"{options.source}: {source.page}\n  licence: {source.licence}")
    print(f"  please cite: {source.citation}", flush=True)
    try:
        with new_session() as session:
            if options.source == "isic-archive":
                _run_isic(session, options, record)
            else:
                _fetch_all(session, _remotes(session, options), options, record)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"run the same command again to go on in {out}") from None
    print(
        f"{out} is complete; go on with\n  python -m data.prepare --source {options.source} "
        f"--root {out} --out datasets/{options.source}"
    )
    return out


def _check_options(options: DownloadOptions) -> None:
    if options.test and not SOURCES[options.source].test_files:
        raise UserError("--test: only siim2020 has test images to fetch")
    if options.source != "isic-archive" and (options.search or options.limit):
        raise UserError("--search and --limit: of isic-archive only; the others come as a whole")
    if options.limit < 0:
        raise UserError(f"--limit {options.limit}: expected 0 (no limit) or more")


def _open(options: DownloadOptions) -> dict[str, Any]:
    """The record of an earlier run in the folder, or a new one. Raises UserError."""
    out, source = options.out, SOURCES[options.source]
    said = {"schema_version": SCHEMA_VERSION, "source": options.source, "page": source.page}
    said |= {"licence": source.licence, "citation": source.citation}
    said |= {"search": options.search, "limit": options.limit, "files": {}}
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file of that name exists; choose another name")
    if not (out / RECORD).exists():
        return said
    before = read_json(out / RECORD)
    if not isinstance(before, dict) or not isinstance(before.get("files"), dict):
        raise UserError(f"{out / RECORD}: not written by this command; choose another --out")
    if changed := [
        f"{key} was {before.get(key)!r}, now {said[key]!r}"
        for key in ("source", "search", "limit")
        if before.get(key) != said[key]
    ]:
        raise UserError(f"--out {out}: holds another download ({some(changed)}); choose another")
    return said | {"files": before["files"]}


def _make(out: Path, record: dict[str, Any]) -> None:
    """The folder and its record. Raises UserError where it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / RECORD, record)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
    except OSError as error:
        if error.errno != errno.EROFS:
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
    record: dict[str, Any],
) -> None:
    out, done = options.out, record["files"]
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
        write_json(out / RECORD, record)
        if target.suffix == ".zip":
            done[remote.name]["unpacked"] = _unpack(target)
            write_json(out / RECORD, record)
            if not options.keep_archives:
                target.unlink()


def _unpack(archive: Path) -> dict[str, int]:
    """Unpack beside the archive; one that is damaged makes room for another try."""
    try:
        return unpack(archive, archive.with_suffix(""))
    except BadArchive:
        archive.replace(archive.with_name(f"{archive.name}.damaged"))
        raise


def _complete(out: Path, name: str, done: dict[str, Any]) -> bool:
    """Whether a file is here as it was got: its size, or what was unpacked of it."""
    if name not in done:
        return False
    if not name.endswith(".zip"):
        return (out / name).is_file() and (out / name).stat().st_size == done[name]["bytes"]
    folder, unpacked = out / Path(name).stem, done[name].get("unpacked")
    return unpacked is not None and folder.is_dir() and contents(folder) == unpacked


def _check_space(remotes: list[Remote], options: DownloadOptions) -> None:
    """Raise UserError unless the disk holds all files, and what is unpacked of them."""
    if not remotes:
        return
    packed = [remote.size or 0 for remote in remotes if remote.name.endswith(".zip")]
    archives = sum(packed) if options.keep_archives else max(packed, default=0)
    here = [options.out / f"{remote.name}{end}" for remote in remotes for end in ("", ".part")]
    have = sum(path.stat().st_size for path in here if path.is_file())
    rest = max(sum(remote.size or 0 for remote in remotes) - have, 0)
    print(f"to fetch: {human(rest)} into {options.out}", flush=True)
    disk = next(
        folder for folder in (options.out, *options.out.absolute().parents) if folder.exists()
    )
    free = shutil.disk_usage(disk).free
    if rest + archives + SPARE > free:
        raise UserError(
            f"--out {options.out}: it takes {human(rest + archives + SPARE)} with the unpacked "
            f"images, and {human(free)} are free there; free some space or choose another --out"
        )


# ------------------------------------------------------------------------------------ isic-cli


def _run_isic(session: requests.Session, options: DownloadOptions, record: dict[str, Any]) -> None:
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
    record["files"] = {table.name: describe(Remote("", table.name), table)}
    write_json(options.out / RECORD, record)


if __name__ == "__main__":
    run(DownloadOptions, download, "data.download", __doc__)
