"""Bars that move on a terminal, and lines in a log."""

import io
import re
import time

import pytest

from dermsynth import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(progress, "raw_stderr", lambda: file)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)
    return file


def test_a_log_has_lines_and_no_control_characters(log):
    with progress.bar(40, "work", "img") as bar:
        for _ in range(4):
            bar.set_postfix_str("loss 0.5", refresh=False)
            bar.update(10)
    lines = log.getvalue().splitlines()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", log.getvalue())
    assert lines[0].startswith("work:   0%, 0 of 40 img")
    assert lines[-1].startswith("work: 100%, 40 of 40 img")
    assert lines[-1].endswith("loss 0.5")
    assert "" not in lines


def test_without_a_total(log):
    with progress.bar(None, "work", "img") as bar:
        bar.update(3)
    assert log.getvalue().splitlines()[-1].startswith("work: 3img")


def test_a_bar_that_is_off_says_nothing(log):
    with progress.bar(40, "work", "img", disable=True) as bar:
        bar.update(10)
    assert log.getvalue() == ""


def test_a_terminal_has_one_line_that_moves(monkeypatch):
    file = Terminal()
    monkeypatch.setattr(progress, "raw_stderr", lambda: file)
    with progress.bar(40, "work", "img") as bar:
        bar.update(40)
    assert "\r" in file.getvalue()
    assert file.getvalue().count("\n") == 1


@pytest.fixture
def terminal(monkeypatch):
    file = Terminal()
    monkeypatch.setattr(progress, "raw_stderr", lambda: file)
    monkeypatch.setattr(progress, "LATE", 0.2)
    return file


def until(there, seconds: float = 20.0) -> None:
    """Wait for a thread."""
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.01)
    assert there()


def test_quick_work_shows_nothing(terminal, monkeypatch):
    monkeypatch.setattr(progress, "LATE", 60)
    with progress.late(2, "drawing plots", "part") as bar, progress.waiting("starting"):
        bar.update(2)
    assert terminal.getvalue() == ""


def test_slow_work_shows_its_bar_even_where_nothing_moves(terminal):
    with progress.late(2, "drawing plots", "part") as bar:
        until(lambda: "drawing plots:   0%" in terminal.getvalue())
        bar.update(2)
    assert "2/2" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


def test_what_is_waited_for_is_said_once(terminal):
    with progress.waiting("starting"):
        until(lambda: terminal.getvalue() == "starting ...\n")
        time.sleep(0.3)
    assert terminal.getvalue() == "starting ...\n"


def test_neither_is_in_a_log(log, monkeypatch):
    monkeypatch.setattr(progress, "LATE", 0.0)
    with progress.late(2, "drawing plots", "part") as bar, progress.waiting("starting"):
        bar.update(2)
        time.sleep(0.1)
    assert log.getvalue() == ""
