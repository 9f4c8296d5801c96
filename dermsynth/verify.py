"""Check a folder against its manifest: every file, every image, and the folders inside.

    python -m dermsynth.verify runs/exp/NAME

Says what is damaged, changed, missing or not finished, and ends with 0 only where nothing is.
Hashes tell damage and mix-ups; they are no signatures, and do not tell who wrote a folder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from dermsynth import cli
from dermsynth.errors import UserError, counted
from dermsynth.manifest import NAME, FileEntry, Manifest

ROWS = 512  # images that are read at once
MEND = "make it again"


@dataclass(frozen=True)
class VerifyOptions:
    """Options of `python -m dermsynth.verify`."""

    folder: tyro.conf.Positional[Path]  # a dataset, pool, run or experiment


@dataclass
class Check:
    """What was found in one folder."""

    folder: Path
    kind: str
    files: int
    images: int
    faults: list[str]

    def __str__(self) -> str:
        counts = counted(self.files, "file")
        counts += f", {counted(self.images, 'image')}" if self.images else ""
        words = "; ".join(self.faults) if self.faults else "as written"
        return f"{self.folder}: {self.kind}, {counts}: {words}"


def verify(folder: Path) -> list[Check]:
    """Check a folder and all folders inside that have a manifest.

    Raises UserError where there is none at all.
    """
    manifests = sorted(folder.rglob(NAME)) if folder.is_dir() else []
    if not manifests:
        raise UserError(
            f"{folder}: no {NAME} there or below; expected a folder that a command of this version "
            "wrote"
        )
    return [_check(path.parent) for path in manifests]


def main(options: VerifyOptions) -> None:
    """Print a line a folder. Raises UserError, at the end, where something is wrong."""
    checks = verify(options.folder)
    for check in checks:
        print(check)
    if wrong := [check for check in checks if check.faults]:
        raise UserError(f"{len(wrong)} of {len(checks)} folders are not as written: {MEND}")


def _check(folder: Path) -> Check:
    from dermsynth.manifest import read_manifest, sealed_names

    try:
        manifest = read_manifest(folder, MEND)
    except UserError as error:
        return Check(folder, "unknown", 0, 0, [str(error)])
    check = Check(folder, manifest.kind, len(manifest.files), 0, [])
    if not manifest.finished:
        check.faults.append("not finished")
        return check
    for name, entry in manifest.files.items():
        try:
            check.images += _check_file(folder, name, entry, manifest)
        except UserError as error:
            check.faults.append(str(error))
    strangers = [name for name in sealed_names(folder) if name not in manifest.files]
    check.faults += [f"{name}: not in the manifest" for name in strangers]
    return check


def _check_file(folder: Path, name: str, entry: FileEntry, manifest: Manifest) -> int:
    """How many images were checked one by one. Raises UserError."""
    from dermsynth.files import sha256

    path = folder / name
    if not path.is_file():
        raise UserError(f"{name}: missing")
    if path.stat().st_size != entry.size:
        raise UserError(f"{name}: {path.stat().st_size:,} bytes, {entry.size:,} were written")
    if entry.sha256 is not None:
        if sha256(path) != entry.sha256:
            raise UserError(f"{name}: changed or damaged")
        return 0
    if entry.rows is None or entry.rows not in manifest.files:
        raise UserError(f"{name}: no hashes of its images")
    return _check_rows(path, folder / entry.rows)


def _check_rows(path: Path, hashes: Path) -> int:
    import numpy as np

    from dermsynth import progress
    from dermsynth.row_hashes import CheckedRows, read_hashes

    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UserError(f"{path.name}: damaged ({error})") from None
    rows = CheckedRows(images, read_hashes(hashes, len(images), MEND), path, MEND)
    with progress.bar(len(images), path.name, "img") as bar:
        for part in _parts(len(images)):
            rows[part]
            bar.update(len(range(*part.indices(len(images)))))
    return len(images)


def _parts(count: int) -> Iterator[slice]:
    yield from (slice(start, start + ROWS) for start in range(0, count, ROWS))


if __name__ == "__main__":
    cli.run(VerifyOptions, main, "dermsynth.verify", __doc__)
