"""Tables of one's own: joined, one column a class, and the ways of spreadsheets."""

import shutil
import subprocess
from pathlib import Path

import layouts
import pytest

from data.sources import read_source
from data.sources.listing import SourceOptions
from dermsynth.errors import UserError


def table(root: Path, name: str, *lines: str, encoding: str = "utf-8") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def read(root, *tables, **options):
    options.setdefault("tables_only", True)
    return read_source("folder", root, SourceOptions(tables=tables, **options))


def cells(listing, *columns):
    rows = listing.table[["image_id", *columns]].astype(object)
    return rows.where(rows.notna(), None).values.tolist()


# ------------------------------------------------------------------------------------- joined


def test_several_tables_are_named_with_their_columns(tmp_path):
    table(tmp_path, "a.csv", "image,target", "x,0")
    table(tmp_path, "b/b.csv", "image,patient_id", "x,P")
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert f"--table {tmp_path / 'a.csv'}   (image, target)" in str(caught.value)
    assert f"--table {tmp_path / 'b/b.csv'}   (image, patient_id)" in str(caught.value)


def test_tables_are_joined_on_the_image(tmp_path):
    one = table(tmp_path, "a.csv", "image,target", "x.jpg,0", "y.jpg,1", "z.jpg,0")
    two = table(
        tmp_path, "b.csv", "Image_ID;patient_id;age", "images/X;P1;55,5", "y;P2;40", "w;P3;1"
    )
    listing = read(tmp_path, one, two)
    assert cells(listing, "target", "patient_id", "age") == [
        ["w", None, "P3", 1.0],
        ["x", 0, "P1", 55.5],
        ["y", 1, "P2", 40.0],
        ["z", 0, None, None],
    ]


def test_tables_of_equal_columns_are_read_one_below_the_other(tmp_path):
    one = table(tmp_path, "a.csv", "image,dx", "x,mel", "y,nv")
    two = table(tmp_path, "b.csv", "dx,image", "nv,z", "nv,y")
    listing = read(tmp_path, one, two)
    assert cells(listing, "target") == [["x", 1], ["y", 0], ["z", 0]]
    assert listing.facts["repeated_rows"] == 1


def test_tables_that_contradict(tmp_path):
    one = table(tmp_path, "a.csv", "image,dx,sex", "x,mel,male", "y,nv,male")
    two = table(tmp_path, "b.csv", "image,diagnosis,lesion_id", "x,Melanoma,L", "y,melanoma,M")
    listing = read(tmp_path, one, two)
    assert cells(listing, "target", "lesion_id") == [["x", 1, "L"]]
    assert [(f.image_id, f.reason) for f in listing.faults] == [
        ("y", "two tables differ in diagnosis")
    ]
    two = table(tmp_path, "b.csv", "image,lesion_id", "x,L", "x,M")
    with pytest.raises(UserError, match=r"b\.csv line 2, b\.csv line 3: x has rows that differ"):
        read(tmp_path, one, two)


def test_class_folders_with_a_table_of_patients(tmp_path):
    for name, folder in (("x", "mel"), ("y", "nv"), ("z", "nv")):
        layouts.save(tmp_path / folder / f"{name}.jpg", ord(name))
    one = table(tmp_path, "who.csv", "image,patient", "x,P1", "y,P2", "q,P3")
    listing = read(tmp_path, one, tables_only=False)
    assert cells(listing, "target", "patient_id") == [
        ["x", 1, "P1"],
        ["y", 0, "P2"],
        ["z", 0, None],
    ]
    assert all(listing.files)


def test_two_images_of_one_name_in_two_class_folders_are_two(tmp_path):
    for folder in ("mel", "nv"):
        layouts.save(tmp_path / folder / "x.jpg", len(folder))
    one = table(tmp_path, "who.csv", "image,patient", "x,P1")
    assert len(read(tmp_path, one, tables_only=False).table) == 2


def test_a_column_that_no_table_has(tmp_path):
    one = table(tmp_path, "a.csv", "image,dx", "x,mel")
    two = table(tmp_path, "b.csv", "image,patient", "x,P")
    with pytest.raises(UserError, match="--group-column clinic: none of the tables has it"):
        read(tmp_path, one, two, group_column="clinic")


# ------------------------------------------------------------------------------ one column a class


def test_one_column_a_class(tmp_path):
    head = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC,UNK"
    one = table(
        tmp_path, "a.csv", head, "x,1,0,0,0,0,0,0,0", "y,0,1,0,0,0,0,0,0", "z,0,0,0,0,0,0,0,1"
    )
    listing = read(tmp_path)
    assert cells(listing, "target", "diagnosis") == [
        ["x", 1, "mel"],
        ["y", 0, "nv"],
        ["z", None, None],
    ]
    assert listing.meaning.one == "melanoma"
    assert cells(read(tmp_path, target_column="MEL"), "diagnosis")[1] == ["y", "nv"]
    assert cells(read(tmp_path, positive=("nv",)), "target") == [["x", 0], ["y", 1], ["z", None]]
    table(tmp_path, one.name, head, "x,1,1,0,0,0,0,0,0")
    with pytest.raises(UserError, match=r"a\.csv line 2: MEL, .* 1 row has not exactly one 1"):
        read(tmp_path)


def test_two_columns_of_many_classes(tmp_path):
    """ISIC 2017: what is neither is another diagnosis, of which no more is known."""
    table(
        tmp_path,
        "a.csv",
        "image_id,melanoma,seborrheic_keratosis",
        "x,1.0,0.0",
        "y,0.0,0.0",
        "z,0,1",
    )
    assert cells(read(tmp_path), "target", "diagnosis") == [
        ["x", 1, "mel"],
        ["y", 0, None],
        ["z", 0, "bkl"],
    ]


# ------------------------------------------------------------------------------ spreadsheets


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["sep=;", "image;target;age", "x;1,0;55,5", "y;0,0;60"], [["x", 1, 55.5], ["y", 0, 60.0]]),
        (['"sep=,"', "image,target,age", "x,ja,55", "y,nein,60"], [["x", 1, 55.0], ["y", 0, 60.0]]),
        (["image;target;age", "x;positive;85+", "y;negative;"], [["x", 1, 85.0], ["y", 0, None]]),
        (["image\ttarget\tage", "x\tTRUE\t1", "y\tFALSE\t2"], [["x", 1, 1.0], ["y", 0, 2.0]]),
        (["image,target,age,,", "x,oui,1,,", ",,,,", "y,non,2,,"], [["x", 1, 1.0], ["y", 0, 2.0]]),
        (["image,target,age", "x,bösartig,1", "y,gutartig,2"], [["x", 1, 1.0], ["y", 0, 2.0]]),
    ],
)
def test_the_ways_of_spreadsheets(lines, expected, tmp_path):
    table(tmp_path, "a.csv", *lines)
    assert cells(read(tmp_path), "target", "age") == expected


def test_lost_zeros(tmp_path, capsys):
    for number in range(4):
        layouts.save(tmp_path / f"{number:06d}.png", number)
    table(tmp_path, "a.csv", "image,target", *[f"{number},{number % 2}" for number in range(4)])
    listing = read(tmp_path, tables_only=False)
    assert [file.path.stem for file in listing.files] == [f"{n:06d}" for n in range(4)]
    assert "4 images below" in capsys.readouterr().out


@pytest.mark.parametrize("first", ["ISIC_0000000,benign", "a.jpg,1", "17,0"])
def test_no_header(first, tmp_path):
    path = table(tmp_path, "a.csv", first, "ISIC_0000001,malignant")
    with pytest.raises(
        UserError, match=r"its first line is no header but a row .*: sed -i '1i image"
    ) as e:
        read(tmp_path)
    command = str(e.value).partition("such as: ")[2]
    if shutil.which("sed"):
        subprocess.run(command, shell=True, check=True)
        assert path.read_text().startswith("image,target\n")


def test_a_header_that_comes_again(tmp_path, capsys):
    table(tmp_path, "a.csv", "image,target", "x,1", "image,target", "y,0")
    assert cells(read(tmp_path), "target") == [["x", 1], ["y", 0]]
    assert "the header is there 2 times" in capsys.readouterr().out


# ------------------------------------------------------------------------------ class folders


def test_class_folders_one_level_down(tmp_path, capsys):
    for part in ("train", "test"):
        for name in ("benign", "malignant"):
            layouts.save(tmp_path / "archive" / part / name / f"{part}{name}.jpg", len(part + name))
    listing = read(tmp_path, tables_only=False)
    assert listing.table["target"].tolist() == [0, 1, 0, 1]
    assert "test, train below" in capsys.readouterr().out


def test_class_folders_that_are_numbers(tmp_path):
    for number in range(3):
        layouts.save(tmp_path / str(number) / f"{number}.jpg", number)
    with pytest.raises(UserError, match=r"class folders are numbers \(0, 1, 2\); rename"):
        read(tmp_path, tables_only=False)


def test_what_it_looks_like_is_said(tmp_path):
    table(tmp_path, "MILK10k_Training_Metadata.csv", "lesion_id,isic_id", "l,a")
    table(
        tmp_path,
        "MILK10k_Training_GroundTruth.csv",
        "lesion_id,AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC",
        "l,1,0,0,0,0,0,0,0,0,0,0",
    )
    with pytest.raises(UserError, match="this looks like milk10k: --source milk10k"):
        read(tmp_path)
