"""What a terminal shows of a command: lines in their colours, and none where that is asked."""

import contextlib
import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from dermsynth.screen import VERDICTS, Screen
from experiments.records import ComparisonRecord

SCRIPT = """
from dataclasses import dataclass
from dermsynth import cli
from dermsynth.errors import UserError
@dataclass(frozen=True)
class Options:
    fails: bool = False  # end badly
def main(options):
    print("plain")
    print("warning:", "of two", "pieces")
    print("plain, warning: in the middle\\nHelps: these lesions helped\\nplain")
    print("note: a name \\x1b[31m of control characters")
    cli.say_next("rest")
    if options.fails:
        raise UserError("no")
cli.run(Options, main, "thing", "A thing.")
"""


def on_a_terminal(*words: str, script: str = SCRIPT, **env: str) -> str:
    """What a terminal gets, stdout and stderr together."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    kept |= {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"} | env
    child = subprocess.Popen(
        [sys.executable, "-c", script, *words], stdout=theirs, stderr=theirs, env=kept
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # of a terminal whose other side has ended
        while chunk := os.read(ours, 4096):
            said += chunk
    assert child.wait(60) == (2 if "--fails" in words else 0)
    os.close(ours)
    return said.decode().replace("\r\n", "\n")


def test_lines_have_their_colours_on_a_terminal():
    said = on_a_terminal("--fails")
    assert said.splitlines() == [
        "plain",
        "\x1b[33mwarning:\x1b[0m\x1b[33m \x1b[0m\x1b[33mof two\x1b[0m\x1b[33m \x1b[0m"
        "\x1b[33mpieces\x1b[0m",
        "plain, warning: in the middle",
        "\x1b[1;32mHelps: these lesions helped\x1b[0m",
        "plain",
        "\x1b[2mnote: a name \\x1b[31m of control characters\x1b[0m",
        "\x1b[36mnext: rest\x1b[0m",
        "\x1b[1;31merror: no\x1b[0m",
    ]


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_none_where_that_is_asked(env: dict[str, str]):
    said = on_a_terminal(**env)
    assert "\x1b" not in said
    assert "warning: of two pieces\n" in said


def test_a_terminal_is_told_what_a_silent_start_is_about():
    slow = SCRIPT.replace('    print("plain")\n', "    import time; time.sleep(1)\n", 1)
    quick = "from dermsynth import screen; screen.QUIET = 0.1\n"
    assert on_a_terminal(script=quick + slow).startswith("loading ...\n\x1b[33mwarning:")
    assert "loading" not in on_a_terminal(script="from dermsynth import screen\n" + SCRIPT)


def test_none_in_a_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    Screen(file).write("error: of all\n")
    assert file.getvalue() == "error: of all\n"


def test_every_verdict_has_a_colour():
    words = get_args(ComparisonRecord.model_fields["verdict"].annotation)
    assert words
    assert {f"{word.capitalize()}:" for word in words} <= set(VERDICTS)
