"""What a YAML file can do at worst is be refused, in a line that says how to mend it."""

import contextlib
import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dermsynth.cli import read_yaml
from dermsynth.errors import UserError
from dermsynth.yaml_file import DEEPEST, MOST_BYTES

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abc", "bcd", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, r"line 2: alias \*a: write out"),
        ("a: " + "[" * 100_000, "line 1: nested deeper than 20"),
        ("a: 1\nb: 2\na: 3", "line 3: a: given twice"),
        ("a:\n  b: 1\n  b: 2", "line 3: b: given twice"),
        ("a: " + "9" * 5000, "line 1: a number of 5,000 characters"),
        ("a: 1" + ":1" * 5000, "line 1: a number of 10,001 characters"),
        ("a: .nan", "line 1: .nan: expected a finite number"),
        ("a: [-.inf]", "line 1: -.inf: expected a finite number"),
        ("a: 1.0e+999", "line 1: 1.0e\\+999: expected a finite number"),
        ("1: a", "line 1: 1: not a name as it stands; quote it: '1'"),
        ("null: a", "line 1: null: not a name as it stands; quote it: 'null'"),
        ("a:\n  on: 1", "line 2: on: not a name as it stands; quote it: 'on'"),
        ("? [a]\n: b", "line 1: expected a name before the colon"),
        ("<<: {a: 1}", "line 1: <<: not a name"),
        ("a: !!binary x", "line 1: not a YAML file of options: binary"),
        ("a: !!set {b}", "line 1: not a YAML file of options: set"),
        ("a: !!int x", "line 1: x: not a value"),
        ("a: !!bool x", "line 1: x: not a value"),
        ("a: !!float x", "line 1: x: not a value"),
        ("a: 1\n---\nb: 2", "line 2: expected a single document"),
        ("a: [\n", "not a YAML file: line 2"),
        ("a: \x00", "not a YAML file: unacceptable character"),
        ("- 1", "expected `option: value` lines, found list"),
        ("a", "expected `option: value` lines, found str"),
    ],
)
def test_what_is_refused_and_where(tmp_path: Path, text: str, words: str):
    file = tmp_path / "o.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_yaml(file)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def test_no_regular_files(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    begun = time.monotonic()
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=f"^{path}: "):
            read_yaml(path)
    assert time.monotonic() - begun < 5


def test_files_that_are_large_or_no_utf_8(tmp_path: Path):
    file = tmp_path / "o.yaml"
    file.write_bytes(b"a: " + b"x" * MOST_BYTES)
    with pytest.raises(UserError, match="more than 1 MiB"):
        read_yaml(file)
    file.write_bytes(b"a: \xff")
    with pytest.raises(UserError, match="save it as UTF-8"):
        read_yaml(file)


@pytest.mark.parametrize("text", ["", "# nothing", "~", "---", "null"])
def test_nothing_is_no_options(tmp_path: Path, text: str):
    (tmp_path / "o.yaml").write_text(text)
    assert read_yaml(tmp_path / "o.yaml") == {}


def test_what_is_read(tmp_path: Path):
    deep = "x"
    for _ in range(DEEPEST - 3):
        deep = f"[{deep}]"
    text = f'a: 1\nb: 0.5\nc: [x, "1", null, true]\nd: 2020-01-01\ne: 1e400\n"1": {{f: {deep}}}\n'
    (tmp_path / "o.yaml").write_text(text)
    found = read_yaml(tmp_path / "o.yaml")
    found["1"].pop("f")
    expected = {"a": 1, "b": 0.5, "c": ["x", "1", None, True], "d": "2020-01-01", "e": "1e400"}
    assert found == expected | {"1": {}}
    (tmp_path / "o.json").write_text('{"a": [1, 2.5, "x", null, false]}')
    assert read_yaml(tmp_path / "o.json") == {"a": [1, 2.5, "x", None, False]}


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=10)
PLAIN |= st.floats(allow_nan=False, allow_infinity=False)
TREES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(content=st.dictionaries(st.text(max_size=8), TREES, max_size=4))
def test_what_is_saved_reads_back(tmp_path_factory: pytest.TempPathFactory, content: dict):
    file = tmp_path_factory.getbasetemp() / "saved.yaml"
    file.write_text(yaml.dump(content, Dumper=NoAliases))
    assert read_yaml(file) == content


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=60)
    | st.text("a:[]{}&*!<>|-?,'\"\n 1.~", max_size=40).map(str.encode)
)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    with contextlib.suppress(UserError):
        assert all(isinstance(key, str) for key in read_yaml(file))
