"""One file from a server that cuts, changes, refuses and lies."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import data.transfer.fetch as fetch_module
from data.transfer.fetch import Remote, fetch, human, new_session
from data.transfer.records import Got
from dermsynth.errors import UserError

BODY = bytes(range(256)) * 4096  # 1 MiB


def get(server: Any, folder: Path, **known: object) -> Got:
    with new_session() as session:
        return fetch(session, Remote(f"{server.url}/a.bin", "a.bin", **known), folder)


def test_a_file_arrives_whole_and_nothing_else_stays(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    got = get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
    assert got.bytes == len(BODY)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_cut_connections_are_resumed_where_they_broke(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    server.cuts = [100_000, 200_000, 300_000] * 3  # more cuts than TRIES, each with progress
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked[0] == ("/a.bin", None, None)
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked, _ in server.asked[1:]]
    assert starts == sorted(starts)
    assert starts[0] > 0
    assert all(validator == '"v1"' for _, _, validator in server.asked[1:])


def test_an_aborted_run_goes_on_in_the_next(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    server.cuts = [400_000] + [0] * fetch_module.TRIES
    with pytest.raises(UserError, match="run the same command again"):
        get(server, tmp_path)
    assert 0 < (tmp_path / "a.bin.part").stat().st_size <= 400_000
    server.cuts, server.asked = [], []
    get(server, tmp_path)
    assert server.asked[0][1] is not None  # a Range, in the very first request
    assert len(server.asked) == 1
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_server_without_ranges_sends_it_again_from_the_start(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"], server.ranges, server.cuts = BODY, False, [500_000, 10]
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_server_that_always_cuts_is_given_up(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"], server.ranges = BODY, False
    server.cuts = [500_000, 400_000] * 50
    with pytest.raises(UserError, match="cut"):
        get(server, tmp_path)
    assert len(server.asked) <= fetch_module.TRIES + 1


def test_a_changed_file_is_not_patched_together(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    server.cuts = [400_000] + [0] * fetch_module.TRIES
    with pytest.raises(UserError):
        get(server, tmp_path)
    server.files["/a.bin"], server.etags["/a.bin"], server.cuts = BODY[::-1], '"v2"', []
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_proof_that_it_is_the_same_file_nothing_is_resumed(
    server: Any, tmp_path: Path, etag: str
) -> None:
    server.files["/a.bin"], server.etags["/a.bin"], server.cuts = BODY, etag, [300_000]
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked[1][1] is None


def test_a_part_of_another_address_is_not_used(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    state = {"url": "http://elsewhere/", "etag": '"v1"', "validator": '"v1"'}
    (tmp_path / "a.bin.part.json").write_text(json.dumps(state))
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


@pytest.mark.parametrize("state", ["", "[]", '{"url": 1}', "[" * 10_000, '{"url": "x"'])
def test_a_part_whose_state_is_damaged_starts_again(
    server: Any, tmp_path: Path, state: str
) -> None:
    server.files["/a.bin"] = BODY
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "a.bin.part.json").write_text(state)
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_complete_part_is_taken_as_it_is(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    (tmp_path / "a.bin.part").write_bytes(BODY)
    state = {"url": f"{server.url}/a.bin", "etag": '"v1"', "validator": '"v1"'}
    (tmp_path / "a.bin.part.json").write_text(json.dumps(state))
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert len(server.asked) == 1


def test_busy_servers_are_waited_for_and_missing_files_are_not(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"], server.statuses = BODY, [503, 429, 500]
    get(server, tmp_path)
    assert len(server.asked) == 4
    server.files.clear()
    server.asked.clear()
    with pytest.raises(UserError, match="404"):
        get(server, tmp_path)
    assert len(server.asked) == 1


def test_a_login_page_is_not_taken_for_the_file(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"], server.html = b"<html>please log in</html>", True
    with pytest.raises(UserError, match="web page"):
        get(server, tmp_path)
    assert not (tmp_path / "a.bin").exists()


def test_checksums_and_sizes_are_checked(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    right = hashlib.md5(BODY).hexdigest()
    assert get(server, tmp_path, checksum=("md5", right.upper())).checked == "md5"
    (tmp_path / "a.bin").unlink()
    with pytest.raises(UserError, match="md5"):
        get(server, tmp_path, checksum=("md5", "0" * 32))
    assert len(server.asked) == 3  # a wrong one is tried once more
    with pytest.raises(UserError, match="expected 5 bytes"):
        get(server, tmp_path, size=5)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_answer_without_a_length_is_caught_by_the_size(server: Any, tmp_path: Path) -> None:
    server.files["/a.bin"], server.lengths, server.cuts = BODY, False, [1000]
    get(server, tmp_path, size=len(BODY))
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_sizes_are_told_as_people_say_them() -> None:
    assert [human(value) for value in (12, 1500, 23_400_000_000, 5e15)] == [
        *("12 bytes", "1.5 kB", "23.4 GB", "5000.0 TB")
    ]
