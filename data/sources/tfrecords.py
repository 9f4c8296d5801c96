"""Chris Deotte's "melanoma-NxN" TFRecords of Kaggle: JPEG files and their metadata in a few files.

A TFRecord file is records one after the other (TensorFlow, core/lib/io/record_writer.h): length
uint64, masked CRC-32C of it, the data, masked CRC-32C of them; little endian. The data are a
`tf.train.Example`. Both checksums of every record are checked, one record at a time is in memory,
and the images stay where they are: files are pieces of the TFRecord files.

Categories are numbers there, in the order in which `pandas.factorize` met them; -1 is missing. What
a number means is known of sex and site (`SEXES`, `SITES`); of diagnoses it is not, so they are
missing here. Missing ages were filled with the mean age before the files were made.
"""

import functools
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from data.images.files import MAX_BYTES, Encoded, check_text, find_files, leads_out
from data.sources import vocabulary
from data.sources.listing import Fault, Listing, SourceOptions, packed_hint
from data.sources.rows import Rows, listing
from data.sources.targets import Own
from dermsynth import progress
from dermsynth.errors import UserError, some

SUFFIXES = (".tfrec", ".tfrecord", ".tfrecords")
SEXES = ("female", "male")  # by code
SITES = vocabulary.SITES  # by code
MASK = 0xA282EAD8  # of TFRecord checksums: rotated right by 15 bits, plus this
MAX_RECORD = MAX_BYTES // 2  # bytes; a parsed Example may take many times its size
MAX_FAULTS = 100_000  # after so many records this is not the right file
MAX_TEXT = 1000  # characters of a feature that are looked at
PROMISED = re.compile(r"-(\d+)\.[a-z]+$")  # train00-2071.tfrec holds 2,071 records
OWN = Own("the feature target", ("mel",))
FACTS = {
    "licence": "CC BY-NC 4.0 (of SIIM-ISIC 2020 and ISIC 2019, whose images these are)",
    "citation": "SIIM-ISIC 2020: doi:10.1038/s41597-021-00815-z; as TFRecords by Chris Deotte, "
    "kaggle.com/cdeotte",
    "codes": {"sex": list(SEXES), "site": list(SITES), "diagnosis": "not known, left missing"},
}


@dataclass(frozen=True, slots=True)
class _Image:
    """Where an image lies; equal to another one if the records are."""

    crc: int  # of the record
    file: Encoded = field(compare=False)


class _Row(NamedTuple):
    """The words of a record as data.sources.rows wants them."""

    image_id: str
    where: str
    patient_id: str
    sex: str
    site: str
    diagnosis: str
    age: str
    own: float | None  # the target
    path: _Image
    fold: str


class _Bad(Exception):
    """Why a record cannot be used."""


def list_tfrecords(root: Path, options: SourceOptions) -> Listing:
    """One row a record of all TFRecord files below `root`. Raises UserError for damaged files.

    A record whose data do not match their checksum is a Fault ("CRC error"), and so is one that is
    no Example or lacks what is needed. Where a length is wrong or the file is cut off, nothing
    behind it can be trusted: UserError with file, record and byte. A file without any target is one
    of images without labels.
    """
    _libraries()
    paths = _find(root)
    rows: list[_Row] = []
    faults: list[Fault] = []
    size = sum(path.stat().st_size for path in paths)
    with progress.bar(size, "reading TFRecords", "B", unit_scale=True) as bar:
        for path in paths:
            rows += _read_file(path, root, options.fold_column, faults)
            bar.update(path.stat().st_size)
    if not rows:
        raise UserError(
            f"--root {root}: not one usable record in {some([p.name for p in paths])}"
            + (f" (the first: {faults[0].where}: {faults[0].reason})" if faults else "")
        )
    raw = pd.DataFrame(rows, columns=_Row._fields)
    rows.clear()
    facts = FACTS | {"metadata": ", ".join(str(path.relative_to(root)) for path in paths)}
    result = listing("tfrecords", root, options, Rows(raw, faults), facts, own=OWN)
    files = [file and file.file for file in result.files]  # type: ignore[attr-defined]
    return replace(result, files=files)


@functools.cache
def _libraries() -> tuple[Callable[[bytes], int], type, type[Exception]]:
    """CRC-32C, tf.train.Example and its error; of an extra, as only this reader needs them."""
    try:
        from crc32c import crc32c
        from google.protobuf.message import DecodeError
        from tfrecord.example_pb2 import Example  # imports torch
    except ImportError as error:
        raise UserError(
            f"--source tfrecords needs the package {error.name}, which is not installed: "
            "pip install 'dermsynth[tfrecords]'"
        ) from None
    return crc32c, Example, DecodeError


def _find(root: Path) -> list[Path]:
    files = find_files(root)
    paths = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    if not paths:
        hint = packed_hint(files) or "they are called train00-2071.tfrec or so"
        raise UserError(f"--root {root}: no {', '.join(SUFFIXES)} file in it or below; {hint}")
    for path in paths:
        check_text(path)
        if leads_out(path, root):
            raise UserError(f"{path}: a link that leads out of the folder; put the file there")
        if not path.is_file():
            raise UserError(f"{path}: not a regular file; expected a TFRecord file")
    return paths


def _read_file(path: Path, root: Path, fold: str | None, faults: list[Fault]) -> list[_Row]:
    """The rows of one file; appends to `faults`. Raises UserError where it is damaged."""
    name, number = str(path.relative_to(root)), 0
    rows = []
    for number, offset, data, crc in _records(path):
        where = f"{name} record {number}"
        try:
            rows.append(_row(data, where, crc, Encoded(path, offset), fold))
        except _Bad as problem:
            faults.append(Fault("", where, str(problem)))
            if len(faults) >= MAX_FAULTS:
                raise UserError(
                    f"{path}: {MAX_FAULTS:,} unusable records; not what it says"
                ) from None
    promised = PROMISED.search(path.name.lower())
    if promised and int(promised[1]) != number:
        raise UserError(
            f"{path}: {number:,} records, its name says {int(promised[1]):,}; download it again "
            "(or rename it, if you know better)"
        )
    return _labelled(rows, faults)


def _labelled(rows: list[_Row], faults: list[Fault]) -> list[_Row]:
    """All rows of a file without any target; else those that have one, the others are faults."""
    if all(row.own is None for row in rows):
        return rows
    for row in rows:
        if row.own is None:
            faults.append(Fault(row.image_id, row.where, "no feature target"))
    return [row for row in rows if row.own is not None]


# --------------------------------------------------------------------------------------- records


def _records(path: Path) -> Iterator[tuple[int, int, bytes | str, int]]:
    """Number (from 1), offset of the data, the data or why there are none, their checksum.

    Raises UserError naming record and byte where the file is cut off or a length is damaged.
    """
    size, start, number = path.stat().st_size, 0, 0
    if not size:
        raise UserError(f"{path}: 0 bytes; download it again")
    with open(path, "rb") as file:
        while start < size:
            number += 1
            where = f"{path}: record {number} (byte {start:,})"
            header = file.read(12)
            if len(header) < 12:
                raise UserError(f"{where}: cut off; download the file again")
            length, crc = struct.unpack("<QI", header)
            if _masked(header[:8]) != crc:
                raise UserError(f"{where}: {_what_is_it(header, number)}")
            end = start + 16 + length
            if end > size:
                raise UserError(
                    f"{where}: cut off; {length:,} bytes are announced, the file ends after "
                    f"{max(size - start - 12, 0):,}; download it again"
                )
            if length > MAX_RECORD:
                yield number, start + 12, f"record of more than {MAX_RECORD // 2**20} MiB", 0
                file.seek(end)
            else:
                data, trailer = file.read(length), file.read(4)
                (crc,) = struct.unpack("<I", trailer.rjust(4, b"\0"))
                yield number, start + 12, data if _masked(data) == crc else "CRC error", crc
            start = end


def _what_is_it(header: bytes, number: int) -> str:
    if number == 1 and header[:2] in (b"\x1f\x8b", b"\x78\x9c", b"\x78\x01", b"\x78\xda"):
        return "a compressed file; unpack it first (gunzip)"
    first = "not a TFRecord file, or " if number == 1 else ""
    return (
        f"{first}CRC error in the length of the record; nothing from here on can be trusted, "
        "download the file again"
    )


def _masked(data: bytes) -> int:
    crc = _libraries()[0](data)
    return (((crc >> 15) | (crc << 17)) + MASK) & 0xFFFFFFFF


# -------------------------------------------------------------------------------------- features


def _row(data: bytes | str, where: str, crc: int, record: Encoded, fold: str | None) -> _Row:
    """Parse the data of a record, which lie at `record`. Raises _Bad."""
    if isinstance(data, str):
        raise _Bad(data)
    _, Example, DecodeError = _libraries()
    try:
        features = Example.FromString(data).features.feature
    except DecodeError:
        raise _Bad("not a tf.train.Example") from None
    image, name = (_value(features, key) for key in ("image", "image_name"))
    if not isinstance(image, bytes) or not image:
        raise _Bad("no feature image, or not bytes")
    if not isinstance(name, bytes):
        raise _Bad("no feature image_name, or not bytes")
    start = record.offset + data.find(image)  # bytes lie in the message as they are
    age = _value(features, "age_approx")
    return _Row(
        image_id=_text(name, "image_name"),
        where=where,
        patient_id=_word(features, "patient_id"),
        sex=_word(features, "sex", SEXES),
        site=_word(features, "anatom_site_general_challenge", SITES),
        diagnosis=_word(features, "diagnosis", ()),
        age="" if age in (None, -1) else _text(age, "age_approx"),
        own=_target(_value(features, "target")),
        path=_Image(crc, Encoded(record.path, start, len(image))),
        fold="" if fold is None else _fold(features, fold),
    )


def _fold(features: Any, name: str) -> str:
    value = _value(features, name)
    if value is None:
        raise _Bad(f"no feature {name}")
    return _text(value, name)


def _value(features: Any, name: str) -> bytes | int | float | None:
    """The one value of a feature, None where there is none. Raises _Bad."""
    kind = features[name].WhichOneof("kind") if name in features else None
    values = getattr(features[name], kind).value if kind else ()
    if len(values) > 1:
        raise _Bad(f"feature {name} has more than one value")
    return values[0] if values else None


def _word(features: Any, name: str, codes: tuple[str, ...] | None = None) -> str:
    """A feature as a word; "" where it is missing or a code of unknown meaning. Raises _Bad.

    Without `codes` a number that is not negative is itself the word.
    """
    value = _value(features, name)
    if isinstance(value, float):
        raise _Bad(f"feature {name} is of the wrong type")
    if not isinstance(value, int):
        return "" if value is None else _text(value, name)
    if codes is None:
        return _text(value, name) if value >= 0 else ""
    return codes[value] if 0 <= value < len(codes) else ""


def _text(value: bytes | int | float, name: str) -> str:
    if not isinstance(value, bytes):
        return sys.intern(str(value))  # few different ones in many rows
    try:
        return value.decode().strip()[:MAX_TEXT]
    except UnicodeDecodeError:
        raise _Bad(f"feature {name} is not UTF-8") from None


def _target(value: bytes | int | float | None) -> float | None:
    if value is None:
        return None
    if value in (0, 1, b"0", b"1"):
        return float(value)
    raise _Bad("target is neither 0 nor 1")
