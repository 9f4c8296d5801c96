"""Files: the old content or the new, never half of it; nothing is opened that could block."""

import json
import os
from pathlib import Path

import pytest

from dermsynth.errors import UserError, some
from dermsynth.files import check_free, free_name, read_bytes, write_json, write_text


def test_write_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"auc": None})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"auc": float("nan")})
    assert json.loads(path.read_text()) == {"auc": None}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_content_and_no_trace(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [left.name for left in tmp_path.iterdir()] == ["a.txt"]


def test_only_regular_files_are_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"123")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_bytes(tmp_path / "link", 3, "mend") == b"123"
    for name, most, words in (
        ("pipe", 9, "a pipe or a device, expected a file; mend"),
        (".", 9, "a folder, expected a file; mend"),
        ("none", 9, r"cannot be read \(No such file or directory\); mend"),
        ("file", 2, "3 bytes, expected at most 2"),
    ):
        with pytest.raises(UserError, match=words):
            read_bytes(tmp_path / name, most, "mend")


def test_an_output_file_needs_a_free_name(tmp_path: Path):
    (tmp_path / "a.csv").write_text("")
    check_free(tmp_path / "b.csv", overwrite=False)
    check_free(tmp_path / "a.csv", overwrite=True)
    with pytest.raises(UserError, match="exists already"):
        check_free(tmp_path / "a.csv", overwrite=False)
    for place in (tmp_path, Path("/"), Path()):
        with pytest.raises(UserError, match="the name of a file"):
            check_free(place, overwrite=True)


def test_free_names_are_counted(tmp_path: Path):
    assert free_name(tmp_path, "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert free_name(tmp_path, "a") == tmp_path / "a-3"


def test_some_counts_what_it_leaves_out():
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefg"), 5) == "a, b, c, d, e and 2 more"
