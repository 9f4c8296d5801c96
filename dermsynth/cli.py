"""Commands: a frozen dataclass of options + `--config FILE.yaml` + the command line on top.

tyro does the parsing and turns the comment behind each field into its help. A YAML file is
translated to command-line words and put in front, so one parser checks both.
"""

import contextlib
import dataclasses
import errno
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from dermsynth.errors import UserError, some
from dermsynth.files import write_text

Options = TypeVar("Options")
BAD_INPUT, INTERRUPTED = 2, 130
CANNOT_BE_MADE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EEXIST),  # a file where a folder is to be
)


def parse(options_type: type[Options], argv: list[str], prog: str, description: str) -> Options:
    """Options from `argv`, over those of `--config FILE.yaml`, over the dataclass's defaults.

    Raises UserError for a bad YAML file and SystemExit(2) for a bad command line.
    """
    argv, file = _take_config(argv)
    words = _words(options_type, read_yaml(file), str(file), argv) if file else []
    return tyro.cli(
        options_type,
        args=[*words, *argv],
        prog=prog,
        description=f"{description}\n\n--config FILE.yaml reads options from a file first.",
        config=(tyro.conf.OmitArgPrefixes,),
    )


def from_mapping(options_type: type[Options], values: dict[str, Any], source: str) -> Options:
    """Options from a mapping, checked as the command line is.

    Raises UserError that begins with `source`, the place where the mapping was read.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return tyro.cli(options_type, args=_words(options_type, values, source, []), prog="")
    except SystemExit:
        lines = [line.strip("│╭╰─╮╯ ") for line in said.getvalue().splitlines()]
        reason = " ".join(line for line in lines if line and "--help" not in line)
        raise UserError(f"{source}: {reason}") from None


def run(options_type: type[Options], main: Callable[[Options], Any], module: str, doc: str) -> None:
    """Parse the command line, call `main`, and leave with 0, 2 (bad input) or 130 (Ctrl-C)."""
    try:
        main(parse(options_type, sys.argv[1:], f"python -m {module}", doc.strip()))
    except UserError as error:
        sys.exit(_say(f"error: {error}", BAD_INPUT))
    except KeyboardInterrupt as stop:
        sys.exit(_say(f"interrupted{': ' + str(stop) if str(stop) else ''}", INTERRUPTED))
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space or choose another --out; what was there before is untouched"
            sys.exit(_say(f"error: disk full while writing{where}: {hint}", BAD_INPUT))
        if error.errno in CANNOT_BE_MADE:
            hint = "choose another --out, or change what this user may do there"
            sys.exit(_say(f"error:{where}: {error.strerror}; {hint}", BAD_INPUT))
        raise


def save_options(options: Any, folder: Path) -> None:
    """Write every resolved option to `folder/config.yaml`, in a form that `--config` reads."""
    write_text(folder / "config.yaml", yaml.safe_dump(as_plain(options), sort_keys=False))


def as_plain(options: Any) -> dict[str, Any]:
    """A dataclass as a dict of YAML values: paths become strings, tuples become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return value

    return {key: plain(value) for key, value in dataclasses.asdict(options).items()}


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping. Raises UserError naming the file (and line) where it is not one."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected `option: value` lines, found {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _take_config(argv: list[str]) -> tuple[list[str], Path | None]:
    for at, word in enumerate(argv):
        if word == "--config":
            if at + 1 == len(argv):
                raise UserError("--config: expected a YAML file after it")
            return argv[:at] + argv[at + 2 :], Path(argv[at + 1])
        if word.startswith("--config="):
            return argv[:at] + argv[at + 1 :], Path(word.partition("=")[2])
    return argv, None


def _words(options_type: type, values: dict[str, Any], source: str, argv: list[str]) -> list[str]:
    """A mapping as command-line words, without the options that `argv` gives itself."""
    known = {field.name for field in dataclasses.fields(options_type)}
    values = {key.replace("-", "_"): value for key, value in values.items()}
    if unknown := sorted(set(values) - known):
        raise UserError(f"{source}: unknown key {some(unknown)}; known: {', '.join(sorted(known))}")
    given = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in argv}
    words: list[str] = []
    for key, value in values.items():
        flag = key.replace("_", "-")
        if key in given or f"no_{key}" in given:
            continue  # the command line replaces the value, also of a repeatable option
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            words += [f"--{flag}={item}" for item in value]
        elif isinstance(value, dict):
            raise UserError(f"{source}: {key}: expected one value, found a mapping")
        else:
            words.append(f"--{flag}={value}")
    return words
