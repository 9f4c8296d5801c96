"""Every number of every command has bounds in its type; words of any kind are refused in a line."""

import contextlib
import dataclasses
import io
import math
import runpy
import warnings
from dataclasses import dataclass
from typing import Annotated, Literal, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dermsynth import cli
from dermsynth.__main__ import COMMANDS, module_of
from dermsynth.errors import UserError
from dermsynth.options import Between, bounds, check_bounds, flag, flat, flat_hints, parts
from gan.networks import ARCHITECTURES

AWKWARD = ["", "nan", "inf", "-inf", "1e400", "-1", "9" * 100, "9" * 5000, "0x10", "True", "None"]
AWKWARD += ["~", "~nobody", "\x1b[2J", "\udcff", "\n", "--", "-", "--help=1", "é", "a=b", "1_0"]


def option_types() -> dict[str, type]:
    """The options of every command, as its module gives them to `cli.run`."""
    types, run = {}, cli.run
    cli.run = lambda options_type, main, module, *_, **__: types.update({module: options_type})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of modules that were imported before
            for name in COMMANDS:
                runpy.run_module(module_of(name), run_name="__main__")
    finally:
        cli.run = run
    return types


TYPES = option_types()
CONFIGS = {name: known.config for name, known in ARCHITECTURES.items()}


def test_every_command_is_looked_at():
    assert set(TYPES) == set(map(module_of, COMMANDS))


@pytest.mark.parametrize("kind", [*TYPES.values(), *CONFIGS.values()], ids=[*TYPES, *CONFIGS])
def test_every_number_has_bounds_that_hold_its_default(kind: type):
    for name, hint in flat_hints(kind).items():
        kinds = [part for part in parts(hint) if part in (int, float)]
        assert not kinds or bounds(hint), f"{name}: {hint} has no bounds"
    required = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory}
    check_bounds(kind(**dict.fromkeys(required)))


def values(hint: object) -> list[str]:
    """What belongs to a number's bounds, and what lies just outside."""
    between = bounds(hint)
    assert between is not None
    step = 1 if int in parts(hint) else 1e-6
    return [str(between.least - step), str(between.most + step), "nan"]


@pytest.mark.parametrize("module", TYPES)
def test_a_number_out_of_bounds_is_refused_in_one_line_by_name(module: str):
    kind = TYPES[module]
    needed = {"out": "x", "run": "r", "data": "d", "generator": "g"}
    given_words = [f"{flag(name)}={needed[name]}" for name in needed if _required(kind, name)]
    positional = [
        n for n, hint in flat_hints(kind).items() if "Positional" in map(str, parts(hint))
    ]
    words = [*given_words, *["ham10000" for _ in positional]]
    for name, hint in flat_hints(kind).items():
        if bounds(hint) is None:
            continue
        for value in values(hint):
            whole = float not in parts(hint) and value == "nan"
            with pytest.raises(SystemExit if whole else UserError) as refused, silence():
                cli.parse(kind, [*words, f"{flag(name)}={value}"], "", "")
            if not whole:
                assert str(refused.value).startswith(f"{flag(name)} ")
                assert "\n" not in str(refused.value)


def _required(kind: type, name: str) -> bool:
    field = {f.name: f for f in dataclasses.fields(kind)}.get(name)
    return field is not None and field.default is field.default_factory


def silence() -> contextlib.AbstractContextManager:
    return contextlib.redirect_stderr(io.StringIO())


@pytest.mark.parametrize("module", TYPES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_words_make_a_traceback(module: str, data: st.DataObject):
    kind = TYPES[module]
    name = data.draw(st.sampled_from([*flat_hints(kind), "config", "unknown"]))
    text = st.text(max_size=20) | st.sampled_from(AWKWARD)
    value = data.draw(text)
    words = [f"{flag(name)}={value}"] if data.draw(st.booleans()) else [flag(name), value]
    words += data.draw(st.lists(text, max_size=2))
    with contextlib.redirect_stdout(io.StringIO()), silence():
        code: object = 2
        try:
            check_bounds(cli.parse(kind, words, "", ""))
        except UserError:
            pass
        except SystemExit as stop:
            code = stop.code
    assert code == 2 or {"--help", "-h"} & set(words)


@pytest.mark.parametrize("module", TYPES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_mapping_makes_a_traceback(module: str, data: st.DataObject):
    kind = TYPES[module]
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    content = scalars | st.sampled_from(AWKWARD) | st.lists(scalars, max_size=3)
    content |= st.dictionaries(st.text(max_size=3), scalars, max_size=2)
    names = st.sampled_from(list(flat_hints(kind)))
    mapping = data.draw(st.dictionaries(names, content, min_size=1, max_size=3))
    with contextlib.suppress(UserError):
        check_bounds(cli.from_mapping(kind, mapping, "arm"))


@dataclass(frozen=True)
class Numbers:
    whole: Annotated[int, Between(0, 10)] | Literal["all"] = 0
    share: Annotated[float, Between(0, 1, below=True)] = 0.5
    rate: Annotated[float, Between(0, 1, above=True)] | None = None
    pair: tuple[Annotated[float, Between(0, 1)], Annotated[float, Between(0, 1)]] = (0.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"whole": 11}, "--whole 11: expected a whole number from 0 to 10, or all"),
        ({"whole": 1.5}, "--whole 1.5: expected a whole number from 0 to 10, or all"),
        ({"whole": 10**99}, "--whole of about 100 digits: expected"),
        ({"whole": 10**9999}, "--whole of about 10,000 digits: expected"),
        ({"share": 1.0}, "--share 1.0: expected a number 0 or more and below 1"),
        ({"share": math.nan}, "--share nan: expected"),
        ({"rate": 0.0}, "--rate 0.0: expected a number above 0 and at most 1"),
        ({"rate": math.inf}, "--rate inf: expected"),
        ({"pair": (0.5, 2.0)}, "--pair 2.0: expected a number from 0 to 1"),
    ],
)
def test_the_message_names_option_value_and_bounds(changes: dict, words: str):
    with pytest.raises(UserError) as error:
        check_bounds(dataclasses.replace(Numbers(), **changes))
    assert str(error.value).startswith(words)


def test_what_is_within_passes():
    check_bounds(Numbers("all", 0, 1, (0, 1)))
    assert flat(Numbers(10))["whole"] == 10
    assert get_origin(flat_hints(Numbers)["share"]) is Annotated
