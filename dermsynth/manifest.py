"""What a folder says of itself: `manifest.json`, with its content id and the hashes of its files.

Two folders are the same where their content ids are: where they lie and when they were made does
not count. An id is the SHA-256 of named parts (of a dataset: image ids, targets, groups, folds,
images ...) and of the ids of what it was made from, so that a difference can be told by name.
Everything in a finished folder is read through `open_sealed`, which checks what it reads.

Hashes tell damage and mix-ups. They are no signatures: whoever means to can write new ones.
"""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermsynth import __version__
from dermsynth.errors import UserError, some
from dermsynth.files import read_bytes, sha256
from dermsynth.records import (
    AnyRecord,
    Json,
    Record,
    Sha256,
    canonical,
    parse_record,
    read_record,
    write_record,
)

if TYPE_CHECKING:
    import pandas as pd
    import torch

NAME = "manifest.json"
VERSION = 2
# change, or may go, after the folder is finished
NOT_SEALED = ("checkpoint", "tensorboard", "wandb")
MOST_BYTES = 16 * 2**30  # of a file that is read whole


class Identity(Record):
    """What something is, wherever it lies."""

    kind: str
    id: Sha256
    parts: dict[str, Sha256]  # a hash for each thing that the id covers

    def differences(self, other: "Identity", ignoring: tuple[str, ...] = ()) -> list[str]:
        """Names of the parts that are not the same in `other`."""
        names = [name for name in {**self.parts, **other.parts} if name not in ignoring]
        return [name for name in names if self.parts.get(name) != other.parts.get(name)]


class Input(Identity):
    """What a folder was made from."""

    path: str  # where it lay then: a hint for people, never compared


class FileEntry(Record):
    """A file of a finished folder."""

    size: int
    sha256: Sha256 | None  # None: checked row by row, by the hashes in the file `rows`
    rows: str | None = None


class Manifest(Record):
    """`manifest.json`."""

    schema_version: int
    kind: str
    finished: bool
    id: Sha256 | None  # None until it is finished
    parts: dict[str, Sha256]
    inputs: dict[str, Input]
    options: dict[str, Json]
    files: dict[str, FileEntry]
    made_by: str
    seal: Sha256  # of all that is above

    @property
    def identity(self) -> Identity:
        """Of a finished folder."""
        assert self.id is not None
        return Identity(kind=self.kind, id=self.id, parts=self.parts)


def digest(values: Any) -> str:
    """SHA-256 of JSON values."""
    return hashlib.sha256(canonical(values)).hexdigest()


def identify(kind: str, parts: Mapping[str, str], inputs: Mapping[str, Identity]) -> Identity:
    """The identity of what has these parts and was made from these inputs."""
    made_from = {f"from {name}": source.id for name, source in inputs.items()}
    every = dict(parts) | made_from
    return Identity(kind=kind, id=digest([kind, every]), parts=every)


def as_input(identity: Identity, path: Path) -> Input:
    """An identity with the path where it lies."""
    return Input(kind=identity.kind, id=identity.id, parts=identity.parts, path=str(path))


def check_same(
    before: Mapping[str, Identity], now: Mapping[str, Identity], source: str, mend: str
) -> None:
    """Raise UserError where inputs are not those of `before`; it says which, and what of them."""
    changes = []
    for name in dict.fromkeys([*before, *now]):
        if name not in now:
            changes.append(f"{name}: there was one, now there is none")
        elif name not in before:
            changes.append(f"{name}: there was none, now there is one")
        elif before[name].id != now[name].id:
            parts = before[name].differences(now[name]) or ["content"]
            changes.append(f"{name}: other {', '.join(parts)}")
    if changes:
        raise UserError(f"{source}: not what it began with ({'; '.join(changes)}); {mend}")


# --- writing -------------------------------------------------------------------------------------


def begin(folder: Path, kind: str, options: dict[str, Any], inputs: Mapping[str, Input]) -> None:
    """Write the manifest of a folder whose work begins."""
    _write(folder, Identity(kind=kind, id="0" * 64, parts={}), inputs, options, {}, False)


def seal(
    folder: Path,
    kind: str,
    parts: Mapping[str, str],
    inputs: Mapping[str, Input] | None = None,
    options: dict[str, Any] | None = None,
    hashes: Mapping[str, FileEntry] | None = None,
) -> Identity:
    """Finish a folder: hash its files and write the manifest, in one atomic step.

    Parameters
    ----------
    folder : whose files are all there
    kind : of folder
    parts : hashes of what makes it what it is, by name
    inputs : what it was made from
    options : how it was made
    hashes : of files that were hashed while they were written
    """
    identity = identify(kind, parts, inputs or {})
    files: dict[str, FileEntry] = {}
    for name in sealed_names(folder):
        path = folder / name
        known = (hashes or {}).get(name)
        files[name] = known or FileEntry(size=path.stat().st_size, sha256=sha256(path))
    _write(folder, identity, inputs or {}, options or {}, files, True)
    return identity


def loosen(folder: Path, manifest: Manifest, keep: tuple[str, ...]) -> None:
    """Work goes on in a finished folder: of its files only `keep` stay sealed."""
    files = {name: entry for name, entry in manifest.files.items() if name in keep}
    _write(folder, manifest.identity, manifest.inputs, manifest.options, files, True)


def sealed_names(folder: Path) -> Iterator[str]:
    """Files of a folder, relative, sorted; not hidden ones, nor those of folders of their own."""
    for here, subfolders, names in os.walk(folder):
        inner = Path(here)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".")
            and not (inner == folder and name in NOT_SEALED)
            and not (inner / name / NAME).exists()
        )
        for name in sorted(names):
            path = inner / name
            if not name.startswith(".") and path != folder / NAME:
                yield path.relative_to(folder).as_posix()


def _write(
    folder: Path,
    identity: Identity,
    inputs: Mapping[str, Input],
    options: dict[str, Any],
    files: dict[str, FileEntry],
    finished: bool,
) -> None:
    content: dict[str, Any] = {
        "schema_version": VERSION,
        "kind": identity.kind,
        "finished": finished,
        "id": identity.id if finished else None,
        "parts": identity.parts,
        "inputs": {name: source.model_dump() for name, source in inputs.items()},
        "options": options,
        "files": {name: entry.model_dump() for name, entry in files.items()},
        "made_by": f"dermsynth {__version__}",
    }
    write_record(folder / NAME, Manifest(**_records(content), seal=digest(content)))


def _records(content: dict[str, Any]) -> dict[str, Any]:
    inputs = {name: Input(**source) for name, source in content["inputs"].items()}
    files = {name: FileEntry(**entry) for name, entry in content["files"].items()}
    return content | {"inputs": inputs, "files": files}


# --- reading -------------------------------------------------------------------------------------


def read_manifest(folder: Path, mend: str) -> Manifest:
    """The manifest of a folder, finished or not. Raises UserError where it is damaged."""
    manifest = read_record(folder / NAME, Manifest, mend, VERSION)
    if manifest.seal != digest(manifest.model_dump(exclude={"seal"})):
        raise UserError(f"{folder / NAME}: changed or damaged, it does not fit its seal; {mend}")
    return manifest


@dataclass(frozen=True)
class Sealed:
    """A finished folder. Every method raises UserError where a file is not what was written."""

    path: Path
    manifest: Manifest
    mend: str  # what to do about damage

    @property
    def identity(self) -> Identity:
        """Its content id, with the parts."""
        return self.manifest.identity

    @property
    def as_input(self) -> Input:
        """Its identity, as an input of something else."""
        return as_input(self.identity, self.path)

    def has(self, name: str) -> bool:
        """Whether the file belongs to the folder."""
        return name in self.manifest.files

    def bytes(self, name: str) -> bytes:
        """A whole file, as it was written."""
        entry = self.entry(name)
        content = read_bytes(self.path / name, MOST_BYTES, self.mend)
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise self.damaged(name)
        return content

    def record(self, name: str, kind: type[AnyRecord], version: int | None = None) -> AnyRecord:
        """A JSON file as a typed record."""
        return parse_record(self.bytes(name), kind, str(self.path / name), self.mend, version)

    def table(self, name: str, columns: tuple[str, ...] | list[str]) -> "pd.DataFrame":
        """A parquet file that has at least these columns."""
        return read_table(self.bytes(name), columns, self.path / name, self.mend)

    def tensors(self, name: str) -> dict[str, "torch.Tensor"]:
        """The tensors of a safetensors file by name, on the CPU."""
        from dermsynth.tensors import parse_tensors  # here: it loads torch

        return parse_tensors(self.bytes(name), self.path / name, self.mend)

    def seal_again(self, *names: str) -> None:
        """Some files were written anew from the others: the manifest takes up their hashes."""
        files = dict(self.manifest.files)
        for name in names:
            path = self.path / name
            files[name] = FileEntry(size=path.stat().st_size, sha256=sha256(path))
        _write(self.path, self.identity, self.manifest.inputs, self.manifest.options, files, True)

    def entry(self, name: str) -> FileEntry:
        """What the manifest says of a file."""
        if name not in self.manifest.files:
            raise UserError(f"{self.path / name}: not in {NAME}; {self.mend}")
        return self.manifest.files[name]

    def damaged(self, name: str, what: str = "") -> UserError:
        """The error that a file is not what was written."""
        return UserError(
            f"{self.path / name}: {what or 'it'} is not what was written (its SHA-256 differs from "
            f"the one recorded): changed or damaged since; {self.mend}"
        )


def open_sealed(folder: Path, kind: str | tuple[str, ...], absent: str, mend: str) -> Sealed:
    """A finished folder of a kind.

    Raises UserError: `absent` where there is none, what else it is where it is of another kind,
    and ending in `mend` where the manifest is damaged or of another version.
    """
    kinds = (kind,) if isinstance(kind, str) else kind
    if not (folder / NAME).exists():
        if folder.is_dir() and any(folder.iterdir()):
            absent = f"{absent}. (Folders of earlier versions have no {NAME}: make them again)"
        raise UserError(absent)
    manifest = read_manifest(folder, mend)
    if manifest.kind not in kinds:
        raise UserError(f"{folder}: a {manifest.kind}, expected a {' or '.join(kinds)}. {absent}")
    if not manifest.finished:
        raise UserError(f"{folder}: not finished. {absent}")
    return Sealed(folder, manifest, mend)


def is_finished(folder: Path, kind: str) -> bool:
    """Whether a finished folder of a kind lies there. Raises UserError where it is damaged."""
    if not (folder / NAME).exists():
        return False
    manifest = read_manifest(folder, "make it again")
    return manifest.kind == kind and manifest.finished


def read_table(
    content: bytes, columns: tuple[str, ...] | list[str], path: Path, mend: str
) -> "pd.DataFrame":
    """A parquet file that has at least `columns`. Raises UserError ending in `mend`."""
    import pandas as pd
    import pyarrow as pa

    try:
        table = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: damaged, no parquet table ({reason}); {mend}") from None
    if missing := [name for name in columns if name not in table]:
        raise UserError(f"{path}: no column {some(missing)}; {mend}")
    return table
