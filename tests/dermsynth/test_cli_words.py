"""Words of a command line as people and sweep agents write them: booleans, `~`, what is empty."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from dermsynth.cli import from_mapping, parse
from dermsynth.errors import UserError
from dermsynth.options import HOLDS_PATH, Between


@dataclass(frozen=True)
class Group:
    """A group."""

    upsample: bool = False  # repeat
    lr_min: Annotated[float, Between(0, 10)] = 0.0  # rate


@dataclass(frozen=True)
class Options:
    out: Path | None = None  # a folder
    root: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()  # folders
    external: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, HOLDS_PATH] = ()  # NAME=FOLDER
    scores: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, HOLDS_PATH] = ()
    weights: Annotated[str, HOLDS_PATH] = "imagenet"  # or a file
    recipe: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()  # NAME=VALUE
    loss: Literal["focal", "ce"] = "ce"  # of training
    monitor: Literal["loss", "auc"] = "auc"  # what is watched
    tidy: bool = True  # clean up
    group: Group = field(default_factory=Group)


@dataclass(frozen=True)
class Card:
    dataset: tyro.conf.Positional[Path]  # a dataset
    seed: Annotated[int, Between(0, 9)] = 0  # of samples


def run(*argv: str) -> Options:
    return parse(Options, list(argv), "prog", "")


@pytest.mark.parametrize(
    ("words", "upsample"),
    [
        (["--upsample"], True),
        (["--upsample=True"], True),
        (["--upsample=true"], True),
        (["--upsample", "True"], True),
        (["--upsample", "false"], False),
        (["--upsample=1"], True),
        (["--upsample=yes"], True),
        (["--upsample=0"], False),
        (["--upsample=no"], False),
        (["--upsample=False"], False),
        (["--no-upsample=False"], True),
        (["--no_upsample"], False),
    ],
)
def test_booleans_as_a_sweep_agent_writes_them(words: list[str], upsample: bool):
    assert run(*words).group.upsample is upsample
    assert run("--tidy=False", *words).tidy is False


def test_a_boolean_that_is_neither_is_refused():
    with pytest.raises(UserError, match="--upsample=maybe: expected true or false"):
        run("--upsample=maybe")


def test_underscores_and_dashes():
    assert run("--lr_min=0.1") == run("--lr-min=0.1") == run("--lr-min", "0.1")


@pytest.mark.parametrize(
    ("text", "words", "name", "value"),
    [
        ("loss: focal", ["--monitor", "loss"], "loss", "focal"),
        ("loss: focal", ["--monitor=loss"], "loss", "focal"),
        ("loss: focal", ["--loss", "ce"], "loss", "ce"),
        ("weights: a.pth", ["--out", "weights"], "weights", "a.pth"),
        ("external: [a=x]", ["--out", "external"], "external", ("a=x",)),
        ("external: [a=x]", ["--external=b=y"], "external", ("b=y",)),
        ("tidy: false", ["--tidy=True"], "tidy", True),
        ("tidy: true", ["--no-tidy"], "tidy", False),
        ("tidy: 'False'", [], "tidy", False),
    ],
)
def test_a_value_that_is_spelled_like_an_option_leaves_the_file_alone(
    tmp_path: Path, text: str, words: list[str], name: str, value: object
):
    (tmp_path / "o.yaml").write_text(text)
    assert getattr(run("--config", str(tmp_path / "o.yaml"), *words), name) == value


def test_home_is_expanded_in_every_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", "/home/me")
    words = ["--root", "~", "--root", "b", "--external", "a=~/x", "--weights", "~/w.pth"]
    words += ["--scores", "a=~/r:0.5", "b=/r", "--recipe", "a=~/b", "--out=~/out"]
    options = run(*words)
    assert options.out == Path("/home/me/out")
    assert options.root == (Path("/home/me"), Path("b"))
    assert options.external == ("a=/home/me/x",)
    assert options.weights == "/home/me/w.pth"
    assert options.scores == (("a=/home/me/r:0.5", "b=/r"),)
    assert options.recipe == ("a=~/b",)  # no path
    assert from_mapping(Options, {"out": "~/y"}, "arm").out == Path("/home/me/y")
    assert parse(Card, ["~/d"], "prog", "").dataset == Path("/home/me/d")
    with pytest.raises(UserError, match="--out ~nobody-of-that-name/x: no such user's home"):
        run("--out", "~nobody-of-that-name/x")


@pytest.mark.parametrize("words", ["--out=", "--out= ", "--root=", "--root=a --root="])
def test_an_empty_path_is_refused_by_name(words: str):
    *before, last = words.split(" --")
    name, _, value = last.removeprefix("--").partition("=")
    for ending in ([f"--{name}={value}"], [f"--{name}", value]):
        with pytest.raises(UserError, match=f"^--{name} '{value}': expected a path"):
            run(*before, *ending)


def test_an_empty_path_is_refused_wherever_it_stands(tmp_path: Path):
    (tmp_path / "o.yaml").write_text("out: ''")
    with pytest.raises(UserError, match="--out '': expected a path"):
        run("--config", str(tmp_path / "o.yaml"))
    with pytest.raises(UserError, match="DATASET '': expected a path"):
        parse(Card, [""], "prog", "")
    with pytest.raises(UserError, match="arm: --out '': expected a path"):
        from_mapping(Options, {"out": ""}, "arm")


def test_stray_words_say_what_is_meant():
    with pytest.raises(
        UserError, match=r"^lr-min=0\.1: options begin with two dashes: --lr-min=0\.1"
    ):
        run("lr-min=0.1")
    with pytest.raises(UserError, match="-loss: options begin with two dashes: --loss"):
        run("-loss", "focal")
    assert run("--recipe", "loss=focal").recipe == ("loss=focal",)


def test_one_configuration_at_a_time(tmp_path: Path):
    (tmp_path / "o.yaml").touch()
    file = str(tmp_path / "o.yaml")
    with pytest.raises(UserError, match="--config: given twice"):
        run("--config", file, f"--config={file}")
    for words in (["--config"], ["--config="], ["--config", ""]):
        with pytest.raises(UserError, match="--config: expected a YAML file"):
            run(*words)


@pytest.mark.parametrize("digits", [100, 5000])
def test_numbers_of_many_digits(digits: int):
    for words in (["--seed", "9" * digits], [f"--seed={'9' * digits}"]):
        with pytest.raises(UserError, match="--seed") as error:
            parse(Card, ["d", *words], "prog", "")
        assert len(str(error.value)) < 100


def test_control_characters_reach_no_terminal(capsys: pytest.CaptureFixture):
    for word in ("\x1b[2J", "\udcff"):
        with pytest.raises(UserError) as error:
            run("--loss", word)
        assert "\x1b" not in str(error.value)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SystemExit):
        run("--help", "--loss", "\x1b")
    assert "--weights" in capsys.readouterr().out


def test_values_of_lists_and_open_values_in_a_mapping():
    assert from_mapping(Options, {"scores": [["a=1", "b=2"]]}, "x").scores == (("a=1",), ("b=2",))
    assert from_mapping(Options, {"out": None}, "x").out is None
    with pytest.raises(UserError, match="x: loss: no value"):
        from_mapping(Options, {"loss": None}, "x")
    with pytest.raises(UserError, match="x: root: expected one value, found a mapping"):
        from_mapping(Options, {"root": [{"a": 1}]}, "x")
    with pytest.raises(UserError, match="given with - and with _"):
        from_mapping(Options, {"lr-min": 1, "lr_min": 2}, "x")
    with pytest.raises(UserError, match=r"x: --lr-min 11\.0: expected a number from 0 to 10"):
        from_mapping(Options, {"lr_min": 11}, "x")
