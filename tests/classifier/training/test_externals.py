"""Images of an external set that the dataset has: refused by name, left out, or marked."""

import json

import numpy as np
import pandas as pd
import pytest

from classifier.options import TrainOptions
from classifier.run_folder import open_run
from classifier.train import train
from classifier.training import outputs, setup
from data.store import write_dataset
from dermsynth.errors import UserError
from dermsynth.options import replace

# of the first 12 images of `tiny`: four in the test part, four of fold 0, four of fold 1
MET = 12


@pytest.fixture
def far(tmp_path, make_table, make_images):
    """48 images, 24 malignant; the first 12 are files that `tiny` has, 6 of them malignant."""

    def write(met=MET, name="far"):
        targets = np.arange(48) % 2 == 0
        table = make_table(targets.astype(int), np.full(48, -1), seed=1)
        table["group"] = np.arange(48)
        table["lesion_id"] = ""
        table.loc[: met - 1, "sha256"] = [f"{0:032x}{row:032x}" for row in range(met)]
        return write_dataset(tmp_path / name, make_images(targets, 48, seed=1), table, {}).path

    return write


@pytest.fixture
def options(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)
    return replace(
        TrainOptions(),
        data=tiny.path,
        backbone="efficientnet-lite0",
        weights="none",
        size=32,
        epochs=1,
        batch=32,
        device="cpu",
        precision="fp32",
        tracking="none",
        out=tmp_path / "run",
    )


def test_overlap_with_any_part_is_refused_by_name(options, far):
    with pytest.raises(UserError) as error:
        setup.resolve(replace(options, external=(f"far={far()}",)))
    words = str(error.value)
    assert "12 of its 48 images overlap with" in words
    assert "12 same file (with 4 training, 4 validation, 4 test)" in words
    assert "s1-0000 (same file: s0-0000)" in words
    assert "--external-overlap leave-out scores the other 36" in words
    assert "\n" not in words


def test_a_test_fold_is_named_as_the_test_part(options, far, tmp_path, make_table, make_images):
    """What overlaps is the same whatever the split; the part is that of this training."""
    targets = np.arange(120) % 4 == 0
    table = make_table(targets.astype(int), np.repeat(np.arange(30) % 3, 4))
    data = write_dataset(tmp_path / "turn", make_images(targets, 32), table, {}).path
    for fold, test_fold, words in ((0, 1, "4 validation, 4 test"), (2, 0, "4 training, 4 valid")):
        turned = replace(options, data=data, fold=fold, test_fold=test_fold)
        with pytest.raises(UserError, match=f"12 same file .*{words}"):
            setup.resolve(replace(turned, external=(f"far={far(name=f'far{fold}')}",)))


def test_left_out_images_are_not_scored_and_are_counted(options, far, capsys):
    given = replace(options, external=(f"far={far()}",), external_overlap="leave-out")
    metrics = train(given)["external/far"]
    assert (metrics["n"], metrics["n_malignant"], metrics["left_out"]) == (36, 18, 12)
    rows = pd.read_parquet(options.run.out / "predictions.parquet").query("part == 'external/far'")
    assert rows["image_id"].tolist() == [f"s1-{row:04d}" for row in range(12, 48)]
    facts = json.loads((options.run.out / "run.json").read_text())
    assert facts["leaky"] is None
    assert facts["overlaps"]["far"] == {
        "left_out": True,
        "images": 12,
        "malignant": 6,
        "reasons": {"same file": 12},
        "parts": {"training": 4, "validation": 4, "test": 4},
        "equal_ids_of_other_sources": 0,
        "without_hash": 36,
        "dataset_without_hash": 120,
    }
    printed = capsys.readouterr().out
    assert "far: 36 images of" in printed
    assert "far: 12, 12 same file (with 4 training, 4 validation, 4 test)" in printed
    assert "no near-duplicates of them were sought" in printed
    open_run(options.run.out)  # every record is whole


def test_an_allowed_overlap_is_a_leak(options, far):
    """Which marks every output: tests/classifier/test_train.py."""
    given = replace(options, external=(f"far={far()}",), allow_leakage=True)
    found = setup.resolve(given)
    assert len(found.external_tests["far"].rows) == 48
    assert "12 of its 48 images overlap" in found.leak
    assert "LEAKY      --external far=" in outputs.describe(found)


def test_too_few_of_a_class_left_are_refused(options, far):
    given = replace(options, external=(f"far={far(met=30)}",), external_overlap="leave-out")
    with pytest.raises(UserError, match="leaves 9 of its 24 images that are malignant"):
        setup.resolve(given)


def test_the_option_without_a_set_is_refused(options):
    with pytest.raises(UserError, match="has an effect with --external only"):
        setup.resolve(replace(options, external_overlap="leave-out"))


def test_unlabelled_images_that_overlap_are_not_counted(options, far, tmp_path, make_images):
    """They are not scored anyway."""
    table = pd.read_parquet(far() / "table.parquet")
    table["target"] = table["target"].astype("UInt8").mask(table.index < MET)
    images = make_images(np.arange(48) % 2 == 0, 48, seed=1)
    bare = write_dataset(tmp_path / "bare", images, table, {}).path
    test = setup.resolve(replace(options, external=(f"far={bare}",))).external_tests["far"]
    assert (len(test.rows), test.overlap.images, test.leak) == (36, 0, None)
