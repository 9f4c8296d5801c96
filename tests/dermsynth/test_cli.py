"""Options from defaults, a YAML file and the command line, and the exit codes of a command."""

import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
import yaml

from dermsynth.cli import from_mapping, parse, save_options
from dermsynth.errors import UserError


@dataclass(frozen=True)
class Options:
    data: Path | None = None  # a prepared dataset
    frozen: int = 18  # blocks
    rate: float = 1e-3  # learning rate
    mode: Literal["adapt", "fixed"] = "fixed"  # batch norm
    overwrite: bool = False  # replace
    external: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()  # NAME=FOLDER


def run(*argv: str) -> Options:
    return parse(Options, list(argv), "prog", "What it does.")


def yaml_file(folder: Path, text: str) -> str:
    (folder / "o.yaml").write_text(textwrap.dedent(text))
    return str(folder / "o.yaml")


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path):
    file = yaml_file(tmp_path, "{frozen: 3, rate: 1e-2, overwrite: true, external: [a=b, c=d]}")
    assert run("--config", file, "--frozen", "5") == Options(
        frozen=5, rate=0.01, overwrite=True, external=("a=b", "c=d")
    )
    assert run(f"--config={file}", "--external", "x=y", "--no-overwrite") == Options(
        frozen=3, rate=0.01, external=("x=y",)
    )


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(Path("a b"), 0, 1e-9, "adapt", True, ("n=p q", "-x=y")),
        Options(frozen=-1),
    ],
)
def test_saved_options_read_back_equal(tmp_path: Path, options: Options):
    save_options(options, tmp_path)
    assert run("--config", str(tmp_path / "config.yaml")) == options


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frozzen: 3", "unknown key frozzen"),
        ("- 1", "expected `option: value`"),
        ("a: [", "not a YAML file"),
        ("!!python/object/apply:os.system ['true']", "not a YAML file"),
        ("frozen: {a: 1}", "found a mapping"),
    ],
)
def test_bad_files_name_the_file(tmp_path: Path, text: str, words: str):
    file = yaml_file(tmp_path, text)
    with pytest.raises(UserError, match=words) as error:
        run("--config", file)
    assert file in str(error.value)
    with pytest.raises(UserError, match=r"absent\.yaml"):
        run("--config", str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize(
    "argv", [["--frozzen", "3"], ["--frozen", "many"], ["--mode", "other"], ["stray"]]
)
def test_bad_words_exit_with_two(argv: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        run(*argv)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_from_mapping_names_its_source():
    assert from_mapping(Options, {"frozen": 2, "mode": "adapt"}, "arm real") == Options(
        frozen=2, mode="adapt"
    )
    with pytest.raises(UserError, match="arm real: unknown key sinthetic"):
        from_mapping(Options, {"sinthetic": 0.3}, "arm real")
    with pytest.raises(UserError, match="arm real"):
        from_mapping(Options, {"frozen": "many"}, "arm real")


@dataclass(frozen=True)
class Model:
    """What is trained."""

    backbone: str = "b3"  # its name
    dropout: float = 0.2  # before the last layer


@dataclass(frozen=True)
class Grouped:
    data: Path | None = None  # a prepared dataset
    model: Model = field(default_factory=Model)


def test_groups_have_flat_names_everywhere(tmp_path: Path):
    options = Grouped(Path("x"), Model(dropout=0.5))
    assert parse(Grouped, ["--data", "x", "--dropout", "0.5"], "prog", "") == options
    assert from_mapping(Grouped, {"data": "x", "dropout": 0.5}, "arm") == options
    save_options(options, tmp_path)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {
        **{"data": "x", "backbone": "b3", "dropout": 0.5}
    }
    assert parse(Grouped, ["--config", str(tmp_path / "config.yaml")], "prog", "") == options


def test_help_shows_the_first_options_in_groups_and_all_on_demand(capsys: pytest.CaptureFixture):
    def shown(*argv: str) -> str:
        with pytest.raises(SystemExit) as stop:
            parse(Grouped, list(argv), "prog", "What it does.", first=("data", "backbone"))
        assert stop.value.code == 0
        return capsys.readouterr().out

    short, whole = shown("--help"), shown("--help-all")
    assert "--backbone" in short
    assert "its name" in short
    assert "What is trained." in short
    assert "--dropout" not in short
    assert "--help-all shows all 3 options" in " ".join(short.split())
    assert "before the last layer" in whole
    assert parse(Grouped, ["--dropout", "0.1"], "prog", "", first=("data",)).model.dropout == 0.1


def test_configs_are_found_by_name(tmp_path: Path):
    (tmp_path / "default.yaml").write_text("frozen: 7")
    assert parse(Options, ["--config", "default"], "prog", "", configs=tmp_path).frozen == 7
    with pytest.raises(UserError, match="--config defualt: did you mean default"):
        parse(Options, ["--config", "defualt"], "prog", "", configs=tmp_path)


COMMAND = """
import errno, sys
from dataclasses import dataclass, field
from dermsynth.cli import run
from dermsynth.errors import UserError

@dataclass(frozen=True)
class Options:
    kind: str = "none"  # what goes wrong

def main(options):
    if options.kind == "user":
        raise UserError("row 3 of a.csv: expected an age in years")
    if options.kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "a.npy")
    if options.kind == "file":
        raise OSError(errno.ENOTDIR, "Not a directory", "a.npy/b")
    if options.kind == "stop":
        raise KeyboardInterrupt("resume with --resume")

run(Options, main, "a.b", "What it does.")
"""


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("none", 0, ""),
        ("user", 2, "error: row 3 of a.csv"),
        ("disk", 2, "disk full while writing a.npy"),
        ("file", 2, "a.npy/b: Not a directory; choose another --out"),
        ("stop", 130, "resume with --resume"),
    ],
)
def test_exit_codes(kind: str, code: int, words: str):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "--kind", kind], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_saved_options_are_plain_yaml(tmp_path: Path):
    save_options(Options(Path("x")), tmp_path)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["data"] == "x"
