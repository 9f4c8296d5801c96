"""A classifier on untouched files sees what it sees on stored images."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from classifier.options import TrainOptions
from classifier.train import train
from data.prepare import PrepareOptions, prepare
from dermsynth.options import replace


@pytest.fixture
def folder(tiny, tmp_path):
    """The tiny dataset as files: benign/ and malignant/, two images of each lesion in a CSV."""
    root = tmp_path / "files"
    root.mkdir()
    rows = []
    for image, row in zip(tiny.images, tiny.table.itertuples(), strict=True):
        Image.fromarray(image).resize((64, 64), Image.Resampling.NEAREST).save(
            root / f"{row.image_id}.png"
        )
        rows.append([row.image_id, row.target, row.Index // 2])
    columns = ["image_id", "target", "patient_id"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "labels.csv", index=False)
    return root


@pytest.mark.slow
def test_native_and_stored_give_the_same_run(folder, tmp_path):
    options = replace(PrepareOptions(), source="folder", root=(folder,), size=64, folds=3)
    stored = prepare(replace(options, out=tmp_path / "stored"))
    native = prepare(replace(options, out=tmp_path / "n", size="native"))
    assert native.folds_hash == stored.folds_hash
    predictions = {}
    for dataset in (stored, native):
        run = tmp_path / f"run-{dataset.path.name}"
        common = {"backbone": "efficientnet-lite0", "weights": "none", "frozen": 3, "size": 64}
        small = {"epochs": 1, "batch": 16, "views": 1, "tracking": "none", "device": "cpu"}
        train(replace(TrainOptions(), data=dataset.path, out=run, **common, **small))
        predictions[dataset.path.name] = pd.read_parquet(run / "predictions.parquet")
    first, second = predictions.values()
    assert first["image_id"].tolist() == second["image_id"].tolist()
    np.testing.assert_array_equal(first["score"], second["score"])
