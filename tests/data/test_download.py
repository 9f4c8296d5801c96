"""The downloader against a server that misbehaves, and the unpacker against archives that do."""

import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import data.download as download_module
import data.fetch as fetch_module
from data.download import SOURCES, DownloadOptions, download
from data.fetch import Remote, fetch, human, new_session
from data.unzip import BadArchive, unpack
from runtime.errors import UserError

BODY = bytes(range(256)) * 4096  # 1 MiB


class Server(ThreadingHTTPServer):
    """Serves `files`; every list of faults is used up from the front, one entry a GET."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.ranges = True
        self.cuts: list[int] = []  # bytes after which the connection is cut
        self.statuses: list[int] = []
        self.html = False
        self.lengths = True
        self.asked: list[tuple[str, str | None, str | None]] = []  # path, Range, If-Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        asked = (self.path, self.headers.get("Range"), self.headers.get("If-Range"))
        self.server.asked.append(asked)
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        server, path = self.server, self.path
        if body and server.statuses and (status := server.statuses.pop(0)) != 200:
            return self._plain(status)
        if path not in server.files:
            return self._plain(404)
        content, etag = server.files[path], server.etags.get(path, '"v1"')
        start, asked = 0, self.headers.get("Range")
        if asked and server.ranges and self.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self._plain(416, {"Content-Range": f"bytes */{len(content)}"})
            self.send_response(206)
            end = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", "text/html" if server.html else "application/zip")
        if etag:
            self.send_header("ETag", etag)
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if body:
            rest = content[start:]
            cut = server.cuts.pop(0) if server.cuts else len(rest)
            self.wfile.write(rest[:cut])
            if cut < len(rest):
                self.close_connection = True
        return None

    def _plain(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch_module, "PAUSE", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    served = Server()
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def get(server: Server, folder: Path, **known: object) -> dict[str, object]:
    with new_session() as session:
        return fetch(session, Remote(f"{server.url}/a.bin", "a.bin", **known), folder)


def make_zip(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------ one file


def test_a_file_arrives_whole_and_nothing_else_stays(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    got = get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert got["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert got["bytes"] == len(BODY)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_cut_connections_are_resumed_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    server.cuts = [100_000, 200_000, 300_000] * 3  # more cuts than TRIES, each with progress
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked[0] == ("/a.bin", None, None)
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked, _ in server.asked[1:]]
    assert starts == sorted(starts)
    assert starts[0] > 0
    assert all(validator == '"v1"' for _, _, validator in server.asked[1:])


def test_an_aborted_run_goes_on_in_the_next(server: Server, tmp_path: Path) -> None:
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


def test_a_server_without_ranges_sends_it_again_from_the_start(
    server: Server, tmp_path: Path
) -> None:
    server.files["/a.bin"], server.ranges, server.cuts = BODY, False, [500_000, 10]
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_server_that_always_cuts_is_given_up(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"], server.ranges = BODY, False
    server.cuts = [500_000, 400_000] * 50
    with pytest.raises(UserError, match="cut"):
        get(server, tmp_path)
    assert len(server.asked) <= fetch_module.TRIES + 1


def test_a_changed_file_is_not_patched_together(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    server.cuts = [400_000] + [0] * fetch_module.TRIES
    with pytest.raises(UserError):
        get(server, tmp_path)
    server.files["/a.bin"], server.etags["/a.bin"], server.cuts = BODY[::-1], '"v2"', []
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_proof_that_it_is_the_same_file_nothing_is_resumed(
    server: Server, tmp_path: Path, etag: str
) -> None:
    server.files["/a.bin"], server.etags["/a.bin"], server.cuts = BODY, etag, [300_000]
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked[1][1] is None


def test_a_part_of_another_address_is_not_used(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    state = {"url": "http://elsewhere/", "etag": '"v1"', "validator": '"v1"'}
    (tmp_path / "a.bin.part.json").write_text(json.dumps(state))
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_complete_part_is_taken_as_it_is(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    (tmp_path / "a.bin.part").write_bytes(BODY)
    state = {"url": f"{server.url}/a.bin", "etag": '"v1"', "validator": '"v1"'}
    (tmp_path / "a.bin.part.json").write_text(json.dumps(state))
    get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert len(server.asked) == 1


def test_busy_servers_are_waited_for_and_missing_files_are_not(
    server: Server, tmp_path: Path
) -> None:
    server.files["/a.bin"], server.statuses = BODY, [503, 429, 500]
    get(server, tmp_path)
    assert len(server.asked) == 4
    server.files.clear()
    server.asked.clear()
    with pytest.raises(UserError, match="404"):
        get(server, tmp_path)
    assert len(server.asked) == 1


def test_a_login_page_is_not_taken_for_the_file(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"], server.html = b"<html>please log in</html>", True
    with pytest.raises(UserError, match="web page"):
        get(server, tmp_path)
    assert not (tmp_path / "a.bin").exists()


def test_checksums_and_sizes_are_checked(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    right = hashlib.md5(BODY).hexdigest()
    assert get(server, tmp_path, checksum=("md5", right.upper()))["checked"] == "md5"
    (tmp_path / "a.bin").unlink()
    with pytest.raises(UserError, match="md5"):
        get(server, tmp_path, checksum=("md5", "0" * 32))
    assert len(server.asked) == 3  # a wrong one is tried once more
    with pytest.raises(UserError, match="expected 5 bytes"):
        get(server, tmp_path, size=5)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_answer_without_a_length_is_caught_by_the_size(
    server: Server, tmp_path: Path
) -> None:
    server.files["/a.bin"], server.lengths, server.cuts = BODY, False, [1000]
    get(server, tmp_path, size=len(BODY))
    assert (tmp_path / "a.bin").read_bytes() == BODY


# ---------------------------------------------------------------------------------- data sets


@pytest.fixture
def siim(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    source = replace(SOURCES["siim2020"], base=f"{server.url}/2020")
    monkeypatch.setitem(SOURCES, "siim2020", source)
    for name in (*source.files, *source.test_files):
        server.files[f"/2020/{name}"] = b"image_name,target\nISIC_1,0\n"
    for name in ("Training", "Test"):
        images = {f"{name.lower()}/ISIC_{number}.jpg": BODY[:9999] for number in range(3)}
        server.files[f"/2020/ISIC_2020_{name}_JPEG.zip"] = make_zip(images)
    return server


def test_a_data_set_is_fetched_unpacked_and_recorded(
    siim: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "siim"
    siim.cuts = [10, 10]
    assert download(DownloadOptions("siim2020", out)) == out
    said = capsys.readouterr().out
    assert said.index("CC BY-NC") < said.index("to fetch")
    assert "python -m data.prepare --source siim2020" in said
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        "ISIC_2020_Training_Duplicates.csv",
        "ISIC_2020_Training_GroundTruth_v2.csv",
        "ISIC_2020_Training_JPEG",
        "download.json",
    ]
    assert len(list((out / "ISIC_2020_Training_JPEG/training").iterdir())) == 3
    record = json.loads((out / "download.json").read_text())
    archive = record["files"]["ISIC_2020_Training_JPEG.zip"]
    content = siim.files["/2020/ISIC_2020_Training_JPEG.zip"]
    assert archive["sha256"] == hashlib.sha256(content).hexdigest()
    assert archive["unpacked"] == {"files": 3, "bytes": 3 * 9999}
    assert record["licence"].startswith("CC BY-NC")


def test_what_is_complete_is_not_fetched_again(siim: Server, tmp_path: Path) -> None:
    download(DownloadOptions("siim2020", tmp_path))
    siim.asked.clear()
    download(DownloadOptions("siim2020", tmp_path))
    assert siim.asked == []
    next((tmp_path / "ISIC_2020_Training_JPEG/training").iterdir()).unlink()
    download(DownloadOptions("siim2020", tmp_path))
    assert [path for path, _, _ in siim.asked] == ["/2020/ISIC_2020_Training_JPEG.zip"]
    assert len(list((tmp_path / "ISIC_2020_Training_JPEG/training").iterdir())) == 3


def test_the_test_part_comes_on_request(siim: Server, tmp_path: Path) -> None:
    download(DownloadOptions("siim2020", tmp_path, test=True, keep_archives=True))
    assert (tmp_path / "ISIC_2020_Test_JPEG/test/ISIC_0.jpg").exists()
    assert (tmp_path / "ISIC_2020_Test_JPEG.zip").exists()


def test_a_file_put_there_by_hand_is_used_if_it_is_whole(siim: Server, tmp_path: Path) -> None:
    archive = siim.files["/2020/ISIC_2020_Training_JPEG.zip"]
    (tmp_path / "ISIC_2020_Training_JPEG.zip").write_bytes(archive)
    download(DownloadOptions("siim2020", tmp_path))
    assert not any("zip" in path for path, _, _ in siim.asked)
    assert (tmp_path / "ISIC_2020_Training_JPEG/training/ISIC_0.jpg").exists()
    (tmp_path / "ISIC_2020_Training_Duplicates.csv").write_bytes(b"half")
    with pytest.raises(UserError, match=r"Duplicates.csv: 4 bytes, expected 27 bytes"):
        download(DownloadOptions("siim2020", tmp_path))


def test_a_damaged_archive_is_set_aside_and_fetched_again(siim: Server, tmp_path: Path) -> None:
    whole = siim.files["/2020/ISIC_2020_Training_JPEG.zip"]
    broken = bytearray(whole)
    broken[5000] ^= 1
    siim.files["/2020/ISIC_2020_Training_JPEG.zip"] = bytes(broken)
    with pytest.raises(UserError, match=r"damaged.*CRC"):
        download(DownloadOptions("siim2020", tmp_path))
    assert not (tmp_path / "ISIC_2020_Training_JPEG").exists()
    siim.files["/2020/ISIC_2020_Training_JPEG.zip"] = whole
    download(DownloadOptions("siim2020", tmp_path))
    assert (tmp_path / "ISIC_2020_Training_JPEG/training/ISIC_0.jpg").exists()


def test_a_full_disk_is_seen_beforehand(
    siim: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = download_module.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="free some space"):
        download(DownloadOptions("siim2020", tmp_path / "out"))
    assert siim.asked == []
    assert not (tmp_path / "out").exists()


@pytest.fixture
def dataverse(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    api = f"{server.url}/api"
    monkeypatch.setitem(SOURCES, "ham10000", replace(SOURCES["ham10000"], base=api))
    contents = {
        "HAM10000_images_part_1.zip": make_zip({"ISIC_1.jpg": BODY[:5000]}),
        "HAM10000_images_part_2.zip": make_zip({"ISIC_2.jpg": BODY[:6000]}),
        "HAM10000_metadata.tab": b"lesion_id,image_id,dx\nHAM_1,ISIC_1,mel\n",
        "../../evil.zip": b"not asked for",
    }
    entries = []
    for number, (name, content) in enumerate(contents.items()):
        checksum = {"type": "MD5", "value": hashlib.md5(content).hexdigest()}
        entry = {"id": number, "filename": name, "filesize": len(content), "checksum": checksum}
        path = f"/api/access/datafile/{number}"
        if name.endswith(".tab"):  # converted: another size, and the checksum of the original
            entry |= {"filesize": 1, "originalFileFormat": "text/csv"}
            entry |= {"originalFileSize": len(content)}
            path += "?format=original"
        server.files[path] = content
        entries.append({"label": name, "dataFile": entry})
    listed = "/api/datasets/:persistentId/versions/:latest-published/files"
    server.files[f"{listed}?persistentId=doi:10.7910/DVN/DBW86T"] = json.dumps(
        {"status": "OK", "data": entries}
    ).encode()
    return server


def test_ham10000_comes_as_dataverse_lists_it(dataverse: Server, tmp_path: Path) -> None:
    download(DownloadOptions("ham10000", tmp_path / "ham"))
    assert (tmp_path / "ham/HAM10000_images_part_1/ISIC_1.jpg").exists()
    assert (tmp_path / "ham/HAM10000_images_part_2/ISIC_2.jpg").exists()
    assert (tmp_path / "ham/HAM10000_metadata.csv").read_text().startswith("lesion_id")
    record = json.loads((tmp_path / "ham/download.json").read_text())
    assert {entry["checked"] for entry in record["files"].values()} == {"md5"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ham"]


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"data": [{"dataFile": 3}]}', b"<html>", b"1"])
def test_a_strange_listing_is_one_error(dataverse: Server, tmp_path: Path, answer: bytes) -> None:
    (path,) = [path for path in dataverse.files if "persistentId=" in path]
    dataverse.files[path] = answer
    with pytest.raises(UserError, match=r"expected HAM|not JSON"):
        download(DownloadOptions("ham10000", tmp_path / "ham"))
    assert not (tmp_path / "ham").exists()


def test_without_a_network_there_is_one_line_and_no_folder(tmp_path: Path) -> None:
    code = (
        "import runpy, sys, data.download as d\nfrom dataclasses import replace\n"
        "d.SOURCES['isic2019'] = replace(d.SOURCES['isic2019'], base='http://127.0.0.1:9/x')\n"
        "from runtime.cli import run\n"
        "run(d.DownloadOptions, d.download, 'data.download', d.__doc__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "isic2019", "--out", str(tmp_path / "x")],
        capture_output=True,
        text=True,
        env={**os.environ, "no_proxy": "*"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: 127.0.0.1:9: cannot be reached; check the network")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (DownloadOptions("isic2019", Path("x"), test=True), "--test"),
        (DownloadOptions("isic2019", Path("x"), limit=5), "--limit"),
        (DownloadOptions("isic-archive", Path("x"), limit=-1), "--limit -1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: DownloadOptions, words: str) -> None:
    with pytest.raises(UserError, match=words):
        download(options)
    assert not Path("x").exists()


def test_folders_of_others_are_refused(siim: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a file of that name"):
        download(DownloadOptions("siim2020", tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        download(DownloadOptions("siim2020", tmp_path / "file/below"))
    download(DownloadOptions("siim2020", tmp_path / "out"))
    with pytest.raises(UserError, match="source was 'siim2020', now 'isic2019'"):
        download(DownloadOptions("isic2019", tmp_path / "out"))


def test_ctrl_c_says_how_to_go_on(
    siim: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download_module, "unpack", stop)
    with pytest.raises(KeyboardInterrupt, match="same command again"):
        download(DownloadOptions("siim2020", tmp_path))
    monkeypatch.undo()
    assert (tmp_path / "ISIC_2020_Training_JPEG.zip").exists()


# -------------------------------------------------------------------------------- isic-cli


@pytest.fixture
def isic(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the `isic` program, beside a Python that is not there."""
    source = replace(SOURCES["isic-archive"], base=f"{server.url}/api/v2/")
    monkeypatch.setitem(SOURCES, "isic-archive", source)
    program = tmp_path / "bin/isic"
    program.parent.mkdir()
    monkeypatch.setattr(sys, "executable", str(program.parent / "python"))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return program


def write_program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_official_tool_is_called(isic: Path, tmp_path: Path) -> None:
    write_program(
        isic, f'echo "$@" > {tmp_path}/said; for out; do :; done; echo a > $out/metadata.csv'
    )
    out = tmp_path / "archive"
    download(DownloadOptions("isic-archive", out, search="sex:male", limit=5))
    said = (tmp_path / "said").read_text().strip()
    assert said == f"image download --search sex:male --limit 5 -- {out}"
    assert "sha256" in json.loads((out / "download.json").read_text())["files"]["metadata.csv"]


def test_its_failure_and_its_absence_are_one_line(isic: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pip install 'dermsynth\[download\]'"):
        download(DownloadOptions("isic-archive", tmp_path / "archive"))
    assert not (tmp_path / "archive").exists()
    write_program(isic, "exit 3")
    with pytest.raises(UserError, match="exit code 3"):
        download(DownloadOptions("isic-archive", tmp_path / "archive"))


def test_ctrl_c_reaches_the_tool(isic: Path, server: Server, tmp_path: Path) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    write_program(
        isic, f"trap 'touch {ended}; exit 1' INT\ntouch {started}\nwhile :; do sleep 0.05; done"
    )
    code = (
        "import sys, data.download as d\nfrom dataclasses import replace\n"
        f"sys.executable = {str(isic.parent / 'python')!r}\n"
        f"d.SOURCES['isic-archive'] = replace(d.SOURCES['isic-archive'], base={server.url!r})\n"
        "from runtime.cli import run\n"
        "run(d.DownloadOptions, d.download, 'data.download', d.__doc__)\n"
    )
    python = Path(sys.prefix) / "bin/python"  # sys.executable is the stand-in's
    child = subprocess.Popen(
        [str(python), "-c", code, "isic-archive", "--out", str(tmp_path / "archive")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(400):
        if started.exists():
            break
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)  # as the terminal does
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert ended.exists()


# -------------------------------------------------------------------------------- archives


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
    assert unpack(tmp_path / "a.zip", tmp_path / "a") == {"files": 1, "bytes": 3}
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [
        "a.zip",
        "a/b/c.jpg",
    ]


def test_sizes_are_told_as_people_say_them() -> None:
    assert [human(value) for value in (12, 1500, 23_400_000_000, 5e15)] == [
        *("12 bytes", "1.5 kB", "23.4 GB", "5000.0 TB")
    ]
