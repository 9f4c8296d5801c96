"""Each bad input of `data.prepare`: one clear error, nothing left behind, nothing lost."""

import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from data.images.decoding import Preprocessing, decode
from data.preparation import phantom as module
from data.prepare import PrepareOptions, prepare
from dermsynth.errors import UserError
from dermsynth.options import replace

TINY_PHANTOM = replace(PrepareOptions(), size=32, patients=40, folds=3)


# ---------------------------------------------------------------------------------- bad options


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"folds": 1}, "--folds 1: expected a whole number from 2 to 1000"),
        ({"test_fraction": 1.0}, "--test-fraction 1.0"),
        ({"test_fraction": -0.2}, "--test-fraction -0.2"),
        ({"size": 16}, "--size 16: expected a whole number from 32 to 1024, or native"),
        ({"size": 5000}, "--size 5000"),
        ({"size": -1}, "--size -1"),
        ({"positive": "bcc"}, r"--positive bcc: no such diagnosis .* mel \(16\)"),
        ({"positive": "mel,xyz"}, "--positive xyz"),
        ({"positive": " , "}, "--positive: empty"),
        ({"positive": "mel,nv,bkl"}, "one class only"),
        ({"folds": 8}, "need at least 9 melanoma groups .* found 8"),
        ({"patients": 5}, "--patients: --source ham10000 does not use it"),
        ({"provenance": "me", "best_auc": 0.8}, "--best-auc, --provenance: --source ham10000"),
        ({"source": "isic"}, "--source isic: expected phantom, pool, ham10000, isic2016"),
        ({"root": ()}, "--source ham10000 needs --root"),
    ],
)
def test_bad_options(options, change, expected, refused):
    refused(replace(options, **change), expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"root": (Path("/"),)}, "--root: --source phantom does not use it"),
        ({"positive": "bcc", "on_error": "skip"}, "--on-error, --positive: --source phantom"),
        ({"patients": 0}, "--patients 0"),
        ({"prevalence": 1.5}, "--prevalence 1.5"),
        ({"best_auc": 0.2}, "--best-auc 0.2: expected"),
        ({"patients": 5, "prevalence": 0.5}, "need at least"),
        ({"prevalence": 0.03}, "melanoma groups"),
    ],
)
def test_bad_phantom_options_fail_before_anything_is_drawn(
    tmp_path, change, expected, monkeypatch, refused
):
    monkeypatch.setattr(module, "sample_dataset", lambda *_: pytest.fail("drawn in vain"))
    refused(replace(TINY_PHANTOM, out=tmp_path / "o" / "p", **change), expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"folds": 3}, "--folds: --source pool does not use it"),
        ({"seed": 3, "test_fraction": 0.1}, "--seed, --test-fraction: --source pool"),
        ({"provenance": "  "}, "--provenance: empty"),
    ],
)
def test_bad_pool_options(foreign, tmp_path, change, expected, refused):
    refused(
        replace(
            PrepareOptions(), source="pool", root=(foreign,), out=tmp_path / "o" / "p", **change
        ),
        expected,
    )


# ------------------------------------------------------------------------------------- bad folders


def test_roots(options, tmp_path, refused):
    refused(replace(options, root=(tmp_path / "nowhere",)), "nowhere: no such folder")
    (tmp_path / "empty").mkdir()
    refused(replace(options, root=(tmp_path / "empty",)), "empty: empty; unpack")
    (tmp_path / "file").touch()
    refused(replace(options, root=(tmp_path / "file",)), "file: a file; expected the folder")
    (tmp_path / "empty" / "notes.txt").touch()
    refused(replace(options, root=(tmp_path / "empty",)), "no HAM10000_metadata.csv in it or below")
    ask = replace(PrepareOptions(), source="pool", root=(tmp_path / "empty",), out=options.out)
    refused(ask, r"no image below it; expected \.jpg, \.png, \.tif")


def test_unreadable_folder(options, monkeypatch):
    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(UserError, match="may not be read"):
        prepare(options)
    monkeypatch.undo()
    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        prepare(options)


def test_out_is_taken(options, tmp_path, refused):
    first = prepare(options)
    refused(options, "exists already; .* --overwrite")
    options.out.joinpath("manifest.json").rename(options.out / "kept.json")
    refused(replace(options, overwrite=True), "holds no manifest.json")
    options.out.joinpath("kept.json").rename(options.out / "manifest.json")
    again = prepare(replace(options, overwrite=True, seed=5))
    assert again.folds_hash != first.folds_hash


# ----------------------------------------------------------------------------------------- bad CSV


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.drop(columns="dx"), r"no column dx; it has lesion_id, image_id, dx_type"),
        (lambda t: t.drop(columns=["dx", "image_id"]), "no column image_id, dx"),
        (lambda t: t.head(0), "no rows below the header"),
        (
            lambda t: pd.concat([t, t.iloc[[3]].assign(age="1")]),
            r"ISIC_0000003: image_id more than once \(HAM10000_metadata.csv line 5, .* line 50\)",
        ),
        (
            lambda t: t.assign(dx=["", *t.dx[1:]]),
            r"ISIC_0000000: dx is empty \(HAM10000_metadata.csv line 2\)",
        ),
        (
            lambda t: t.assign(dx=["", "", *t.dx[2:]]),
            "2 of 48 images cannot be used:\n  2 dx is empty",
        ),
        (
            lambda t: t.assign(age=["old", *t.age[1:]]),
            "1 age is not a number of years from 0 to 120",
        ),
        (lambda t: t.assign(age=["-4", *t.age[1:]]), "ISIC_0000000: age is not a number .* line 2"),
        (lambda t: t.assign(age=["inf", *t.age[1:]]), "ISIC_0000000: age is not a number"),
        (lambda t: t[t.dx == "mel"], "one class only"),
        (lambda t: t[t.dx != "mel"], "--positive mel: no such diagnosis"),
        (
            lambda t: t.assign(image_id="x" + t.image_id),
            "48 images listed and none of them below it",
        ),
    ],
)
def test_bad_tables(options, edit_csv, change, expected, refused):
    edit_csv(change)
    assert "ham" in refused(options, expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a CSV file"),
        (b"\xff\xfe\x00\x01", "no column image_id, lesion_id, dx"),
        (b"image_id,lesion_id,dx\n1,2,3\n1,2,3,4,5\n", "--positive mel: no such diagnosis"),
        (b"<html>not found</html>", "not a CSV file but a web page"),
        (b"image_id,lesion_id,dx\nISIC_0000000,HAM_1\n", "number of cells .* line 2"),
    ],
)
def test_bad_csv_files(options, ham, content, expected, refused):
    (ham / "HAM10000_metadata.csv").write_bytes(content)
    refused(options, expected)


def test_two_csv_files_that_differ(options, ham, refused):
    (ham / "old").mkdir()
    (ham / "old" / "HAM10000_metadata.csv").write_text("image_id,lesion_id,dx\n")
    refused(options, "several metadata files that differ")


# -------------------------------------------------------------------------------------- bad images


def break_many(ham):
    """One fault of each kind, on images of different lesions."""
    one, two = ham / "HAM10000_images_part_1", ham / "HAM10000_images_part_2"
    (one / "ISIC_0000000.jpg").unlink()
    (one / "ISIC_0000004.jpg").unlink()
    (two / "ISIC_0000009.jpg").write_bytes(b"")
    (two / "ISIC_0000013.jpg").write_text("not an image at all, but long enough" * 20)
    cut = two / "ISIC_0000017.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    grey = two / "ISIC_0000021.jpg"
    Image.open(grey).convert("L").save(grey)
    (two / "ISIC_0000025.jpg").unlink()
    (two / "ISIC_0000025.jpg").mkdir()
    return ["0", "4", "9", "13", "17", "21", "25"]


def test_what_a_listing_can_tell_is_told_before_anything_is_decoded(options, ham, refused):
    break_many(ham)
    message = refused(options, "2 of 48 images cannot be used:\n  2 absent")
    assert "ISIC_0000000: absent\n  ISIC_0000004: absent" in message


def test_all_broken_images_are_told_at_once(options, ham, make_texture, refused):
    bad = break_many(ham)[2:]
    for number in (0, 4):
        path = ham / "HAM10000_images_part_1" / f"ISIC_{number:07d}.jpg"
        Image.fromarray(make_texture(number)).save(path)
    message = refused(options, "5 of 48 images cannot be used")
    assert all(f"ISIC_{int(number):07d}" in message for number in bad)
    for words in ("empty (0 bytes)", "damaged", "not a JPEG", "grayscale", "folder", "--on-error"):
        assert words in message


def test_skip_drops_and_counts(options, ham, capsys):
    bad = {f"ISIC_{int(number):07d}" for number in break_many(ham)}
    dataset = prepare(replace(options, on_error="skip"))
    ids = dataset.table["image_id"].tolist()
    assert set(ids) == {f"ISIC_{k:07d}" for k in range(48)} - bad
    assert {name for names in dataset.info.dropped.values() for name in names} == bad
    assert dataset.info.dropped["absent"] == ["ISIC_0000000", "ISIC_0000004"]
    path = ham / "HAM10000_images_part_1" / "ISIC_0000010.jpg"
    assert (
        dataset.images[ids.index("ISIC_0000010")] == decode(path, Preprocessing(64)).pixels
    ).all()
    assert "dropped: absent" in capsys.readouterr().out


def test_skip_cannot_save_a_dataset_without_images(options, ham, refused):
    for path in ham.rglob("*.jpg"):
        path.write_bytes(b"")
    message = refused(replace(options, on_error="skip"), "48 of 48 images cannot be used")
    assert "--on-error" not in message


def test_skip_may_leave_too_few_lesions(options, ham, refused):
    for number in range(10):  # five of eight melanoma lesions
        part = ham / f"HAM10000_images_part_{1 + number % 2}"
        (part / f"ISIC_{number:07d}.jpg").write_bytes(b"")
    refused(replace(options, on_error="skip"), "melanoma groups .* found 3")


def test_two_files_of_one_name_that_differ(options, ham, make_texture, refused):
    Image.fromarray(make_texture(99)).save(ham / "ISIC_0000000.png")
    refused(options, "ISIC_0000000: two files of this name that differ")
