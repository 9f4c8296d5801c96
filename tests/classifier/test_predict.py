import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from classifier.evaluation.calibration import scale
from classifier.evaluation.calls import call
from classifier.options import TrainOptions
from classifier.predict import PredictOptions, predict
from classifier.train import train
from classifier.trained import load_folds, load_trained
from classifier.training import outputs
from data.images.decoding import Preprocessing, decode
from data.store import Look, write_dataset
from dermsynth import cli
from dermsynth.errors import UserError
from dermsynth.options import ComputeOptions, replace


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)


@pytest.fixture(scope="module")
def settings():
    cpu = {"device": "cpu", "precision": "fp32", "tracking": "none"}
    small = {"backbone": "efficientnet-lite0", "size": 32, "frozen": 7, "batch": 16, "views": 2}
    return replace(TrainOptions(), **small, **cpu)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory, settings):
    """A finished run; tests must not change it."""
    out = tmp_path_factory.mktemp("cls") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "draw_plots", lambda *_: None)
        train(replace(settings, data=tiny.path, epochs=2, out=out))
    return out


@pytest.fixture
def options(run, tiny, tmp_path):
    out = tmp_path / "scores.csv"
    return PredictOptions(run, tiny.path, out, compute=ComputeOptions("cpu", "fp32"))


@pytest.fixture
def folder(tiny, tmp_path):
    """The dataset's images as files, the last ones in a folder below."""
    root = tmp_path / "images"
    (root / "more").mkdir(parents=True)
    names = tiny.table["image_id"]
    for number, (name, image) in enumerate(zip(names, tiny.images, strict=True)):
        place = root / "more" if number >= 100 else root
        cv2.imwrite(str(place / f"{name}.png"), image[..., ::-1])
    return root


def test_a_dataset_gets_the_scores_that_the_run_gave_it(options, run, tiny):
    rows = predict(options)
    written = pd.read_csv(options.out)
    pd.testing.assert_frame_equal(written, rows)
    assert list(written.columns) == ["image_name", "target"]
    assert written["image_name"].tolist() == tiny.table["image_id"].tolist()
    known = pd.read_parquet(run / "predictions.parquet").set_index("image_id")["score"]
    found = written.set_index("image_name")["target"][known.index]
    np.testing.assert_allclose(found, known, atol=1e-5)


def test_a_folder_of_the_same_images_gets_the_same_scores(options, folder):
    by_name = predict(options).set_index("image_name")["target"]
    rows = predict(dataclasses.replace(options, data=folder, overwrite=True))
    assert rows["image_name"].tolist() == sorted(rows["image_name"])
    assert rows["image_name"].str.startswith("more/").sum() == 20
    names = rows["image_name"].str.removeprefix("more/")
    np.testing.assert_allclose(rows["target"], by_name[names], atol=1e-6)


def test_files_are_cut_and_cleaned_as_the_training_images_were(
    tmp_path, make_images, options, tiny, settings, capsys
):
    """A run whose dataset was letterboxed shows a wide file letterboxed, wherever that lies now."""
    images = make_images(tiny.table["target"], 32)
    info = {"look": Look(size=32, fit="letterbox", clean=())}
    data = write_dataset(tmp_path / "boxed", images, tiny.table, info)
    other = tmp_path / "run"
    train(replace(settings, data=data.path, epochs=1, out=other))
    cut = {"look": Look(size=32, fit="crop", clean=())}
    write_dataset(data.path, images, tiny.table, cut, overwrite=True)
    wide = tmp_path / "wide"
    wide.mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite(str(wide / "one.png"), rng.integers(0, 256, (60, 120, 3), np.uint8))
    options = dataclasses.replace(options, run=other)
    found = predict(dataclasses.replace(options, data=wide))["target"].item()

    pixels = decode(wide / "one.png", Preprocessing(32, "letterbox")).pixels
    square = tmp_path / "square"
    square.mkdir()
    cv2.imwrite(str(square / "one.png"), pixels[..., ::-1])
    expected = dataclasses.replace(options, data=square, overwrite=True)
    assert found == pytest.approx(predict(expected)["target"].item(), abs=1e-6)
    predict(dataclasses.replace(options, data=data.path, overwrite=True))
    assert "with --fit crop, the images that the model was trained on with --fit letterbox" in (
        capsys.readouterr().out
    )


def test_eight_views_see_no_difference_between_an_image_and_its_mirror(options, tiny, tmp_path):
    rows = [predict(options)["target"]]
    for number, change in enumerate((lambda x: x, lambda x: x[:, :, ::-1], np.rot90)):
        images = tiny.images if number == 0 else change(np.asarray(tiny.images))
        if number == 2:
            images = np.stack([np.rot90(image) for image in tiny.images])
        data = write_dataset(
            tmp_path / f"data{number}", np.ascontiguousarray(images), tiny.table, {}
        )
        eight = dataclasses.replace(options, data=data.path, tta=8, overwrite=True)
        rows.append(predict(eight)["target"])
    np.testing.assert_allclose(rows[1], rows[2], atol=1e-5)
    np.testing.assert_allclose(rows[1], rows[3], atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3  # one view alone is another thing


def test_bad_input_is_told_in_one_line_and_nothing_is_written(options, run, folder, tmp_path):
    def refused(match, **changes):
        with pytest.raises(UserError, match=match):
            predict(dataclasses.replace(options, **changes))

    refused("--tta 0: expected a whole number from 1", tta=0)
    refused("no finished run", run=tmp_path)
    refused("no such file or folder", data=tmp_path / "no")
    (tmp_path / "empty").mkdir()
    refused("no images there", data=tmp_path / "empty")
    (folder / "bad.jpg").write_bytes(b"not a picture")
    (folder / "cut.png").write_bytes((folder / "s0-0001.png").read_bytes()[:300])
    refused(r"2 of 122 images cannot be used(.|\n)*bad.jpg(.|\n)*cut.png", data=folder)
    (folder / "bad.jpg").unlink()
    shutil.copy(folder / "s0-0002.png", folder / "cut.png")
    shutil.copy(folder / "s0-0002.png", folder / "cut.PNG")
    refused("several files of one name: cut", data=folder)
    damaged = shutil.copytree(run, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"0" * 100)
    refused("model.safetensors: it is not what was written", run=damaged)
    (damaged / "model.safetensors").unlink()
    refused("model.safetensors: cannot be read", run=damaged)
    refused("a folder of that name exists", out=tmp_path)
    refused("expected the name of a file", out=Path())
    assert not options.out.exists()
    options.out.write_text("mine")
    refused("exists already")
    assert options.out.read_text() == "mine"


def test_images_that_cannot_be_read_are_listed_and_the_others_scored(options, folder, capsys):
    dataset = options.data
    options = dataclasses.replace(options, data=folder)
    all_good = predict(options).set_index("image_name")["target"]
    listed = options.out.with_suffix(".skipped.csv")
    assert not listed.exists()
    (folder / "bad.jpg").write_bytes(b"not a picture")
    (folder / "moved.JPG_").write_bytes((folder / "s0-0001.png").read_bytes())
    (folder / "old.gif").write_bytes(b"GIF89a" + bytes(200))
    with pytest.raises(UserError, match=r"3 of 123 images cannot be used(.|\n)*--on-error skip"):
        predict(dataclasses.replace(options, overwrite=True))
    skip = dataclasses.replace(options, on_error="skip", overwrite=True)
    scored = predict(skip).set_index("image_name")["target"]
    np.testing.assert_allclose(scored, all_good.loc[scored.index], atol=1e-6)
    assert len(scored) == 120
    rows = pd.read_csv(listed)
    assert [Path(name).name for name in rows["image"]] == ["moved.JPG_", "bad.jpg", "old.gif"]
    assert rows["reason"][2].startswith("a GIF image")
    told = capsys.readouterr().out
    assert "3 of 123 images cannot be used" in told
    assert str(listed) in told
    for name in ("bad.jpg", "moved.JPG_", "old.gif"):
        (folder / name).unlink()
    predict(skip)
    assert not listed.exists()  # a list of another folder's would mislead
    only = folder.parent / "only"
    only.mkdir()
    (only / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(500))
    with pytest.raises(UserError, match="1 of 1 image cannot be used"):
        predict(dataclasses.replace(skip, data=only))
    with pytest.raises(UserError, match=r"--on-error skip: .* is a prepared dataset"):
        predict(dataclasses.replace(skip, data=dataset))


def test_masks_and_their_like_are_counted_and_not_scored(options, folder, capsys):
    """The folders of ISIC 2017's test images, of HAM10000's segmentations, of a Mac."""
    for number, path in enumerate(sorted(folder.glob("*.png"))):
        shutil.copy(path, folder / f"{path.stem}_superpixels.png")
        if number < 7:
            (folder / "masks").mkdir(exist_ok=True)
            cv2.imwrite(str(folder / "masks" / path.name), np.zeros((40, 40), np.uint8))
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._s0-0001.png").write_bytes(b"\0\5\x16\7" + bytes(200))
    (folder / "LICENSE.txt").write_text("x")
    rows = predict(dataclasses.replace(options, data=folder))
    assert len(rows) == 120
    assert not rows["image_name"].str.contains("superpixels|masks").any()
    told = capsys.readouterr().out
    assert "masks of 7 images, superpixels of 100 images (ignored)" in told


def test_one_image_file(options, folder, tmp_path):
    whole = predict(dataclasses.replace(options, data=folder)).set_index("image_name")
    file = next(folder.glob("*.png"))
    one = predict(dataclasses.replace(options, data=file, out=tmp_path / "one.csv"))
    assert one["image_name"].tolist() == [file.stem]
    assert one["target"].item() == pytest.approx(whole.loc[file.stem, "target"], abs=1e-5)


@pytest.mark.parametrize("at", ["youden", "sensitivity_95", "specificity_95"])
def test_calls_are_those_of_the_stored_threshold(options, run, at):
    scores = predict(dataclasses.replace(options, at=at))
    about = load_trained(run).about
    calls = pd.read_csv(options.out.with_suffix(".calls.csv"))
    assert calls["image_name"].tolist() == scores["image_name"].tolist()
    over = scores["target"] >= getattr(about.thresholds, at)
    assert (calls["call"] == np.where(over, "malignant", "not malignant")).all()
    scaled = scale(scores["target"].to_numpy(), about.temperature)
    np.testing.assert_allclose(calls["probability"], scaled, atol=1e-6)


def test_without_a_threshold_there_are_no_calls(run):
    (model,) = load_folds(run)
    bare = model.decisions.model_copy(update={"thresholds": None})
    found = call(np.zeros((1, 3)), [dataclasses.replace(model, decisions=bare)], "youden")
    assert found is None


def test_the_command_line(options, capsys, monkeypatch):
    words = ["--run", str(options.run), "--data", str(options.data), "--out", str(options.out)]
    monkeypatch.setattr("sys.argv", ["predict", *words])
    cli.run(PredictOptions, predict, "classifier.predict", "")
    assert "120 rows" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.run(PredictOptions, predict, "classifier.predict", "")
    assert stop.value.code == 2
