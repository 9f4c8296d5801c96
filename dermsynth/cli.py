"""Commands: a frozen dataclass of options + `--config FILE.yaml` + the command line on top.

tyro does the parsing and turns the comment behind each field into its help. A YAML file is
translated to command-line words and put in front, so one parser checks both.
"""

import contextlib
import dataclasses
import difflib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
import yaml

from dermsynth import finished
from dermsynth.errors import UserError, some
from dermsynth.files import write_text
from dermsynth.interrupts import terminate_as_interrupt
from dermsynth.leaving import leave, leave_quietly
from dermsynth.options import as_plain, check_bounds, flag, flat_hints
from dermsynth.ranks import ranks
from dermsynth.screen import loading, screens, visible
from dermsynth.words import option_of, prepared, takes_none, with_home
from dermsynth.yaml_file import read_yaml as read_yaml

Options = TypeVar("Options")
Repeatable = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
ALL = "--help-all"
FLAT = (tyro.conf.OmitArgPrefixes,)
SHARED = ("gan.train", "classifier.train")  # by the processes that torchrun starts


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

    Raises UserError for a bad YAML file, a number out of its bounds (`Between`) and an empty path;
    SystemExit(2) for other bad command lines.
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
        description += f" {ALL} shows all {len(flat_hints(options_type))} options."
    words = prepared(options_type, [*words, *argv])
    words = ["--help" if word == ALL else word for word in words]
    if all(word.isprintable() for word in words):
        options = tyro.cli(shown, args=words, prog=prog, description=description, config=FLAT)
    else:  # which the parser would print as it is
        options = _parse_silently(options_type, words)
    return _checked(options)


def from_mapping(options_type: type[Options], values: dict[str, Any], source: str) -> Options:
    """Options from a mapping of flat names, checked as the command line is.

    Raises UserError that begins with `source`, the place where the mapping was read.
    """
    try:
        words = prepared(options_type, _words(options_type, values, "", []))
        return _checked(_parse_silently(options_type, words))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def run(
    options_type: type[Options],
    main: Callable[[Options], Any],
    module: str,
    doc: str | None,
    first: tuple[str, ...] = (),
    configs: Path | None = None,
) -> None:
    """Parse the command line, call `main`, and end the process unless all went well.

    Exit codes: 2 bad input, 130 Ctrl-C, 1 for what was not foreseen, of which a report is written;
    one line on stderr says what happened. What `main` prints is shown, never obeyed (`Screen`).

    Parameters
    ----------
    options_type, first, configs : as of `parse`
    main : called with the options; what it returns is not looked at
    module : the command's module, such as `gan.train`
    doc : its docstring, for `--help`
    """
    prog, description = f"python -m {module}", (doc or "").strip()
    terminate_as_interrupt()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = _parse_for_screen(options_type, prog, description, first, configs)
        if ranks()[1] > 1 and module not in SHARED:
            raise UserError(f"{module}: computes in one process; start it with python")
        with screens(), finished.command(), loading():
            main(options)
            finished.tell()
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        leave(error, options_type)


def say_next(command: str) -> None:
    """The last line of a command: what usually comes after it."""
    finished.tell()  # what that says stands above
    print(f"next: {command}")


def save_options(options: Any, folder: Path) -> None:
    """Write every resolved option to `folder/config.yaml`, in a form that `--config` reads."""
    write_text(folder / "config.yaml", yaml.safe_dump(as_plain(options), sort_keys=False))


def find_config(name: str, configs: Path | None, option: str) -> Path:
    """The YAML file of that path, or of that name among ours in the folder `configs`.

    Raises UserError, with what is nearest, for a bare name that is neither.
    """
    path = Path(name)
    try:
        if path.exists() or path.suffix or len(path.parts) > 1 or configs is None:
            return path
    except OSError as error:
        raise UserError(f"{option} {name}: cannot be read ({error.strerror})") from None
    if (ours := configs / f"{name}.yaml").exists():
        return ours
    known = sorted(path.stem for path in configs.glob("*.yaml"))
    raise UserError(f"{option} {name}: {nearest(name, known)} (or give the path of a YAML file)")


def nearest(word: str, known: list[str]) -> str:
    """What to say of a word that is not known: what is like it, or all that is known."""
    near = difflib.get_close_matches(word, known, 3, 0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(known)}"


def _parse_for_screen(
    options_type: type[Options],
    prog: str,
    description: str,
    first: tuple[str, ...],
    configs: Path | None,
) -> Options:
    """As `parse`; ends quietly where nobody reads the help."""
    try:
        try:
            return parse(options_type, sys.argv[1:], prog, description, first, configs)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        leave_quietly()


def _parse_silently(options_type: type[Options], words: list[str]) -> Options:
    """Options from words. Raises UserError with what the parser says of them."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            return tyro.cli(options_type, args=words, prog="", config=FLAT)
    except SystemExit as stop:
        if not stop.code:  # help, beside words that no terminal is to see
            print(output.getvalue())
            raise
        lines = [line.strip("│╭╰─╮╯- ") for line in output.getvalue().splitlines()]
        reason = " ".join(line for line in lines if line and "--help" not in line)
        raise UserError(visible(reason)) from None


def _checked(options: Options) -> Options:
    options = with_home(options)
    check_bounds(options)
    return options


def _take_config(argv: list[str]) -> tuple[list[str], str | None]:
    """The words without `--config FILE`, and FILE. Raises UserError unless it is given once."""
    rest, files = [], []
    words = iter(argv)
    for word in words:
        if word == "--config":
            files.append(next(words, ""))
        elif word.startswith("--config="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    if len(files) > 1:
        raise UserError("--config: given twice; put both files' options into one")
    if files and not files[0].strip():
        raise UserError("--config: expected a YAML file after it")
    return rest, files[0] if files else None


def _words(options_type: type, values: dict[str, Any], source: str, argv: list[str]) -> list[str]:
    """A mapping as command-line words, without the options that `argv` gives itself."""
    hints, place = flat_hints(options_type), f"{source}: " if source else ""
    spelled = values
    values = {key.replace("-", "_"): value for key, value in spelled.items()}
    if len(values) < len(spelled):
        raise UserError(f"{place}an option is given with - and with _; keep one of them")
    if unknown := sorted(set(values) - set(hints)):
        raise UserError(f"{place}unknown key {some(unknown)}; known: {', '.join(sorted(hints))}")
    given = {option_of(word) for word in argv}
    words: list[str] = []
    for key, value in values.items():
        if key in given or f"no_{key}" in given:
            continue  # the command line replaces the value, also of a repeatable option
        if isinstance(value, bool):
            words.append(flag(key if value else f"no_{key}"))
        elif value is None and not takes_none(hints[key]):
            raise UserError(f"{place}{key}: no value; give one or leave the line out")
        else:
            words += [f"{flag(key)}={item}" for item in _items(value, f"{place}{key}")]
    return words


def _items(value: Any, place: str) -> list[Any]:
    """A value, or those of a list and the lists in it. Raises UserError for a mapping."""
    if isinstance(value, dict):
        raise UserError(f"{place}: expected one value, found a mapping")
    if isinstance(value, list | tuple):
        return [item for part in value for item in _items(part, place)]
    return [value]


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
