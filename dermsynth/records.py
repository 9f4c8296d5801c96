"""Files of JSON as typed records: what is read is checked, and what is wrong is named.

A record is a pydantic model: strict types, finite numbers, no unknown keys. JSON is read nowhere
else in the program.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, StringConstraints, ValidationError

from dermsynth.errors import UserError
from dermsynth.files import read_bytes, write_text

MOST_BYTES = 64 * 2**20  # of a JSON file: the ids of 400,000 training images are 10 MB
DEEPEST = 32  # levels of nesting
SHOWN = 60  # characters of a wrong value in a message

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Json = JsonValue


class Record(BaseModel):
    """The base of all records."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


AnyRecord = TypeVar("AnyRecord", bound=BaseModel)  # a Record, or a list of them


def read_record(
    path: Path, kind: type[AnyRecord], mend: str, version: int | None = None
) -> AnyRecord:
    """A JSON file as a record. Raises UserError as `parse_record` does, and for no such file."""
    return parse_record(read_bytes(path, MOST_BYTES, mend), kind, str(path), mend, version)


def parse_record(
    content: bytes, kind: type[AnyRecord], source: str, mend: str, version: int | None = None
) -> AnyRecord:
    """JSON as a record.

    Raises UserError that names `source`, the key, what was expected there and how to `mend` it.
    With `version`, any other number under `schema_version` is refused by that number.

    Parameters
    ----------
    content : the JSON text, UTF-8
    kind : the record's class
    source : where it comes from, for messages
    mend : what to do about it, for messages
    version : the only `schema_version` that this program reads; None: the record has none
    """
    values = _strict_json(content, source, mend)
    if version is not None:
        found = values.get("schema_version") if isinstance(values, dict) else None
        if found != version or isinstance(found, bool):
            raise UserError(f"{source}: schema version {found}, expected {version}; {mend}")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        key = ".".join(map(str, first["loc"])) or "the whole file"
        found = repr(first["input"])
        found = found if len(found) <= SHOWN else f"{found[:SHOWN]}..."
        more = f" (and {len(others)} more faults)" if others else ""
        raise UserError(
            f"{source}: {key}: {_lower(first['msg'])}, found {found}{more}; {mend}"
        ) from None


def dump_record(record: BaseModel) -> str:
    """A record as indented JSON."""
    return json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"


def write_record(path: Path, record: BaseModel) -> None:
    """Replace a JSON file atomically."""
    write_text(path, dump_record(record))


def canonical(values: Any) -> bytes:
    """JSON with sorted keys and no spaces: the same values, the same bytes."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _lower(message: str) -> str:
    """pydantic's words as part of a sentence: `expected a valid integer`."""
    message = message.removeprefix("Value error, ").replace("Input should be", "expected")
    return message[:1].lower() + message[1:]


def _strict_json(content: bytes, source: str, mend: str) -> Any:
    """JSON without what Python's reader lets pass: NaN, infinities, keys twice, deep nesting."""

    def refuse(reason: str) -> NoReturn:
        raise UserError(f"{source}: {reason}; {mend}")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(items)
        if len(values) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            refuse(f"the key {twice!r} is there twice")
        return values

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):
            refuse(f"{text[:SHOWN]} is no finite number")
        return value

    try:
        values = json.loads(
            content,
            object_pairs_hook=pairs,
            parse_float=number,
            parse_constant=lambda word: refuse(f"{word} is no number in JSON"),
        )
    except RecursionError:
        refuse("not JSON of ours: nested too deeply")
    except ValueError as error:  # also of bytes that are no UTF-8, and of huge integers
        refuse(f"not JSON ({error}); it may be damaged")
    if _depth(values) > DEEPEST:
        refuse(f"not JSON of ours: nested more than {DEEPEST} levels deep")
    return values


def _depth(values: Any) -> int:
    """Levels of nesting, counted without recursion."""
    deepest, level = 0, [values]
    while level:
        nested = [value for value in level if isinstance(value, dict | list)]
        deepest += bool(nested)
        level = [
            item
            for value in nested
            for item in (value.values() if isinstance(value, dict) else value)
        ]
    return deepest
