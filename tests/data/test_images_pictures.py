"""What a folder of pictures holds: images, what lies beside them, and what is told as a fault."""

import numpy as np
import pytest
from PIL import Image

from data.images.pictures import NO_SUFFIX, find_pictures, is_mask


@pytest.fixture
def lay(tmp_path, make_texture):
    def write(*names, seed=0):
        for number, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                Image.fromarray(make_texture(seed + number)).save(file, "PNG")
        return tmp_path

    return write


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


@pytest.mark.parametrize(
    ("beside", "kind"),
    [
        ("ISIC_1_superpixels.png", "superpixels"),
        ("ISIC_1_segmentation.png", "masks"),
        ("isic_1_Segmentation.PNG", "masks"),
        ("ISIC_1_mask.bmp", "masks"),
        ("ISIC_1-mask-2.png", "masks"),
        ("ISIC_1_seg.png", "masks"),
        ("ISIC_1_lesion/ISIC_1_lesion.bmp", "masks"),
        ("ISIC_1_attribute_globules.png", "attribute maps"),
        ("ISIC_1_contour.png", "contours"),
        ("ISIC_1_roi.png", "regions"),
        ("ISIC_1_R1_Label3.bmp", "regions"),
        ("ISIC_1_thumb.jpg", "thumbnails"),
        ("small/ISIC_1_thumbnail.jpg", "thumbnails"),
        ("ISIC_1_overlay.png", "overlays"),
        ("masks/ISIC_1.png", "masks"),
        ("Ground Truth/ISIC_1.png", "masks"),
        ("HAM10000_segmentations_lesion_tschandl/ISIC_1.png", "masks"),
        ("superpixels/deep/ISIC_1.png", "superpixels"),
        ("annotations/ISIC_1.png", "overlays"),
    ],
)
def test_what_lies_beside_an_image_is_left_out_by_kind(lay, beside, kind):
    root = lay("images/ISIC_1.jpg", "images/ISIC_2.jpg", beside)
    found = find_pictures(root)
    assert names(found.images, root) == ["images/ISIC_1.jpg", "images/ISIC_2.jpg"]
    assert found.left_out == {kind: [root / beside]}
    assert found.notes() == [f"{kind} of 1 image (ignored)"]
    assert not found.bad


def test_without_its_image_a_picture_is_one_like_others(lay):
    every = ["ISIC_1_mask.png", "ISIC_2_lesion.jpg", "label_0/1.jpg", "masks/7.png", "x_roi.jpg"]
    root = lay(*every)
    found = find_pictures(root)
    assert names(found.images, root) == every
    assert found.notes() == []


def test_a_mask_of_the_same_name_in_the_same_folder_is_told_by_content(lay):
    root = lay("a/1.jpg", "a/2.jpg", "a/2.png", "b/1.jpg")
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 10:50] = 1
    Image.fromarray(mask).save(root / "a" / "1.png")
    found = find_pictures(root)
    assert names(found.images, root) == ["a/1.jpg", "a/2.jpg", "a/2.png", "b/1.jpg"]
    assert found.left_out == {"masks": [root / "a" / "1.png"]}
    assert root / "a" / "1.png" in find_pictures(root, by_content=False).images


@pytest.mark.parametrize("how", [("1", "PNG"), ("L", "JPEG"), ("RGB", "JPEG"), ("RGB", "TIFF")])
def test_masks_are_told_from_pictures(tmp_path, make_texture, how):
    mode, form = how
    mask = np.zeros((200, 300), np.uint8)
    mask[40:160, 80:220] = 255
    Image.fromarray(mask).convert(mode).save(tmp_path / "mask", form)
    assert is_mask(tmp_path / "mask")
    Image.fromarray(make_texture(0, 300, 200)).save(tmp_path / "picture", form)
    assert not is_mask(tmp_path / "picture")
    (tmp_path / "cut").write_bytes((tmp_path / "mask").read_bytes()[:60])
    assert not is_mask(tmp_path / "cut")


def test_pictures_of_no_or_other_suffixes_are_told(lay, tmp_path):
    root = lay("a/1.jpg", "a/IMG_2", "a/3.jpg_original", "a/1.jpg_original", "a/4.JPG1")
    (root / "a" / "notes.txt").write_bytes(b"\xff\xd8\xff" + bytes(200))
    (root / "a" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 50)
    (root / "a" / "5.gif").write_bytes(b"GIF89a" + bytes(200))
    (root / "a" / "6.HEIC").write_bytes(bytes(300))
    found = find_pictures(root)
    assert names(found.images, root) == ["a/1.jpg", "a/5.gif", "a/6.HEIC"]
    assert found.left_out == {"backups": [root / "a" / "1.jpg_original"]}
    told = {"a/IMG_2", "a/3.jpg_original", "a/4.JPG1"}
    assert {path.relative_to(root).as_posix() for path in found.bad} == told
    assert set(found.bad.values()) == {NO_SUFFIX}


def test_links_that_lead_out(lay, tmp_path):
    root = lay("root/1.jpg", "outside/2.jpg").joinpath("root")
    (root / "malignant").symlink_to(tmp_path / "outside")
    (root / "x").symlink_to(tmp_path / "outside" / "2.jpg")  # of no suffix: not even looked into
    found = find_pictures(root)
    assert names(found.images, root) == ["1.jpg"]
    assert list(found.bad) == [root / "malignant"]
    assert f"to the folder {tmp_path / 'outside'}; " in found.bad[root / "malignant"]
