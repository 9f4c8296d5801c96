"""metrics.jsonl through damage and resumption; which of option and environment W&B obeys."""

import json
import threading
from pathlib import Path

import pytest

from dermsynth import wandb_modes, weights_and_biases
from dermsynth.rows import read_rows
from dermsynth.tracked import About
from dermsynth.tracking import Tracker
from dermsynth.wandb_modes import choose_mode, within

KEY = "a" * 40
ABOUT = About("gan", {}, "gan")


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No variable of W&B's, no key."""
    for name in ("API_KEY", "MODE", "BASE_URL", "PROJECT", "NAME", "DIR", "ENTITY", "RUN_GROUP"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    return monkeypatch


def test_metrics_file_of_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, capsys):
    with Tracker(tmp_path, "none", ABOUT) as tracker:
        for step in range(5):
            tracker.log(step, loss=step / 2)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    with Tracker(tmp_path, "none", ABOUT, resume_step=2) as tracker:
        tracker.log(3, loss=9.0)
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        (0, 0.0),
        (1, 0.5),
        (2, 1.0),
        (3, 9.0),
    ]
    assert "1 damaged line(s) dropped" in capsys.readouterr().out


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xfe\x00junk",
        b"\x00\x00\x00",
        b"[1, 2]",
        b'{"loss": 1}',
        b'{"step": "3"}',
        b'{"step": true}',
        b"[" * 100_000,
        b'{"step": 1.5}',
    ],
    ids=lambda junk: repr(junk[:12]),
)
def test_damaged_lines_are_dropped_and_counted(tmp_path: Path, junk: bytes):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + junk + b'\n\n{"step": 2}\n' + junk + b'\n{"step": 3}')
    assert read_rows(path, 2) == ([{"step": 1}, {"step": 2}], 2)


def test_a_run_that_begins_anew_has_no_rows_of_before(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff')
    with Tracker(tmp_path, "none", ABOUT):
        pass
    assert rows(tmp_path) == []


@pytest.mark.parametrize(
    ("option", "key", "said", "wanted"),
    [
        ("auto", False, "", "offline"),
        ("auto", True, "", "online"),
        ("auto", True, "online", "online"),
        ("auto", True, "offline", "offline"),
        ("auto", True, "dryrun", "offline"),
        ("auto", True, "disabled", None),
        ("auto", False, "online", "offline"),
        ("wandb", True, "", "online"),
        ("wandb", False, "", "offline"),
        ("wandb", True, "online", "online"),
        ("wandb", True, "offline", "online"),
        ("wandb", True, "disabled", "online"),
        ("offline", True, "online", "offline"),
        ("offline", True, "disabled", "offline"),
        ("none", True, "online", None),
        ("auto", True, "onlin", None),
    ],
)
def test_option_before_environment_before_key(option, key, said, wanted, clean, capsys):
    if key:
        clean.setenv("WANDB_API_KEY", KEY)
    if said:
        clean.setenv("WANDB_MODE", said)
    assert choose_mode(option) == wanted
    lines = capsys.readouterr().out.splitlines()
    contradict = option in ("wandb", "offline") and said in ("online", "offline", "disabled")
    if contradict and said != wanted:
        assert lines == [f"warning: --tracking {option} overrules WANDB_MODE={said}"]
    elif said == "onlin":
        assert "WANDB_MODE=onlin is none of online" in lines[0]
    elif wanted == "offline" and not key and "online" in (said, {"wandb": "online"}.get(option)):
        assert "no API key" in lines[0]
    else:
        assert lines == []


def test_a_key_of_netrc_counts(clean, tmp_path: Path):
    (tmp_path / "netrc").write_text(f"machine wandb.example.org login user password {KEY}\n")
    clean.setenv("NETRC", str(tmp_path / "netrc"))
    clean.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert choose_mode("auto") == "online"
    clean.setenv("WANDB_BASE_URL", "https://elsewhere.example.org")
    assert choose_mode("auto") == "offline"


def test_nothing_is_waited_for_longer_than_said():
    with pytest.raises(TimeoutError):
        within(0.05, threading.Event().wait)
    assert within(5, lambda: 3) == 3
    with pytest.raises(RuntimeError, match="SystemExit"):
        within(5, lambda: (_ for _ in ()).throw(SystemExit(3)))


class BrokenRun:
    """A run at a W&B that fails, or never answers."""

    starting_step, dir = 0, "wandb/run-1/files"

    def __init__(self, fail):
        self.log = lambda values, step: fail()
        self.finish = fail


def test_a_wandb_that_fails_ends_no_run(tmp_path: Path, monkeypatch, capsys):
    def fail():
        raise BrokenPipeError("gone")

    run = weights_and_biases.Run(BrokenRun(fail), tmp_path)
    monkeypatch.setattr("dermsynth.tracking.start", lambda *_: run)
    with Tracker(tmp_path, "wandb", ABOUT) as tracker:
        for step in range(3):
            tracker.log(step, loss=1.0)
    assert len(rows(tmp_path)) == 3
    assert capsys.readouterr().out.count("W&B failed (gone)") == 1


def test_a_wandb_that_hangs_holds_no_run_up(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(wandb_modes, "PATIENCE", 0.1)
    run = weights_and_biases.Run(BrokenRun(threading.Event().wait), tmp_path)
    monkeypatch.setattr("dermsynth.tracking.start", lambda *_: run)
    with Tracker(tmp_path, "wandb", ABOUT) as tracker:
        tracker.log(1, loss=1.0)
    assert len(rows(tmp_path)) == 1
    assert "W&B is still sending" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../etc", b"two words", None])
def test_a_damaged_id_is_replaced(tmp_path: Path, content: bytes | None):
    path = tmp_path / "wandb-id.txt"
    if content is not None:
        path.write_bytes(content)
    identity = weights_and_biases._identity(tmp_path, "online")
    assert len(identity) == 8
    assert path.read_text() == identity
    assert weights_and_biases._identity(tmp_path, "offline") == identity
