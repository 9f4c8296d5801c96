"""Options as nested frozen dataclasses with flat names: those that commands share, and tools.

A command's options are a dataclass whose fields are options or groups of options (dataclasses
again). On the command line, in YAML files and in `config.yaml` the names are flat, so no two groups
have an option of the same name.
"""

import dataclasses
import math
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dermsynth.errors import UserError

DeviceName = Literal["auto", "cpu", "cuda", "xla", "tpu"]
PrecisionName = Literal["auto", "fp32", "bf16"]
TrackingMode = Literal["auto", "wandb", "offline", "tensorboard", "none"]
Options = TypeVar("Options")
HOLDS_PATH = "text that is a path or NAME=PATH"  # Annotated[str, HOLDS_PATH]: `~` is expanded in it
LONGEST = 30  # digits of a number that are shown


@dataclass(frozen=True, repr=False)
class Between:
    """Bounds of a number, in its type: `Annotated[float, Between(0, 1, below=True)]`, 0 <= x < 1.

    NaN and the infinities are out of all bounds.
    """

    least: float
    most: float
    above: bool = False  # `least` itself is out
    below: bool = False  # `most` itself is out

    def holds(self, value: Any) -> bool:
        """Whether a number is within."""
        if not (isinstance(value, numbers.Integral) or math.isfinite(value)):
            return False
        low = self.least < value if self.above else self.least <= value
        return low and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        if not (self.above or self.below):
            return f"from {self.least} to {self.most}"
        low = f"above {self.least}" if self.above else f"{self.least} or more"
        return f"{low} and {'below' if self.below else 'at most'} {self.most}"

    __repr__ = __str__  # the parser shows an option's type where no value of it can be made


SEEDS = Between(0, 2**63 - 1)
Seed = Annotated[int, SEEDS]
ZeroToOne = Annotated[float, Between(0, 1)]
ZeroToBelowOne = Annotated[float, Between(0, 1, below=True)]


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how it computes."""

    device: DeviceName = "auto"  # auto takes CUDA where there is one
    precision: PrecisionName = "auto"  # auto is the fastest that is exact enough there


@dataclass(frozen=True)
class OutputOptions:
    """Where it writes."""

    out: Path | None = None  # what to write; none: a free name, printed
    overwrite: bool = False  # replace what this command wrote at --out before


@dataclass(frozen=True)
class TrackedOptions(OutputOptions):
    """Where it writes, and where it is tracked."""

    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline


@dataclass(frozen=True)
class RunOptions(TrackedOptions):
    """Where it writes, and how it goes on."""

    resume: bool = False  # go on in --out from its last checkpoint


def flat(options: Any) -> dict[str, Any]:
    """Every option by its flat name, in the order of the command's help."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        new = flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
        if twice := values.keys() & new.keys():
            raise TypeError(f"{type(options).__name__}: two groups have an option {twice.pop()}")
        values |= new
    return values


def replace(options: Options, **values: Any) -> Options:
    """A copy with other values, by flat names: `replace(options, fold=1, out=path)`.

    Raises TypeError for a name that is no option of it.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        value = getattr(options, field.name)
        if field.name in values:
            changes[field.name] = values.pop(field.name)
        elif dataclasses.is_dataclass(value):
            own = {name: values.pop(name) for name in flat(value) if name in values}
            if own:
                changes[field.name] = replace(value, **own)
    if values:
        raise TypeError(f"{type(options).__name__} has no option {', '.join(values)}")
    return dataclasses.replace(options, **changes)  # type: ignore[type-var]


def as_plain(options: Any) -> dict[str, Any]:
    """Options by flat names as YAML values: paths become strings, tuples become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return value

    return {name: plain(value) for name, value in flat(options).items()}


def flag(name: str) -> str:
    """An option as it is written on the command line: `lr_min` is `--lr-min`."""
    return f"--{name.replace('_', '-')}"


def check_bounds(options: Any) -> None:
    """Raise UserError for the first number that is out of the bounds in its type (`Between`).

    And for `--tracking tensorboard` without its package.
    """
    values = flat(options)
    if values.get("tracking") == "tensorboard" and find_spec("tensorboard") is None:
        raise UserError(
            "--tracking tensorboard: needs the package tensorboard: pip install -c constraints.txt "
            "'.[tensorboard]' (or take --tracking offline)"
        )
    for name, hint in flat_hints(type(options)).items():
        value = values[name]
        for number in value if isinstance(value, tuple) else (value,):
            _check_number(name, number, hint)


def flat_hints(options_type: type) -> dict[str, Any]:
    """The types of all options by flat names, with what `Annotated` says of them."""
    hints = get_type_hints(options_type, include_extras=True)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(options_type):
        hint = hints[field.name]
        is_group = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        found |= flat_hints(hint) if is_group else {field.name: hint}
    return found


def parts(hint: Any) -> Iterator[Any]:
    """A type and all that it is made of: members of unions and tuples, what is `Annotated`."""
    yield hint
    for part in () if get_origin(hint) is Literal else get_args(hint):
        yield from parts(part)


def bounds(hint: Any) -> Between | None:
    """The bounds in an option's type; None where it has no numbers."""
    return next((part for part in parts(hint) if isinstance(part, Between)), None)


def refuse_idle(options: Any, needs: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse an option that was changed and does nothing beside the others given.

    `needs`: option -> whether it has an effect, and in words when it has: `(loss == "focal",
    "--loss focal")`. Raises UserError naming the option.
    """
    written = {name: f"{flag(name)} {value}" for name, value in changed(options).items()}
    refuse_without_effect(written, needs)


def refuse_without_effect(
    written: Mapping[str, str], needs: Mapping[str, tuple[bool, str]]
) -> None:
    """As `refuse_idle`, of what was `written`: name -> the words that the user gave."""
    for name, (has_effect, when) in needs.items():
        if name in written and not has_effect:
            raise UserError(f"{written[name]}: has an effect with {when} only; leave it out")


def changed(options: Any) -> dict[str, Any]:
    """The options that are not as by default, by flat names; never a required one."""
    default = flat(_defaults(options))
    return {name: value for name, value in flat(options).items() if value != default[name]}


def _check_number(name: str, value: Any, hint: Any) -> None:
    between = bounds(hint)
    if between is None or isinstance(value, bool) or not isinstance(value, numbers.Real):
        return
    kinds = list(parts(hint))
    if between.holds(value) and (float in kinds or isinstance(value, numbers.Integral)):
        return
    words = [f"expected a {'' if float in kinds else 'whole '}number {between}"]
    words += [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    raise UserError(f"{flag(name)} {_short(value)}: {', or '.join(words)}")


def _short(value: Any) -> str:
    """A number in words that fit on a line; `str` refuses one of more than 4,300 digits."""
    if isinstance(value, int) and abs(value) >= 10**LONGEST:
        return f"of about {math.ceil(abs(value).bit_length() * math.log10(2)):,} digits"
    return str(value)


def _defaults(options: Any) -> Any:
    """The options as they are by default; required ones as given."""
    required = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return type(options)(**required)
