"""Whole data sets: fetched, unpacked, recorded, gone on with; and the archive's own tool."""

import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import data.transfer.dataset as dataset_module
from data.download import SOURCES, DownloadOptions, download, main
from dermsynth.errors import UserError

BODY = bytes(range(256)) * 4096  # 1 MiB


def make_zip(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def siim(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    source = replace(SOURCES["siim2020"], base=f"{server.url}/2020")
    monkeypatch.setitem(SOURCES, "siim2020", source)
    for name in (*source.files, *source.test_files):
        server.files[f"/2020/{name}"] = b"image_name,target\nISIC_1,0\n"
    for name in ("Training", "Test"):
        images = {f"{name.lower()}/ISIC_{number}.jpg": BODY[:9999] for number in range(3)}
        server.files[f"/2020/ISIC_2020_{name}_JPEG.zip"] = make_zip(images)
    return server


def test_a_data_set_is_fetched_unpacked_and_recorded(
    siim: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "siim"
    siim.cuts = [10, 10]
    main(DownloadOptions("siim2020", out))
    said = capsys.readouterr().out
    assert said.index("CC BY-NC") < said.index("to fetch")
    assert "next: python -m data.prepare --source siim2020" in said
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


def test_what_is_complete_is_not_fetched_again(siim: Any, tmp_path: Path) -> None:
    download(DownloadOptions("siim2020", tmp_path))
    siim.asked.clear()
    download(DownloadOptions("siim2020", tmp_path))
    assert siim.asked == []
    next((tmp_path / "ISIC_2020_Training_JPEG/training").iterdir()).unlink()
    download(DownloadOptions("siim2020", tmp_path))
    assert [path for path, _, _ in siim.asked] == ["/2020/ISIC_2020_Training_JPEG.zip"]
    assert len(list((tmp_path / "ISIC_2020_Training_JPEG/training").iterdir())) == 3


def test_the_test_part_comes_on_request(siim: Any, tmp_path: Path) -> None:
    download(DownloadOptions("siim2020", tmp_path, test=True, keep_archives=True))
    assert (tmp_path / "ISIC_2020_Test_JPEG/test/ISIC_0.jpg").exists()
    assert (tmp_path / "ISIC_2020_Test_JPEG.zip").exists()


def test_a_file_put_there_by_hand_is_used_if_it_is_whole(siim: Any, tmp_path: Path) -> None:
    archive = siim.files["/2020/ISIC_2020_Training_JPEG.zip"]
    (tmp_path / "ISIC_2020_Training_JPEG.zip").write_bytes(archive)
    download(DownloadOptions("siim2020", tmp_path))
    assert not any("zip" in path for path, _, _ in siim.asked)
    assert (tmp_path / "ISIC_2020_Training_JPEG/training/ISIC_0.jpg").exists()
    (tmp_path / "ISIC_2020_Training_Duplicates.csv").write_bytes(b"half")
    with pytest.raises(UserError, match=r"Duplicates.csv: 4 bytes, expected 27 bytes"):
        download(DownloadOptions("siim2020", tmp_path))


def test_a_damaged_archive_is_set_aside_and_fetched_again(siim: Any, tmp_path: Path) -> None:
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
    siim: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = dataset_module.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(dataset_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="free some space"):
        download(DownloadOptions("siim2020", tmp_path / "out"))
    assert siim.asked == []
    assert not (tmp_path / "out").exists()


@pytest.fixture
def dataverse(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
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


def test_ham10000_comes_as_dataverse_lists_it(dataverse: Any, tmp_path: Path) -> None:
    download(DownloadOptions("ham10000", tmp_path / "ham"))
    assert (tmp_path / "ham/HAM10000_images_part_1/ISIC_1.jpg").exists()
    assert (tmp_path / "ham/HAM10000_images_part_2/ISIC_2.jpg").exists()
    assert (tmp_path / "ham/HAM10000_metadata.csv").read_text().startswith("lesion_id")
    record = json.loads((tmp_path / "ham/download.json").read_text())
    assert {entry["checked"] for entry in record["files"].values()} == {"md5"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ham"]


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"data": [{"dataFile": 3}]}', b"<html>", b"1"])
def test_a_strange_listing_is_one_error(dataverse: Any, tmp_path: Path, answer: bytes) -> None:
    (path,) = [path for path in dataverse.files if "persistentId=" in path]
    dataverse.files[path] = answer
    with pytest.raises(UserError, match=r"expected HAM|not JSON"):
        download(DownloadOptions("ham10000", tmp_path / "ham"))
    assert not (tmp_path / "ham").exists()


def test_without_a_network_there_is_one_line_and_no_folder(tmp_path: Path) -> None:
    code = (
        "import runpy, sys, data.download as d\nfrom dataclasses import replace\n"
        "d.SOURCES['isic2019'] = replace(d.SOURCES['isic2019'], base='http://127.0.0.1:9/x')\n"
        "from dermsynth.cli import run\n"
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


def test_folders_of_others_are_refused(siim: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a file of that name"):
        download(DownloadOptions("siim2020", tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        download(DownloadOptions("siim2020", tmp_path / "file/below"))
    download(DownloadOptions("siim2020", tmp_path / "out"))
    with pytest.raises(UserError, match="source was 'siim2020', now 'isic2019'"):
        download(DownloadOptions("isic2019", tmp_path / "out"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", "schema version None, expected 1"),
        ('{"schema_version": 7}', "schema version 7, expected 1"),
        ('{"schema_version": 1}', "source: field required"),
        ("{", "not JSON"),
    ],
)
def test_a_damaged_record_is_named(siim: Any, tmp_path: Path, content: str, expected: str) -> None:
    download(DownloadOptions("siim2020", tmp_path / "out"))
    (tmp_path / "out/download.json").write_text(content)
    with pytest.raises(UserError, match=f"download.json.*{expected}.*remove this file"):
        download(DownloadOptions("siim2020", tmp_path / "out"))
    (tmp_path / "out/download.json").unlink()
    siim.asked.clear()
    download(DownloadOptions("siim2020", tmp_path / "out"))
    assert (tmp_path / "out/ISIC_2020_Training_JPEG/training/ISIC_0.jpg").exists()


def test_ctrl_c_says_how_to_go_on(
    siim: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_module, "unpack", stop)
    with pytest.raises(KeyboardInterrupt, match="same command again"):
        download(DownloadOptions("siim2020", tmp_path))
    monkeypatch.undo()
    assert (tmp_path / "ISIC_2020_Training_JPEG.zip").exists()


# -------------------------------------------------------------------------------- isic-cli


@pytest.fixture
def isic(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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


def test_ctrl_c_reaches_the_tool(isic: Path, server: Any, tmp_path: Path) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    write_program(
        isic, f"trap 'touch {ended}; exit 1' INT\ntouch {started}\nwhile :; do sleep 0.05; done"
    )
    code = (
        # a job in the background begins with this signal ignored
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys, data.download as d\nfrom dataclasses import replace\n"
        f"sys.executable = {str(isic.parent / 'python')!r}\n"
        f"d.SOURCES['isic-archive'] = replace(d.SOURCES['isic-archive'], base={server.url!r})\n"
        "from dermsynth.cli import run\n"
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
