"""The words of a command line, before and after the parser: booleans, `~`, what is empty or stray.

A W&B sweep agent writes `--upsample=True` and `--weight_decay=0.1`; the parser knows `--upsample`.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import tyro

from dermsynth.errors import UserError
from dermsynth.options import HOLDS_PATH, Between, flag, flat, flat_hints, parts, replace

Options = TypeVar("Options")
TRUTH = {**dict.fromkeys(("true", "1", "yes"), True), **dict.fromkeys(("false", "0", "no"), False)}
POSITIONAL = get_args(tyro.conf.Positional[str])[1]
NOT_UTF8 = re.compile(r"[\ud800-\udfff]")  # how Python holds such bytes
LONGEST_NUMBER = 400  # characters; more make an error message of many lines


def option_of(word: str) -> str:
    """The flat name in `--weight-decay=0.1`; empty for a word that names no option."""
    return word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else ""


def prepared(options_type: type, words: list[str]) -> list[str]:
    """The words as the parser takes them: `--upsample` for `--upsample=True`.

    Raises UserError for a boolean that is neither true nor false, an empty path, a number of many
    hundred digits, and for `lr=0.1` where `--lr=0.1` is meant.
    """
    hints = flat_hints(options_type)
    switches = {name for name, hint in hints.items() if _bare(hint) is bool}
    switches |= {f"no_{name}" for name in switches}
    ready: list[str] = []
    words = list(words)
    positional = next((name for name, hint in hints.items() if POSITIONAL in parts(hint)), None)
    while words:
        word = words.pop(0)
        name, (_, equals, value) = option_of(word), word.partition("=")
        if name in switches:
            if not equals and words and words[0].lower() in ("true", "false"):
                value, equals = words.pop(0), "="
            ready.append(_switch(word, name, value) if equals else word)
        elif name in hints and equals:
            _check_value(name, hints[name], value)
            ready.append(word)
        elif name in hints:
            taken = list(_values(hints[name], words))
            for value in taken:
                _check_value(name, hints[name], value)
            ready += [word, *taken]
            del words[: len(taken)]
        else:
            _check_stray(word, hints, positional)
            ready.append(word)
    return ready


def with_home(options: Options) -> Options:
    """The options with `~` expanded in their paths. Raises UserError for an unknown user's."""
    hints, values = flat_hints(type(options)), flat(options)
    changes = {name: _expanded(name, values[name], hints[name]) for name in hints}
    changes = {name: value for name, value in changes.items() if value != values[name]}
    return replace(options, **changes) if changes else options


def takes_none(hint: Any) -> bool:
    """Whether an option may be left open, as by `null` in YAML."""
    return type(None) in parts(hint)


def _switch(word: str, name: str, value: str) -> str:
    if value.lower() not in TRUTH:
        raise UserError(f"{word}: expected true or false, or {word.partition('=')[0]} alone")
    on = TRUTH[value.lower()] != name.startswith("no_")
    name = name.removeprefix("no_")
    return flag(name) if on else flag(f"no_{name}")


def _values(hint: Any, words: list[str]) -> Iterator[str]:
    """The words that follow an option and belong to it."""
    for at, word in enumerate(words):
        if word.startswith("--") or (at and get_origin(_bare(hint)) is not tuple):
            return
        yield word


def _check_value(name: str, hint: Any, value: str) -> None:
    kinds = list(parts(hint))
    if Path in kinds and (not value.strip() or "\0" in value):
        raise UserError(f"{flag(name)} {value!r}: expected a path, found none")
    if Path in kinds and NOT_UTF8.search(value):  # it could not be written into any record
        raise UserError(f"{flag(name)} {value!r}: a name that is not UTF-8; rename it")
    if any(isinstance(kind, Between) for kind in kinds) and len(value) > LONGEST_NUMBER:
        shown = f"{value[:20]}... ({len(value):,} characters)"
        raise UserError(f"{flag(name)} {shown}: too long for a number")


def _check_stray(word: str, hints: dict[str, Any], positional: str | None) -> None:
    name, equals, value = word.partition("=")
    name = name.lstrip("-").replace("-", "_")
    if name in hints and (equals or word.startswith("-")):
        meant = f"{flag(name)}{equals}{value}"
        raise UserError(f"{word}: options begin with two dashes: {meant}")
    if not word.strip() and positional is not None:
        raise UserError(f"{positional.upper()} {word!r}: expected a path, found none")


def _expanded(name: str, value: Any, hint: Any) -> Any:
    """A path, or texts with paths in them, with `~` expanded."""
    if isinstance(value, tuple):
        return tuple(_expanded(name, item, hint) for item in value)
    if isinstance(value, Path):
        return Path(_with_home(name, str(value)))
    if isinstance(value, str) and HOLDS_PATH in parts(hint):
        before, equals, path = value.partition("=")
        return before + equals + _with_home(name, path) if equals else _with_home(name, value)
    return value


def _with_home(name: str, path: str) -> str:
    if not path.startswith("~"):
        return path
    if (expanded := os.path.expanduser(path)) == path:  # noqa: PTH111 - a Path drops a last slash
        raise UserError(f"{flag(name)} {path}: no such user's home is known; ./{path} is a file")
    return expanded


def _bare(hint: Any) -> Any:
    """A type without what `Annotated` says of it."""
    while hasattr(hint, "__metadata__"):
        hint = get_args(hint)[0]
    return hint
