"""How commands end, and that what they print is shown and never obeyed."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermsynth import progress
from dermsynth.leaving import verdict
from dermsynth.screen import Screen, screens, visible

COMMAND = """
import errno, os, sys
from dataclasses import dataclass, field
from typing import Annotated
from dermsynth.cli import run
from dermsynth.errors import UserError
from dermsynth.options import Between

@dataclass(frozen=True)
class Options:
    kind: str = "none"  # what goes wrong
    batch: Annotated[int, Between(1, 9)] = 1  # images a step
    size: Annotated[int, Between(1, 9)] = 1  # px

class SafetensorError(Exception): pass

def main(options):
    if options.kind == "bug":
        {}["a\\nb"]
    if options.kind == "space":
        raise SafetensorError("Error while serializing: I/O error: No space left on device (28)")
    if options.kind == "memory":
        raise MemoryError("Unable to allocate 9 TiB")
    if options.kind == "user":
        raise UserError("a\\x1b[2Jb: \\udcff")
    if options.kind == "escapes":
        print("a\\x1b[2J\\x9b\\r\\x07 \\udcff \\u2192\\tb")
        print("e\\x1b", file=sys.stderr)
    if options.kind == "much":
        for number in range(100_000):
            print(number)
    if options.kind == "bar":
        from dermsynth import progress
        with progress.bar(3, "x", "img") as bar:
            bar.update(3)

run(Options, main, "a.b", "What it does \\u2192.")
"""


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        capture_output=True,
        check=False,
        env=os.environ | environment,
    )


def test_what_was_not_foreseen_is_one_line_and_a_report(tmp_path: Path):
    done = command("--kind", "bug", TMPDIR=str(tmp_path), SECRET_KEY="hidden-value")
    assert done.returncode == 1
    line = done.stderr.decode()
    assert re.fullmatch(r"error: unexpected: KeyError: 'a\\nb'; a report is in \S+\n", line)
    (report,) = tmp_path.iterdir()
    assert str(report) in line
    text = report.read_text()
    assert "Traceback" in text
    assert "--kind bug" in text
    assert "dermsynth 0." in text
    assert "torch 2." in text
    assert "hidden-value" not in text


def test_without_a_place_for_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    line, code = verdict(ValueError("x"), object)
    assert (line, code) == (
        "error: unexpected: ValueError: x; no report could be written (No such file or directory)",
        1,
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("space", "error: disk full while writing: free some space"),
        ("memory", "error: out of memory: Unable to allocate 9 TiB; lower --batch, --size\n"),
        ("user", "error: a\\x1b[2Jb: \\udcff\n"),
    ],
)
def test_what_was_foreseen(kind: str, words: str):
    done = command("--kind", kind)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(words)
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("encoding", "arrow"), [("utf-8", "→"), ("ascii", "\\u2192"), ("latin-1", "\\u2192")]
)
def test_control_characters_are_shown(encoding: str, arrow: str):
    done = command("--kind", "escapes", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode(encoding)
    assert shown == f"a\\x1b[2J\\x9b\\x0d\\x07 \\udcff {arrow}\tb\n"
    assert done.stderr == b"e\\x1b\n"
    assert command("--help", PYTHONIOENCODING=encoding).returncode == 0


@pytest.mark.parametrize("words", ["--kind much", "--help"])
def test_a_reader_that_has_ended_is_no_error(words: str):
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate()
    assert said == b""
    assert process.returncode == 141


def test_a_progress_bar_still_moves():
    said = command("--kind", "bar").stderr
    assert b"3 of 3" in said
    assert b"\\x0d" not in said


def test_only_within_the_block(capsys: pytest.CaptureFixture):
    before = sys.stdout, sys.stderr
    with screens():
        print("\x1b")
        with progress.bar(1, "x", "img") as bar:
            bar.update(1)
    assert (sys.stdout, sys.stderr) == before
    print("\x1b")
    assert capsys.readouterr().out == "\\x1b\n\x1b\n"


@given(text=st.text(), encoding=st.sampled_from(["utf-8", "ascii", "latin-1", "utf-16"]))
def test_any_text_can_be_printed(text: str, encoding: str):
    raw = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    screen = Screen(raw)
    assert screen.write(text) == len(text)
    screen.flush()
    shown = raw.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert not set(shown) & {chr(n) for n in (*range(9), *range(11, 32), *range(127, 160))}
    assert visible(shown) == shown
