"""Options as nested frozen dataclasses with flat names: those that commands share, and tools.

A command's options are a dataclass whose fields are options or groups of options (dataclasses
again). On the command line, in YAML files and in `config.yaml` the names are flat, so no two groups
have an option of the same name.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from dermsynth.errors import UserError

DeviceName = Literal["auto", "cpu", "cuda", "xla", "tpu"]
PrecisionName = Literal["auto", "fp32", "bf16"]
TrackingMode = Literal["auto", "wandb", "offline", "none"]
Options = TypeVar("Options")


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
class RunOptions(OutputOptions):
    """Where it writes, and how it goes on."""

    resume: bool = False  # go on in --out from its last checkpoint
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline


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


def _defaults(options: Any) -> Any:
    """The options as they are by default; required ones as given."""
    required = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return type(options)(**required)
