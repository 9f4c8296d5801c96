"""Files and folders: complete or not at all, and what was there stays."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dermsynth.errors import UserError, some
from dermsynth.files import continued_folder, new_folder, read_json, write_json, write_text


def test_new_folder_appears_complete(tmp_path: Path):
    out = tmp_path / "deep" / "out"
    with new_folder(out, "marker") as folder:
        (folder / "marker").write_text("x")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "marker").read_text() == "x"


def test_failure_leaves_the_old_folder_and_no_trace(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "marker").write_text("old")
    with pytest.raises(OSError), new_folder(out, "marker", overwrite=True) as folder:  # noqa: PT011, PT012
        (folder / "marker").write_text("new")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (out / "marker").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overwrite_replaces_the_whole_folder(tmp_path: Path):
    out = tmp_path / "out"
    for content, stray in (("old", True), ("new", False)):
        with new_folder(out, "marker", overwrite=True) as folder:
            (folder / "marker").write_text(content)
            if stray:
                (folder / "stray").touch()
    assert [path.name for path in out.iterdir()] == ["marker"]
    assert (out / "marker").read_text() == "new"


@pytest.mark.parametrize(
    ("content", "overwrite", "words"),
    [
        ({"marker": "x"}, False, "add --overwrite"),
        ({"thesis.tex": "x"}, True, "not made by this command"),
        ({"thesis.tex": "x"}, False, "exists already"),
    ],
)
def test_taken_folders_are_refused(tmp_path: Path, content: dict, overwrite: bool, words: str):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words), new_folder(tmp_path, "marker", overwrite):
        pytest.fail("the block must not run")
    assert {path.name for path in tmp_path.iterdir()} == set(content)


def test_out_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "out").write_text("mine")
    with (
        pytest.raises(UserError, match="a file of that name"),
        new_folder(tmp_path / "out", "m", True),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / "out").read_text() == "mine"


def test_write_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"auc": None})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"auc": float("nan")})
    assert read_json(path) == {"auc": None}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_read_json_names_the_file(tmp_path: Path):
    write_text(tmp_path / "cut.json", '{"a": [1, 2')
    for name in ("cut.json", "absent.json"):
        with pytest.raises(UserError, match=name):
            read_json(tmp_path / name)


def test_some_counts_what_it_leaves_out():
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefg"), 5) == "a, b, c, d, e and 2 more"


KILLED = """
import os, pathlib, signal, sys
from dermsynth import files
replaced = []
def replace(*paths):
    replaced.append(paths)
    if len(replaced) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(*paths)
real, files.os.replace = files.os.replace, replace
with files.new_folder(pathlib.Path(sys.argv[1]), "marker", overwrite=True) as folder:
    (folder / "marker").write_text("new")
"""


@pytest.mark.parametrize("rename", [1, 2])
def test_what_a_killed_process_left_is_undone_by_the_next(tmp_path: Path, rename: int):
    out = tmp_path / "out"
    out.mkdir()
    (out / "marker").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(out), str(rename)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(UserError, match="--overwrite"), new_folder(out, "marker"):
        pytest.fail("the block must not run")
    assert (out / "marker").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_interrupted_work_is_gone_on_with_under_the_same_key_only(tmp_path: Path):
    out = tmp_path / "out"
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt, match="waits in"),
        continued_folder(out, "m", "a") as work,
    ):
        (work / "half").touch()
        raise KeyboardInterrupt
    assert not out.exists()
    with pytest.raises(KeyboardInterrupt), continued_folder(out, "m", "a") as work:  # noqa: PT012
        assert (work / "half").exists()
        raise KeyboardInterrupt
    with continued_folder(out, "m", "b") as work:
        assert not (work / "half").exists()
        (work / "m").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["m"]


def test_failed_work_is_removed_and_the_old_folder_stays(tmp_path: Path):
    out = tmp_path / "out"
    with continued_folder(out, "m", "a") as work:
        (work / "m").write_text("old")
    with pytest.raises(UserError), continued_folder(out, "m", "b", True) as work:  # noqa: PT012
        (work / "m").write_text("new")
        raise UserError("bad input")
    assert (out / "m").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


CONTINUED = """
import os, pathlib, signal, sys
from dermsynth.files import continued_folder
with continued_folder(pathlib.Path(sys.argv[1]), "m", "key") as folder:
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_work_is_gone_on_with_and_living_work_is_left_alone(tmp_path: Path):
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", CONTINUED, str(out)], check=False)
    with continued_folder(out, "m", "key") as work:
        assert (work / "half").exists()
        write_json(work / "process.json", {"pid": 1, "key": "key"})  # of a process that lives
        with (
            pytest.raises(UserError, match="process 1 is at work there"),
            continued_folder(out, "m", "key"),
        ):
            pytest.fail("the block must not run")
