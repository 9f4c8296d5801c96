"""JSON as typed records: what is wrong is named, whatever the file holds."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermsynth.errors import UserError
from dermsynth.records import Json, Record, parse_record, read_record, write_record


class Inner(Record):
    name: str
    share: float = 0.5


class Outer(Record):
    schema_version: int = 2
    count: int
    inner: list[Inner] = []
    free: dict[str, Json] = {}


def parsed(text: str | bytes, version: int | None = None) -> Outer:
    content = text.encode() if isinstance(text, str) else text
    return parse_record(content, Outer, "a.json", "make it again", version)


def test_a_round_trip(tmp_path):
    record = Outer(count=3, inner=[Inner(name="é")], free={"a": [1, None, {"b": 2.5}]})
    write_record(tmp_path / "a.json", record)
    assert read_record(tmp_path / "a.json", Outer, "again") == record


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "the whole file"),
        ("null", "the whole file"),
        ('{"count": "3"}', "count: expected a valid integer, found '3'"),
        ('{"count": 3.0}', "count: expected a valid integer"),
        ('{"count": true}', "count: expected a valid integer"),
        ('{"count": 1e400}', "no finite number"),
        ('{"count": 3, "free": {"x": NaN}}', "NaN is no number"),
        ('{"count": 3, "free": {"x": -Infinity}}', "Infinity is no number"),
        ('{"count": 3, "inner": [{"name": "a", "share": 1e999}]}', "no finite number"),
        ('{"count": 3, "inner": [{"name": 5}]}', "inner.0.name: expected a valid string, found 5"),
        ('{"count": 3, "new": 1}', "new: extra inputs are not permitted"),
        ('{"count": 3, "count": 4}', "'count' is there twice"),
        ('{"inner": []}', "count: field required"),
        (f'{{"count": 1{"0" * 5000}}}', "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"count": 3, "free": {"x": ' + "[" * 40 + "]" * 40 + "}}", "nested more than 32"),
        (b'{"count": "\xff"}', "not JSON"),
        (b"\x00" * 100, "not JSON"),
    ],
)
def test_what_is_wrong_is_named_with_the_file_and_the_mend(text, words):
    with pytest.raises(UserError) as caught:
        parsed(text)
    message = str(caught.value)
    assert words in message
    assert message.startswith("a.json: ")
    assert message.endswith("make it again")
    assert "\n" not in message


@pytest.mark.parametrize("version", [1, 3, "2", None, True, 2.5, [2]])
def test_another_version_is_refused_by_its_number(version):
    with pytest.raises(UserError, match=r"schema version .*, expected 2; make it again"):
        parsed(json.dumps({"schema_version": version, "count": 1}), version=2)


@given(st.binary(max_size=300))
def test_no_bytes_give_anything_but_a_record_or_one_error(content):
    try:
        parsed(content)
    except UserError:
        return


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_any_json_value_survives_or_is_refused(value):
    try:
        record = parsed(json.dumps({"count": 1, "free": {"x": value}}))
    except UserError:
        assert "Infinity" in json.dumps(value)
    else:
        assert record.free["x"] == value


def test_only_regular_files_of_a_sane_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(2**31)
    for name, words in {
        "pipe": "a pipe",
        "folder": "a folder",
        "huge": "expected at most",
        "none": "cannot be read",
    }.items():
        with pytest.raises(UserError, match=words):
            read_record(tmp_path / f"{name}.json", Outer, "make it again")
