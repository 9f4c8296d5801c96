"""Public data sets as they are downloaded: every image, its target, its lesion, by one command."""

import warnings

import layouts
import numpy as np
import pytest

from data.images.decoding import Preprocessing, decode
from data.prepare import PrepareOptions, prepare
from data.sources import read_source
from data.sources.listing import SourceOptions
from dermsynth.errors import UserError
from dermsynth.options import replace

# layout, source, images, ones, zeros, lesions, patients, meaning of 1, files that no row names
EXPECTED = [
    ("isic2016", "isic2016", 50, 13, 37, 0, 0, "malignant", 0),
    ("isic2017", "isic2017", 56, 14, 42, 0, 0, "melanoma", 0),
    ("isic2018", "isic2018", 56, 8, 48, 28, 0, "melanoma", 0),
    ("isic2024", "isic2024", 40, 20, 20, 0, 20, "malignant", 0),
    ("milk10k", "milk10k", 88, 8, 80, 44, 0, "melanoma", 0),
    ("bcn20000", "bcn20000", 48, 6, 42, 24, 0, "melanoma", 0),
    ("pad_ufes_20", "pad-ufes-20", 48, 8, 40, 24, 12, "melanoma", 0),
    ("derm7pt", "derm7pt", 60, 24, 36, 60, 0, "melanoma", 60),
    ("fitzpatrick17k", "fitzpatrick17k", 48, 24, 24, 0, 0, "melanoma", 0),
    ("ddi", "ddi", 40, 20, 20, 0, 0, "malignant", 0),
    ("ph2", "ph2", 30, 10, 20, 0, 0, "melanoma", 0),
    ("dermamnist", "dermamnist", 42, 6, 36, 0, 0, "melanoma", 0),
    ("mednode", "folder", 30, 10, 20, 0, 0, "melanoma", 0),
    ("kaggle_ham10000", "ham10000", 56, 8, 48, 28, 0, "melanoma", 0),
    ("isic_cli", "isic-archive", 36, 24, 12, 0, 36, "malignant", 0),
]


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: case[0])
def test_as_downloaded(case, tmp_path):
    name, source, images, ones, zeros, lesions, patients, one, unlisted = case
    listing = read_source(source, getattr(layouts, name)(tmp_path / "r"), SourceOptions())
    table = listing.table.iloc[[row for row, file in enumerate(listing.files) if file]]
    assert len(table) == images
    assert (table["target"] == 1).sum() == ones
    assert (table["target"] == 0).sum() == zeros
    assert table["lesion_id"].nunique() == lesions
    assert table["patient_id"].nunique() == patients
    assert listing.meaning.one == one
    assert listing.unlisted == unlisted
    assert not listing.faults
    assert listing.facts["licence"]
    if one == "melanoma":
        assert (table["target"] == (table["diagnosis"] == "mel")).all()


@pytest.mark.parametrize(
    ("name", "source", "melanomas"),
    [("isic2024", "isic2024", 10), ("ddi", "ddi", 15), ("isic_cli", "isic-archive", 12)],
)
def test_melanoma_where_the_target_is_any_cancer(name, source, melanomas, tmp_path):
    root = getattr(layouts, name)(tmp_path / "r")
    listing = read_source(source, root, SourceOptions(positive=("mel",)))
    assert (listing.table["target"] == 1).sum() == melanomas
    assert (listing.meaning.one, listing.meaning.zero) == ("melanoma", "not melanoma")


def test_a_whole_dataset(tmp_path, capsys):
    """From the download to the table, the unlabelled test part without images left out and told."""
    ask = replace(
        PrepareOptions(),
        source="bcn20000",
        root=(layouts.bcn20000(tmp_path / "r"),),
        out=tmp_path / "d",
        size=32,
        folds=2,
    )
    dataset = prepare(ask)
    assert len(dataset.table) == 48
    assert dataset.info.target.one == "melanoma"
    assert dataset.info.dropped["neither label nor image"] == ["BCN_0000099999"]
    assert "neither label nor image" in capsys.readouterr().out


def test_hdf5_has_the_pictures_of_the_folders(tmp_path):
    packed = read_source("isic2024", layouts.isic2024(tmp_path / "h", packed=True), SourceOptions())
    loose = read_source("isic2024", layouts.isic2024(tmp_path / "j"), SourceOptions())
    assert packed.table["image_id"].tolist() == loose.table["image_id"].tolist()
    how = Preprocessing(32)
    for one, other in zip(packed.files, loose.files, strict=True):
        assert (one is None) == (other is None)
        if one:
            assert (decode(one, how).pixels == decode(other, how).pixels).all()


def test_hdf5_that_is_none(tmp_path):
    root = layouts.isic2024(tmp_path / "h", packed=True)
    (root / "train-image.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 2000)
    with pytest.raises(UserError, match=r"train-image\.hdf5: not an HDF5 file, or damaged"):
        read_source("isic2024", root, SourceOptions())


def test_dermamnist_has_its_own_pixels(tmp_path):
    root = layouts.dermamnist(tmp_path / "r")
    listing = read_source("dermamnist", root, SourceOptions())
    with np.load(root / "dermamnist_64.npz") as file:
        images = file["val_images"]
    row = listing.table["image_id"].tolist().index("val_00003")
    assert (decode(listing.files[row], Preprocessing(64)).pixels == images[3]).all()


def test_dermamnist_of_28_px_is_refused(tmp_path):
    layouts.dermamnist(tmp_path / "r", side=28)
    with pytest.raises(UserError, match=r"images of 28 px.*dermamnist_128\.npz"):
        read_source("dermamnist", tmp_path / "r", SourceOptions())


def test_isic2018_without_its_lesions(tmp_path):
    """As re-uploads have it: with HAM10000's own table beside it the lesions come back."""
    root = layouts.isic2018(tmp_path / "r", groupings=False)
    assert read_source("isic2018", root, SourceOptions()).table["lesion_id"].isna().all()
    rows = [f"HAM_{i // 2},{layouts.isic(i)},nv,histo,45,male,back" for i in range(56)]
    head = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    layouts.write(root / "HAM10000_metadata.csv", [head, *rows])
    assert read_source("isic2018", root, SourceOptions()).table["lesion_id"].nunique() == 28


@pytest.mark.parametrize("source", ["isic2016", "milk10k", "ph2", "dermamnist", "derm7pt"])
def test_what_is_not_there_is_named(source, tmp_path):
    layouts.mednode(tmp_path / "r")
    with pytest.raises(UserError, match=r"it comes with the images|expected one"):
        read_source(source, tmp_path / "r", SourceOptions())


def test_tables_of_one_class_of_a_download_disagree(tmp_path):
    root = layouts.milk10k(tmp_path / "r")
    path = root / "MILK10k_Training_GroundTruth.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("0.0", "1.0", 1)
    layouts.write(path, lines)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        listing = read_source("milk10k", root, SourceOptions())
    assert [fault.reason for fault in listing.faults] == [
        "ground truth is not 1 in one column and 0 in the others"
    ]
