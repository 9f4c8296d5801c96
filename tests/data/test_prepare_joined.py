"""Joined sources, native files, tables alone, own folds, and going on after a kill."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.images.decoding import Preprocessing, decode
from data.preparation import ingest as ingest_module
from data.prepare import prepare
from data.store import EXTRA, NO_PART, Look, load_dataset
from dermsynth.errors import UserError
from dermsynth.options import replace


@pytest.fixture
def second(ham, tmp_path, make_texture):
    """Another folder in the same layout: six new lesions, of which one image is in `ham` too."""
    root = tmp_path / "second"
    root.mkdir()
    rows = []
    for number in range(6):
        name = f"OTHER_{number}"
        Image.fromarray(make_texture(500 + number)).save(root / f"{name}.jpg", quality=90)
        rows.append([f"OWN_{number}", name, "mel" if number % 2 else "nv", 50, "female", "face"])
    turned = Image.open(ham / "HAM10000_images_part_1" / "ISIC_0000000.jpg").rotate(90, expand=True)
    turned.save(root / "OTHER_0.jpg", quality=90)
    columns = ["lesion_id", "image_id", "dx", "age", "sex", "localization"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "HAM10000_metadata.csv", index=False)
    return root


@pytest.fixture
def joined(options, second):
    return replace(options, root=(*options.input.root, second), extra=("ham10000",))


def test_external_images_join_the_training_parts_only(joined):
    dataset = prepare(joined)
    fold = dataset.table.set_index("image_id")["fold"]
    assert fold["OTHER_0"] == NO_PART  # ISIC_0000000 again, turned and in another file
    assert {int(fold[f"OTHER_{k}"]) for k in range(1, 6)} == {EXTRA}
    external = np.flatnonzero(fold == EXTRA)
    for number in range(3):
        assert set(external) < set(dataset.rows("train", number))
        for part in ("val", "test"):
            assert not set(external) & set(dataset.rows(part, number))
    parts = dataset.info.counts["parts"]
    assert parts["extra"]["images"] == 5
    assert parts["no part"]["images"] == 1
    assert [source["name"] for source in dataset.info.facts["sources"]] == ["ham10000", "ham10000"]


def test_each_source_needs_its_root(options, joined, refused):
    refused(replace(joined, root=options.input.root), "expected 2, found 1")
    refused(replace(options, root=joined.input.root), "expected 1, found 2")


# ----------------------------------------------------------------------------------------- native


def test_native_keeps_the_files(options, ham):
    dataset = prepare(replace(options, size="native"))
    assert not (dataset.path / "images.npy").exists()
    assert dataset.images.shape == (48, 128, 128, 3)
    for size in (32, 60):
        images = load_dataset(dataset.path, size).images
        for row in (0, 7, 47):
            part = ham / f"HAM10000_images_part_{1 + row % 2}" / f"ISIC_{row:07d}.jpg"
            assert images.content(row) == part.read_bytes()
            assert (images[row] == decode(part, Preprocessing(size)).pixels).all()
    stored = prepare(replace(options, out=options.out.with_name("stored")))
    assert stored.folds_hash == dataset.folds_hash
    columns = ["image_id", "target", "group", "fold", "width", "height", "sha256"]
    pd.testing.assert_frame_equal(stored.table[columns], dataset.table[columns])


def test_letterbox_and_cleaning_are_remembered(options):
    look = {"fit": "letterbox", "clean": "colour,frame"}
    dataset = prepare(replace(options, **look))
    assert dataset.info.look == Look(size=64, fit="letterbox", clean=("frame", "colour"))
    assert (dataset.images[0][:4] == 0).all()  # black above: 60 of 80 px are high
    pictures = {path.name for path in dataset.path.glob("cleaning-*.png")}
    assert pictures == {"cleaning-frame.png", "cleaning-colour.png"}
    native = prepare(replace(options, **look, size="native", out=options.out.with_name("n")))
    assert (load_dataset(native.path, 64).images[0] == dataset.images[0]).all()


# ---------------------------------------------------------------------------- tables and own folds


def test_tables_alone(options, ham, tmp_path):
    whole = prepare(options)
    for path in ham.rglob("*.jpg"):
        path.unlink()
    ask = replace(options, tables_only=True, out=tmp_path / "o" / "t")
    table = prepare(ask)
    assert table["image_id"].tolist() == whole.table["image_id"].tolist()
    assert not (ask.out / "images.npy").exists()
    with pytest.raises(UserError, match="holds tables only"):
        load_dataset(ask.out)


def test_own_folds_are_kept_and_checked(options, edit_csv, refused):
    edit_csv(lambda t: t.assign(part=[k // 2 % 3 - 1 for k in range(len(t))]))
    dataset = prepare(replace(options, fold_column="part"))
    assert dataset.table["fold"].tolist() == [k // 2 % 3 - 1 for k in range(48)]
    edit_csv(lambda t: t.assign(part=[k % 2 for k in range(len(t))]))
    other = options.out.parent / "other"
    refused(replace(options, fold_column="part", out=other), "in several of the given folds")
    refused(replace(options, fold_column="fold", out=other), "fold")


def test_a_lesion_of_both_targets(options, edit_csv, refused):
    edit_csv(lambda t: t.assign(dx=["nv", *t.dx[1:]]))
    assert "HAM_0000000" in refused(options, "1 lesion has images of both targets")
    dataset = prepare(replace(options, conflicts="malignant"))
    assert dataset.targets(np.array([0, 1])).tolist() == [1, 1]
    assert dataset.info.conflicts[0]["lesion_id"] == "HAM_0000000"


def test_skipped_rows_are_listed(options, ham):
    (ham / "HAM10000_images_part_1" / "ISIC_0000000.jpg").write_bytes(b"")
    (ham / "HAM10000_images_part_1" / "ISIC_0000004.jpg").unlink()
    dataset = prepare(replace(options, on_error="skip"))
    listed = pd.read_csv(dataset.path / "skipped.csv").set_index("image_id")["reason"]
    assert listed.to_dict() == {
        "ISIC_0000004": "absent",
        "ISIC_0000000": "empty (0 bytes): an interrupted download?",
    }


def test_duplicates_are_listed(options, ham):
    part = ham / "HAM10000_images_part_1"
    shutil.copy(part / "ISIC_0000000.jpg", part / "ISIC_0000010.jpg")
    Image.open(part / "ISIC_0000020.jpg").save(part / "ISIC_0000030.jpg", quality=70)
    dataset = prepare(options)
    listed = pd.read_parquet(dataset.path / "duplicates.parquet")
    assert listed.to_numpy().tolist() == [
        ["ISIC_0000000", "ISIC_0000010", "identical", True],
        ["ISIC_0000020", "ISIC_0000030", "near", True],
    ]
    assert "ISIC_0000010" not in set(dataset.table["image_id"])


# --------------------------------------------------------------------------------- after a kill

KILLED = """
import os, signal, sys
from data.preparation import ingest
ingest.CHUNK = 8
real, written = ingest.journal.write_scratch, []
def write(path, content):
    real(path, content)
    written.append(path)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
ingest.journal.write_scratch = write
from data.prepare import PrepareOptions, prepare
from dermsynth.cli import parse
prepare(parse(PrepareOptions, sys.argv[1:], "x", "x"))
"""


@pytest.mark.parametrize("size", [pytest.param("64", marks=pytest.mark.slow), "native"])
def test_killed_it_goes_on_to_the_same_dataset(options, size, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ingest_module, "CHUNK", 8)
    ask = replace(options, size=int(size) if size.isdigit() else size)
    unbroken = prepare(replace(ask, out=tmp_path / "unbroken"))
    argv = ["--source", "ham10000", "--root", str(ask.input.root[0]), "--out", str(ask.out)]
    command = [sys.executable, "-c", KILLED, *argv, "--size", size, "--folds", "3"]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not ask.out.exists()
    capsys.readouterr()
    dataset = prepare(ask)
    assert "24 images are done" in capsys.readouterr().out
    pd.testing.assert_frame_equal(dataset.table, unbroken.table)
    assert (dataset.images[:] == unbroken.images[:]).all()
    assert [path.name for path in ask.out.parent.iterdir()] == [ask.out.name]
    assert sorted(path.name for path in ask.out.iterdir()) == sorted(
        path.name for path in unbroken.path.iterdir()
    )


def test_read_only_root_and_out(options, ham, tmp_path):
    """The root is never written to; an --out that cannot be written is one line."""
    before = {path: path.stat().st_mtime_ns for path in ham.rglob("*")}
    prepare(options)
    assert {path: path.stat().st_mtime_ns for path in ham.rglob("*")} == before
    out = "/proc/dermsynth"  # nobody may write there, not even root
    argv = ["--source", "ham10000", "--root", str(ham), "--out", out]
    command = [sys.executable, "-m", "data.prepare", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert out in done.stderr


def test_ctrl_c_says_how_to_go_on(options, tmp_path):
    argv = ["--source", "ham10000", "--root", str(options.input.root[0]), "--out", str(options.out)]
    # a job in the background begins with this signal ignored
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    slow = (
        heard
        + "import data.images.decoding, time\nreal = data.images.decoding.decode_bytes\n"
        + (
            "def wait(*a):\n    time.sleep(0.5)\n    return real(*a)\n"
            "data.images.decoding.decode_bytes = wait\n"
            "import sys\nfrom data.prepare import *\n"
            'cli.run(PrepareOptions, prepare, "data.prepare", "x")\n'
        )
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *argv], stderr=subprocess.PIPE, text=True
    )
    work = options.out.with_name(f".{options.out.name}.unfinished")
    for _ in range(1200):
        if (work / "images.npy").exists():
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"what was done waits in {work}; the same command goes on from there" in said
    assert (work / "images.npy").exists()
    assert prepare(options).identity == load_dataset(options.out).identity
    assert [path.name for path in options.out.parent.iterdir()] == [options.out.name]
