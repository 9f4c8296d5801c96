"""Commands: a frozen dataclass of options + `--config FILE.yaml` + the command line on top.

tyro does the parsing and turns the comment behind each field into its help. A YAML file is
translated to command-line words and put in front, so one parser checks both.
"""

import contextlib
import dataclasses
import difflib
import errno
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
import yaml

from dermsynth.errors import UserError, some
from dermsynth.files import write_text
from dermsynth.options import as_plain, flag

Options = TypeVar("Options")
Repeatable = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
BAD_INPUT, INTERRUPTED = 2, 130
CANNOT_BE_MADE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EEXIST),  # a file where a folder is to be
)
ALL = "--help-all"


def parse(
    options_type: type[Options],
    argv: list[str],
    prog: str,
    description: str,
    first: tuple[str, ...] = (),
    configs: Path | None = None,
) -> Options:
    """Options from `argv`, over those of `--config`, over the dataclass's defaults.

    Parameters
    ----------
    options_type : a frozen dataclass of options or of groups of them (dermsynth.options)
    argv : the words behind the command
    prog, description : for `--help`
    first : the options that `--help` shows; none: all. `--help-all` shows all
    configs : folder of YAML files that `--config NAME` finds from anywhere

    Raises UserError for a bad YAML file and SystemExit(2) for a bad command line.
    """
    argv, name = _take_config(argv)
    words: list[str] = []
    if name is not None:
        file = find_config(name, configs, "--config")
        words = _words(options_type, read_yaml(file), str(file), argv)
    named = ", or the NAME of one of ours," if configs else ""
    description += f"\n\n--config FILE.yaml{named} reads options from a file first."
    shown: type[Options] = options_type
    if first and ALL not in argv and {"-h", "--help"} & set(argv):
        shown = _shortened(options_type, first)
        description += f" {ALL} shows all {len(_names(options_type))} options."
    return tyro.cli(
        shown,
        args=[*words, *("--help" if word == ALL else word for word in argv)],
        prog=prog,
        description=description,
        config=(tyro.conf.OmitArgPrefixes,),
    )


def from_mapping(options_type: type[Options], values: dict[str, Any], source: str) -> Options:
    """Options from a mapping of flat names, checked as the command line is.

    Raises UserError that begins with `source`, the place where the mapping was read.
    """
    output = io.StringIO()
    words = _words(options_type, values, source, [])
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            return tyro.cli(options_type, args=words, prog="", config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit:
        lines = [line.strip("│╭╰─╮╯ ") for line in output.getvalue().splitlines()]
        reason = " ".join(line for line in lines if line and "--help" not in line)
        raise UserError(f"{source}: {reason}") from None


def run(
    options_type: type[Options],
    main: Callable[[Options], Any],
    module: str,
    doc: str | None,
    first: tuple[str, ...] = (),
    configs: Path | None = None,
) -> None:
    """Parse the command line, call `main`, and leave with 0, 2 (bad input) or 130 (Ctrl-C).

    Parameters
    ----------
    options_type, first, configs : as of `parse`
    main : called with the options; what it returns is not looked at
    module : the command's module, such as `gan.train`
    doc : its docstring, for `--help`
    """
    prog, description = f"python -m {module}", (doc or "").strip()
    try:
        main(parse(options_type, sys.argv[1:], prog, description, first, configs))
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


def say_next(command: str) -> None:
    """The last line of a command: what usually comes after it."""
    print(f"next: {command}")


def save_options(options: Any, folder: Path) -> None:
    """Write every resolved option to `folder/config.yaml`, in a form that `--config` reads."""
    write_text(folder / "config.yaml", yaml.safe_dump(as_plain(options), sort_keys=False))


def find_config(name: str, configs: Path | None, option: str) -> Path:
    """The YAML file of that path, or of that name among ours in the folder `configs`.

    Raises UserError, with what is nearest, for a bare name that is neither.
    """
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) > 1 or configs is None:
        return path
    if (ours := configs / f"{name}.yaml").exists():
        return ours
    known = sorted(path.stem for path in configs.glob("*.yaml"))
    raise UserError(f"{option} {name}: {nearest(name, known)} (or give the path of a YAML file)")


def nearest(word: str, known: list[str]) -> str:
    """What to say of a word that is not known: what is like it, or all that is known."""
    near = difflib.get_close_matches(word, known, 3, 0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(known)}"


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


def _take_config(argv: list[str]) -> tuple[list[str], str | None]:
    for at, word in enumerate(argv):
        if word == "--config":
            if at + 1 == len(argv):
                raise UserError("--config: expected a YAML file after it")
            return argv[:at] + argv[at + 2 :], argv[at + 1]
        if word.startswith("--config="):
            return argv[:at] + argv[at + 1 :], word.partition("=")[2]
    return argv, None


def _names(options_type: type) -> list[str]:
    """Flat names of all options."""
    hints = get_type_hints(options_type)
    names: list[str] = []
    for field in dataclasses.fields(options_type):
        group = dataclasses.is_dataclass(hints[field.name])
        names += _names(hints[field.name]) if group else [field.name]
    return names


def _words(options_type: type, values: dict[str, Any], source: str, argv: list[str]) -> list[str]:
    """A mapping as command-line words, without the options that `argv` gives itself."""
    known = _names(options_type)
    values = {key.replace("-", "_"): value for key, value in values.items()}
    if unknown := sorted(set(values) - set(known)):
        raise UserError(f"{source}: unknown key {some(unknown)}; known: {', '.join(sorted(known))}")
    given = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in argv}
    words: list[str] = []
    for key, value in values.items():
        if key in given or f"no_{key}" in given:
            continue  # the command line replaces the value, also of a repeatable option
        if isinstance(value, bool):
            words.append(flag(key) if value else f"--no-{key.replace('_', '-')}")
        elif isinstance(value, list):
            words += [f"{flag(key)}={item}" for item in value]
        elif isinstance(value, dict):
            raise UserError(f"{source}: {key}: expected one value, found a mapping")
        else:
            words.append(f"{flag(key)}={value}")
    return words


def _shortened(options_type: type[Options], first: tuple[str, ...]) -> type[Options]:
    """The same options, all but `first` left out of the help text.

    A subclass under the same name, because tyro reads help from the comments in the class's source.
    """
    hints = get_type_hints(options_type, include_extras=True)
    content: dict[str, Any] = {"__annotations__": {}}
    for name in ("__module__", "__qualname__", "__doc__", "__firstlineno__"):
        if hasattr(options_type, name):  # from Python 3.13 on the line says where the source is
            content[name] = getattr(options_type, name)
    for field in dataclasses.fields(options_type):  # type: ignore[arg-type]
        hint, default, factory = hints[field.name], field.default, field.default_factory
        if dataclasses.is_dataclass(hint):
            hint = factory = _shortened(hint, first)  # type: ignore[arg-type,assignment]
            default = dataclasses.MISSING
        elif field.name not in first:
            hint = Annotated[hint, tyro.conf.Suppress]
        content["__annotations__"][field.name] = hint
        if factory is not dataclasses.MISSING:
            content[field.name] = dataclasses.field(default_factory=factory)
        elif default is not dataclasses.MISSING:
            content[field.name] = default
    made = type(options_type.__name__, (options_type,), content)
    return dataclasses.dataclass(frozen=True)(made)
