"""Which file is the image of which row, as tables and folders of others have them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.sources.listing import Fault
from data.sources.matching import ALIKE, DIFFER, OUTSIDE, match
from dermsynth.errors import UserError


@pytest.fixture
def lay(tmp_path, make_texture):
    """Write pictures below a root, each another one, by their paths there."""
    root = tmp_path / "root"

    def write(*names, seed=0):
        for number, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                Image.fromarray(make_texture(seed + number)).save(file, "PNG")
        return root

    return write


def find(root, cells, ids=None):
    """The files that `match` finds for cells, by row, as paths below the root; and its faults."""
    ids = ids or [f"{row:03d}" for row in range(len(cells))]
    faults: list[Fault] = []
    table = pd.DataFrame({"image_id": ids, "file": cells}, dtype=object)
    matched = match(root, table, faults)
    found = dict.fromkeys(ids)
    for name, file in zip(matched.table["image_id"], matched.files, strict=True):
        found[name] = str(file.relative_to(root)) if file else None
    bad = {fault.image_id: fault.reason for fault in faults}
    assert set(bad).isdisjoint(matched.table["image_id"])
    return [bad.get(name, found[name]) for name in ids], (matched.unlisted, matched.copies)


@pytest.mark.parametrize(
    ("cell", "file", "note"),
    [
        ("images/ISIC_1.jpg", "images/ISIC_1.jpg", ""),
        ("ISIC_1", "images/part/ISIC_1.jpg", ""),
        ("images\\ISIC_1.jpg", "images/ISIC_1.jpg", ""),
        ("./images/ISIC_1.jpg", "images/ISIC_1.jpg", ""),
        ("C:\\Users\\me\\HAM\\images\\ISIC_1.jpg", "images/ISIC_1.jpg", ""),
        ("/home/someone/HAM/images/ISIC_1.jpg", "images/ISIC_1.jpg", ""),
        ("images/ISIC_1.jpg", "images/part_1/ISIC_1.jpg", ""),
        ("C:\\Users\\me\\HAM\\ISIC_1.jpg", "images/ISIC_1.jpg", "by name alone"),
        ("IMG_0001.JPG", "img_0001.jpg", "in other letters"),
        ("Images/IMG_0001.JPG", "images/img_0001.jpg", "in other letters"),
        ("l\u00e9sion_1.jpg", "le\u0301sion_1.jpg", "in other letters"),
        ("ISIC_1.jpg", "ISIC_1.jpg.jpg", "a second suffix"),
        ("ISIC_1.jpg.jpg", "ISIC_1.jpg.jpg", ""),
        ("1", "000001.png", "zeros in front"),
        ("1.png", "a/000001.png", "zeros in front"),
        ("p.1.2.jpg", "p.1.2.jpg", ""),
        ("Patient 1 left arm.jpg", "Patient 1 left arm.jpg", ""),
        ("1.jfif", "1.jfif", ""),
        ("ISIC_1", "ISIC_1_downsampled.jpg", ""),
    ],
)
def test_a_cell_and_its_file(lay, capsys, cell, file, note):
    found, rest = find(lay(file, "other.png"), [cell])
    assert found == [file]
    assert rest == (1, 0)
    told = capsys.readouterr().out
    assert told.startswith("note: 1 image below ") if note else not told
    assert note in told


def test_names_that_are_equal_in_different_folders_are_told_by_their_folders(lay):
    root = lay("benign/1.jpg", "malignant/1.jpg", "malignant/2.jpg")
    cells = ["benign/1.jpg", "malignant/1.jpg", "benign\\2.jpg"]
    found, _ = find(root, cells)
    assert found == ["benign/1.jpg", "malignant/1.jpg", None]  # not the 2 of another folder
    assert find(root, ["1.jpg", "2"])[0] == [DIFFER, "malignant/2.jpg"]


def test_the_longest_tail_of_a_path_counts(lay):
    root = lay("a/x/1.jpg", "b/x/1.jpg", "x/1.jpg")
    assert find(root, ["D:/all/b/x/1.jpg"])[0] == ["b/x/1.jpg"]
    assert find(root, ["somewhere/x/1.jpg"])[0] == [DIFFER]


def test_no_path_leads_out_of_the_root(lay, tmp_path, make_texture):
    root = lay("1.png", "2.png", "3.png")
    outside = tmp_path / "secret" / "1.png"
    outside.parent.mkdir()
    shutil.copy(root / "3.png", outside)
    cells = ["../secret/1.png", str(outside), "x\\..\\..\\1.png", str(root / "2.png"), "/3.png"]
    found, _ = find(root, cells)
    assert found == [OUTSIDE, OUTSIDE, OUTSIDE, "2.png", "3.png"]


def test_two_files_that_fold_to_one_name_clash_unless_the_row_spells_one_out(lay):
    root = lay("IMG_1.jpg", "img_1.jpg")
    assert find(root, ["Img_1"])[0] == [DIFFER]
    assert find(root, ["IMG_1.jpg", "img_1.jpg"])[0] == ["IMG_1.jpg", "img_1.jpg"]


def test_zeros_come_back_only_where_one_file_can_be_meant(lay):
    assert find(lay("01.png", "001.png", "7.png"), ["1", "7"])[0] == [None, "7.png"]


def test_one_file_is_not_two_rows(lay):
    root = lay("a.jpg", "07.png", "b.jpg")
    assert find(root, ["A", "a"])[0] == [None, "a.jpg"]
    assert find(root, ["7", "007", "b"])[0] == [ALIKE, ALIKE, "b.jpg"]


def test_second_copies_are_one_file(lay):
    root = lay("part_1/1.png", "part_1/2.png")
    shutil.copytree(root / "part_1", root / "all")
    found, rest = find(root, ["1"])
    assert found == ["all/1.png"]
    assert rest == (1, 2)
    assert find(root, ["part_1/1.png"])[0] == ["part_1/1.png"]


# ----------------------------------------------------------------------- masks and their like


def test_masks_in_a_folder_of_their_own_do_not_block_their_images(lay, capsys):
    names = [f"ISIC_{k}" for k in range(5)]
    root = lay(*(f"images/{name}.jpg" for name in names))
    lay(*(f"ISIC2018_Task1_GroundTruth/{name}.png" for name in [*names, "ISIC_9"]), seed=50)
    found, rest = find(root, [*names, "ISIC_9"])
    assert found == [*(f"images/{name}.jpg" for name in names), None]  # no mask for an image
    assert rest == (0, 0)
    assert "masks of 6 images (ignored)" in capsys.readouterr().out
    assert find(root, ["ISIC2018_Task1_GroundTruth/ISIC_9.png"])[0] == [
        "ISIC2018_Task1_GroundTruth/ISIC_9.png"  # said in so many words
    ]


def test_the_suffix_in_the_table_decides_between_files_of_one_name(lay):
    root = lay("a/1.jpg", "b/1.png")
    assert find(root, ["1.jpg"])[0] == ["a/1.jpg"]
    assert find(root, ["1.PNG"])[0] == ["b/1.png"]
    assert find(root, ["1"])[0] == [DIFFER]


def test_else_the_content_tells_a_mask(lay, capsys):
    root = lay("a/1.jpg", "a/2.jpg")
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40] = 255
    (root / "b").mkdir()
    Image.fromarray(mask).convert("1").save(root / "b" / "1.png")
    Image.fromarray(mask).convert("RGB").save(root / "b" / "2.jpg", quality=80)
    found, rest = find(root, ["1", "2"])
    assert found == ["a/1.jpg", "a/2.jpg"]
    assert rest == (0, 0)
    assert "masks of 2 images (ignored)" in capsys.readouterr().out


def test_superpixels_are_counted_and_what_a_row_names_is_an_image(lay, capsys):
    root = lay("1.jpg", "1_superpixels.png", "2.jpg", "2_superpixels.png", "3_lesion.bmp")
    lay("2_lesion.jpg", seed=70)
    found, rest = find(root, ["1", "2", "3_lesion", "2_lesion"])
    assert found == ["1.jpg", "2.jpg", "3_lesion.bmp", "2_lesion.jpg"]
    assert rest == (0, 0)
    told = capsys.readouterr().out
    assert "superpixels of 2 images (ignored)" in told
    assert "masks" not in told


# ------------------------------------------------------------------------------- what is absent


def test_links_to_a_shared_disk_say_where_they_lead(lay, tmp_path, capsys):
    root = lay("1.jpg")
    shared = tmp_path / "shared disk"
    shared.mkdir()
    (root / "part").symlink_to(shared)
    assert find(root, ["1", "2"])[0] == ["1.jpg", None]
    told = capsys.readouterr().out
    assert f"part is a link that leads out of the folder, to the folder {shared}" in told
    with pytest.raises(UserError, match=rf"none of them below it .*to the folder {shared}"):
        find(root, ["8", "9"])


def test_files_of_the_names_that_are_no_pictures_are_told(lay, capsys):
    root = lay("1.jpg")
    (root / "2.xyz").write_bytes(bytes(500))
    assert find(root, ["1", "2"])[0] == ["1.jpg", None]
    assert "1 file of such a name, but no picture (2.xyz)" in capsys.readouterr().out


def test_pictures_that_are_not_read_are_found_and_refused_later(lay):
    root = lay("1.jpg")
    (root / "2.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(500))
    (root / "3.GIF").write_bytes(b"GIF89a" + bytes(500))
    assert find(root, ["1", "2", "3"])[0] == ["1.jpg", "2.heic", "3.GIF"]


def test_a_table_without_files_goes_by_image_id(lay):
    root = lay("a/1.jpg")
    table = pd.DataFrame({"image_id": ["1"]})
    files = match(root, table, []).files
    assert files == [root / "a" / "1.jpg"]
    assert os.fspath(files[0]) == str(Path(root, "a", "1.jpg"))


def test_a_format_that_is_not_read_beside_one_that_is(lay, capsys):
    """SIIM 2020 of Kaggle: train/x.dcm beside jpeg/train/x.jpg."""
    root = lay("jpeg/train/x.jpg", "jpeg/train/y.jpg")
    (root / "train").mkdir()
    for name in ("x", "y"):
        (root / "train" / f"{name}.dcm").write_bytes(b"\0" * 128 + b"DICM" + name.encode())
    found, (unlisted, copies) = find(root, ["x", "y"])
    assert found == ["jpeg/train/x.jpg", "jpeg/train/y.jpg"]
    assert (unlisted, copies) == (0, 0)
    assert "files of other formats of 2 images (ignored)" in capsys.readouterr().out
