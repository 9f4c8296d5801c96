"""Archives that mean harm, and archives that came to harm."""

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from data.transfer.records import Unpacked
from data.transfer.unzip import BadArchive, unpack

BODY = bytes(range(256)) * 4096  # 1 MiB


def make_zip(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_mode(name: str, mode: int, content: bytes = b"target") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, content)
    return buffer.getvalue()


GOOD = make_zip({"a.jpg": BODY, "b/c.jpg": BODY})
EVIL = {
    "traversal": make_zip({"../evil.jpg": b"x"}),
    "traversal inside": make_zip({"a/../../evil.jpg": b"x"}),
    "absolute": make_zip({"/tmp/evil.jpg": b"x"}),
    "backslash": make_zip({"a\\..\\evil.jpg": b"x"}),
    "drive": make_zip({"C:evil.jpg": b"x"}),
    "control": make_zip({"a\nb.jpg": b"x"}),
    "link": with_mode("a.jpg", stat.S_IFLNK | 0o777, b"/etc/passwd"),
    "device": with_mode("a.jpg", stat.S_IFCHR | 0o666),
    "twice": make_zip({"a.jpg": b"x", "A.jpg": b"y"}),
    "bomb": make_zip({"a.jpg": bytes(50_000_000)}, zipfile.ZIP_DEFLATED),
    "file and folder": make_zip({"a": b"x", "a/b": b"y"}),
    "long name": make_zip({"a" * 300: b"x"}),
    "empty": make_zip({}),
    "no name": with_mode("", stat.S_IFREG | 0o644),
    "a dot": make_zip({".": b"x"}),
    "only a folder": make_zip({"a/": b""}),
    "cut off": GOOD[:-1000],
    "half": GOOD[: len(GOOD) // 2],
    "no zip": b"<html>not found</html>",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", EVIL)
def test_evil_archives_leave_no_trace(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.zip").write_bytes(EVIL[kind])
    with pytest.raises(BadArchive):
        unpack(folder / "a.zip", folder / "a")
    assert [path.name for path in folder.iterdir()] == ["a.zip"]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(BadArchive, match="not a regular file"):
        unpack(tmp_path / "a.zip", tmp_path / "a")


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    content = bytearray(make_zip({"a.jpg": b"x"}))
    content[6] |= 1  # flag bits of the local header, and of the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(bytes(content))
    with pytest.raises(BadArchive, match="encrypted"):
        unpack(tmp_path / "a.zip", tmp_path / "a")


def test_a_declared_size_that_lies_is_refused(tmp_path: Path) -> None:
    content = bytearray(make_zip({"a.jpg": bytes(1_000_000)}, zipfile.ZIP_DEFLATED))
    for start in (22, content.index(b"PK\x01\x02") + 24):  # the size in both headers
        content[start : start + 4] = (10).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(bytes(content))
    with pytest.raises(BadArchive):
        unpack(tmp_path / "a.zip", tmp_path / "a")


def test_unpacking_replaces_a_folder_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(make_zip({"b/c.jpg": b"new", "__MACOSX/x": b"", "d/": b""}))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old.jpg").write_bytes(b"old")
    (tmp_path / ".a.partial").mkdir()  # of a run that was killed
    assert unpack(tmp_path / "a.zip", tmp_path / "a") == Unpacked(files=1, bytes=3)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [
        "a.zip",
        "a/b/c.jpg",
    ]
