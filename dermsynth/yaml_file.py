"""YAML and JSON mappings, read within limits: what a file can do at worst is be refused.

Only plain values are read: text, whole numbers, decimal numbers, true and false, null, lists, and
mappings whose keys are text. JSON is YAML, too.
"""

import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

import yaml

from dermsynth.errors import UserError

MOST_BYTES = 2**20
DEEPEST = 20  # lists and mappings in each other
LONGEST_NUMBER = 100  # characters
TAG = "tag:yaml.org,2002:"
NUMBERS = (f"{TAG}int", f"{TAG}float")
PLAIN = (*NUMBERS, f"{TAG}bool", f"{TAG}null")
TEXT = (f"{TAG}str", f"{TAG}timestamp")  # a date stays as it is written


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; that of an empty file is empty.

    Raises UserError naming the file, the line and how to mend it: for what is no regular file, more
    than MOST_BYTES, nested deeper than DEEPEST, or holds aliases, a key twice, keys that are no
    text, numbers that are not finite or too large, tags, and what is no mapping at all.
    """
    text = _read_text(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        content = None if node is None else _plain(loader, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        line = line if isinstance(error, _RefusedError) else f"not a YAML file: {line}"
        words = ": ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{path}: {line}{_one_line(words)}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not a YAML file: {_one_line(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected `option: value` lines, found {type(content).__name__}")
    return content


def _read_text(path: Path) -> str:
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{path}: not a regular file; give the path of a YAML file")
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a NUL in the path
        raise UserError(f"{str(path)!r}: cannot be read ({error})") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{path}: more than {MOST_BYTES // 2**20} MiB; expected a file of options")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a YAML file: {error}; save it as UTF-8") from None


def _at_once(path: str, flags: int) -> int:
    """Without waiting for somebody who writes into a named pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


class _RefusedError(yaml.MarkedYAMLError):
    """YAML, but not what is read here."""


class _Loader(yaml.SafeLoader):
    """Stops at what is nested too deep, and at aliases, before they can grow."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node, with all that is in it."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            _refuse(event, f"alias *{event.anchor}: write out what it stands for")
        self.depth += 1
        if self.depth > DEEPEST:
            _refuse(self.peek_event(), f"nested deeper than {DEEPEST}; expected options")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _plain(loader: _Loader, node: yaml.Node) -> Any:
    """The value that a node stands for. Raises _RefusedError with its place."""
    if isinstance(node, yaml.MappingNode) and node.tag == f"{TAG}map":
        return _mapping(loader, node)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{TAG}seq":
        return [_plain(loader, item) for item in node.value]
    if node.tag in TEXT and isinstance(node, yaml.ScalarNode):
        return node.value
    if node.tag not in PLAIN or not isinstance(node, yaml.ScalarNode):
        _refuse(node, f"not a YAML file of options: {node.tag.removeprefix(TAG)} is not read")
    if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
        _refuse(node, f"a number of {len(node.value):,} characters; expected one that is smaller")
    try:
        value = loader.construct_object(node)
    except (ValueError, LookupError, ArithmeticError):  # `!!int x`
        _refuse(node, f"{node.value}: not a value; put it in quotes where it is text")
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(node, f"{node.value}: expected a finite number")
    return value


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            _refuse(key, "expected a name before the colon, found a list or mapping")
        if key.tag != f"{TAG}str":
            _refuse(key, f"{key.value or 'null'}: not a name as it stands; quote it: '{key.value}'")
        if key.value in content:
            _refuse(key, f"{key.value}: given twice; keep one of them")
        content[key.value] = _plain(loader, value)
    return content


def _refuse(place: Any, words: str) -> NoReturn:
    raise _RefusedError(problem=words, problem_mark=place.start_mark)


def _one_line(words: Any) -> str:
    return " ".join(str(words).split())
