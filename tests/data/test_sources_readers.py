"""What each reader makes of good and of bad rows."""

import io
import os
import shutil

import numpy as np
import pytest

from data.images.files import RENAME
from data.sources import read_source
from data.sources.listing import SourceOptions
from dermsynth.errors import UserError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def put(root, **files):
    """Files by name ("__" is "/"; without a suffix: an image); words are written as they are."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path = path if "." in path.name else path.with_suffix(".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def csv(root, name, *lines):
    (root / name).write_text("\n".join(lines) + "\n")


def rows(listing, *columns):
    words = listing.table[list(columns)].astype(object)
    return words.where(words.notna(), None).to_numpy().tolist()


def faults(listing):
    return [(fault.image_id, fault.where, fault.reason) for fault in listing.faults]


# ------------------------------------------------------------------------------------ every source


def ham(root, *lines, header="image_id,lesion_id,dx,age"):
    csv(root, "HAM10000_metadata.csv", header, *lines)
    return read_source("ham10000", root, SourceOptions(tables_only=True))


GOOD = ("a,l1,mel,40", "b,l2,nv,")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["../../etc/passwd,l,nv,1"], ("../../etc/passwd", 4, "unsafe file name")),
        (["..,l,nv,1"], ("..", 4, "unsafe file name")),
        ([".hidden,l,nv,1"], (".hidden", 4, "unsafe file name")),
        (["x/../y.jpg,l,nv,1"], ("x/../y", 4, "unsafe file name")),
        (["x/.y.jpg,l,nv,1"], ("x/.y", 4, "unsafe file name")),
        (["x\u202egpj,l,nv,1"], ("x\\u202egpj", 4, "unsafe file name")),
        (["x" * 300 + ",l,nv,1"], ("x" * 200 + "...", 4, "unsafe file name")),
        ([".jpg,l,nv,1"], ("", 4, "image_id is empty")),
        ([",l,nv,1"], ("", 4, "image_id is empty")),
        (["x,l,,1"], ("x", 4, "dx is empty")),
        (["x,l,nv,old"], ("x", 4, "age is not a number of years from 0 to 120")),
        (["x,l,nv,-4"], ("x", 4, "age is not")),
        (["x,l,nv,inf"], ("x", 4, "age is not")),
        (["x,l,nv"], ("", 4, "number of cells is not that of the header")),
        (["x,l,nv,1,2"], ("", 4, "number of cells is not that of the header")),
    ],
)
def test_a_bad_row_is_left_out_and_named(root, lines, expected):
    listing = ham(root, *GOOD, *lines)
    assert rows(listing, "image_id", "target", "age") == [["a", 1.0, 40.0], ["b", 0.0, None]]
    (fault,) = listing.faults
    assert (fault.image_id, fault.where) == (
        expected[0],
        f"HAM10000_metadata.csv line {expected[1]}",
    )
    assert expected[2] in fault.reason


@pytest.mark.parametrize(
    ("again", "expected"),
    [
        ("x,l,mel,1", "conflicting targets for one image"),
        ("x,l,bkl,1", "image_id more than once"),
        ("x,l,nv,2", "image_id more than once"),
        ("x,m,mel,1", "image_id more than once"),
    ],
)
def test_an_image_named_twice_that_differs_is_left_out(root, again, expected):
    listing = ham(root, *GOOD, "x,l,nv,1", again, "x.jpg,l,nv,1")
    assert list(listing.table["image_id"]) == ["a", "b"]
    where = "HAM10000_metadata.csv line 4, HAM10000_metadata.csv line 5"
    assert faults(listing) == [("x", where, expected)]


def test_an_image_named_twice_alike_is_counted(root):
    listing = ham(root, *GOOD, *GOOD, "a.JPG,l1,melanoma,40.0")
    assert len(listing.table) == 2
    assert listing.facts["repeated_rows"] == 3
    assert not listing.faults


def test_rows_are_sorted_and_words_harmonised(root):
    listing = ham(
        root,
        "b,l1,MEL,85+,,Trunk,F",
        "a,l1,Scar,NaN,p7,unknown,x",
        "c,l2,unknown,5,n/a,foot,m",
        header="image_id,lesion_id,dx,age,patient_id,localization,sex",
    )
    columns = ("image_id", "diagnosis", "age", "patient_id", "site", "sex", "target", "source")
    assert rows(listing, *columns) == [
        ["a", "scar", None, "p7", None, "x", 0.0, "ham10000"],
        ["b", "mel", 85.0, None, "torso", "female", 1.0, "ham10000"],
        ["c", None, 5.0, None, "lower extremity", "male", None, "ham10000"],
    ]


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        (("xyz",), r"--positive xyz: no such diagnosis in .*mel \(1\), nv \(1\)"),
        (("mel", "xyz"), "--positive xyz"),
        (("bcc",), "--positive bcc: no such diagnosis"),
        ((), "--positive: empty"),
        (("nv", "bcc"), [0.0, 1.0]),
        (("Melanoma",), [1.0, 0.0]),
    ],
)
def test_positive(root, positive, expected):
    ham(root, *GOOD)
    ask = SourceOptions(tables_only=True, positive=positive)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            read_source("ham10000", root, ask)
    else:
        assert read_source("ham10000", root, ask).table["target"].tolist() == expected


def test_given_folds(root):
    csv(
        root,
        "HAM10000_metadata.csv",
        "image_id,lesion_id,dx,Fold",
        *("a,1,nv,0", "b,2,mel,-1", "c,3,nv,", "d,4,nv,x", "e,5,nv,1.5", "f,6,nv,inf"),
    )
    listing = read_source("ham10000", root, SourceOptions(tables_only=True, fold_column="fold"))
    assert rows(listing, "image_id", "given_fold") == [["a", 0.0], ["b", -1.0], ["c", None]]
    assert {fault.reason for fault in listing.faults} == {"fold is not a whole number"}
    with pytest.raises(UserError, match=r"no column part; it has image_id, lesion_id, dx, Fold"):
        read_source("ham10000", root, SourceOptions(tables_only=True, fold_column="part"))


# ------------------------------------------------------------------------------------------- files


def test_files_are_found_by_name_only(root, tmp_path):
    csv(root, "HAM10000_metadata.csv", "image_id,lesion_id,dx", *(f"{n},{n},mel" for n in "abcdef"))
    put(root, one__a="A", two__a="A", b="B", two__b="other", d_downsampled="D", z="Z")
    put(tmp_path, out__e="secret")
    (root / "e.jpg").symlink_to(tmp_path / "out" / "e.jpg")
    (root / "two" / "e.jpg").symlink_to(tmp_path / "out" / "e.jpg")
    (root / "f.PNG").write_text("F")
    listing = read_source("ham10000", root, SourceOptions())
    found = {
        name: file and str(file.path.relative_to(root))
        for name, file in zip(listing.table["image_id"], listing.files, strict=True)
    }
    assert found == {"a": "one/a.jpg", "c": None, "d": "d_downsampled.jpg", "f": "f.PNG"}
    reason = "two files of this name that differ"
    assert faults(listing) == [
        ("b", "b.jpg and two/b.jpg", reason),
        ("e", "e.jpg and two/e.jpg", reason),
    ]
    assert (listing.unlisted, listing.copies) == (1, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("images.zip", "unpack images.zip there first"),
        ("images.zip.part", "images.zip.part is an unfinished download"),
        ("images.tar.gz", "unpack images.tar.gz"),
        ("Unconfirmed.crdownload", "unfinished download"),
    ],
)
def test_half_downloaded(root, name, expected, capsys):
    put(root, **{name: "PK"})
    with pytest.raises(UserError, match=f"holds no images yet; .*{expected}"):
        read_source("ham10000", root, SourceOptions())
    with pytest.raises(UserError, match=f"a file; expected the folder .*{expected}"):
        read_source("ham10000", root / name, SourceOptions())
    csv(root, "HAM10000_metadata.csv", "image_id,lesion_id,dx", *GOOD[:1], "a,l,mel", "b,m,nv")
    with pytest.raises(UserError, match=f"2 images listed and none .*{expected}"):
        read_source("ham10000", root, SourceOptions())
    put(root, a="A")
    assert len(read_source("ham10000", root, SourceOptions()).table) == 2
    assert "1 of 2 images not below" in capsys.readouterr().out


def test_roots(root):
    with pytest.raises(UserError, match="needs --root"):
        read_source("siim2020", None, SourceOptions())
    with pytest.raises(UserError, match="no such folder"):
        read_source("siim2020", root / "x", SourceOptions())
    with pytest.raises(UserError, match="empty; unpack"):
        read_source("siim2020", root, SourceOptions())
    put(root, **{"notes.txt": "x"})
    for source, file in [
        ("ham10000", "HAM10000_metadata.csv"),
        ("isic2019", "ISIC_2019_Training_GroundTruth.csv and no ISIC_2019_Training_Metadata.csv"),
        ("siim2020", "train.csv"),
        ("isic-archive", "metadata.csv"),
        ("folder", "image below it"),
    ]:
        with pytest.raises(UserError, match=f"no {file}"):
            read_source(source, root, SourceOptions())


# ---------------------------------------------------------------------------------------- ISIC 2019

CLASSES = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"


def test_isic2019(root):
    truth, about = "ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Metadata.csv"
    hot = ["1,0,0,0,0,0,0,0,0", "0,0,0,1,0,0,0,0,0", "0,0,0,0,0,0,0,0,1", "0,0,0,0,0,0,0,0,0"]
    names = ["A_downsampled", "B", "C", "D", "E"]
    csv(root, truth, CLASSES, *map(",".join, zip(names, [*hot, "1,1,0,0,0,0,0,0,0"], strict=True)))
    with pytest.raises(UserError, match=f"no {about}"):
        read_source("isic2019", root, SourceOptions())
    csv(
        root,
        about,
        "image,age_approx,anatom_site_general,lesion_id,sex",
        *("A,55,anterior torso,L,female", "B_downsampled,,,,", "C,,,,", "D,,,,", "E,,,,", "F,,,,"),
    )
    put(root, A="A", deep__B_downsampled="B", C="C", F="F")
    listing = read_source("isic2019", root, SourceOptions())
    assert rows(listing, "image_id", "target", "diagnosis", "site", "lesion_id") == [
        ["A", 1.0, "mel", "torso", "L"],
        ["B", 0.0, "akiec", None, None],
        ["C", None, None, None, None],
    ]
    assert [file.path.name for file in listing.files] == ["A.jpg", "B_downsampled.jpg", "C.jpg"]
    wrong = "ground truth is not 1 in one column and 0 in the others"
    assert [("D", wrong), ("E", wrong), ("F", f"no row in {truth}")] == sorted(
        {(f.image_id, f.reason) for f in listing.faults if f.where.startswith((truth, about))}
        - {(name, f"no row in {truth}") for name in "DE"}
    )


def test_isic2019_test_part_without_labels(root):
    csv(root, "ISIC_2019_Test_Metadata.csv", "image,age_approx,anatom_site_general,sex", "T,5,,")
    put(root, T="T")
    assert rows(read_source("isic2019", root, SourceOptions()), "image_id", "target") == [
        ["T", None]
    ]
    csv(root, "ISIC_2019_Test_GroundTruth.csv", CLASSES, "T,1,0,0,0,0,0,0,0,0")
    assert rows(read_source("isic2019", root, SourceOptions()), "image_id", "target") == [
        ["T", 1.0]
    ]


# ----------------------------------------------------------------------------------- SIIM-ISIC 2020

KAGGLE = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis"


def test_siim2020_as_kaggle_has_it(root):
    csv(
        root,
        "train.csv",
        f"{KAGGLE},benign_malignant,target",
        *("b,P1,male,40.0,torso,unknown,benign,0", "a,P1,,,,melanoma,malignant,1"),
        *("c,P,,,,nevus,benign,2", "d,P,,,,nevus,benign,", "e,P,,,,nevus,malignant,0"),
    )
    csv(root, "test.csv", KAGGLE.removesuffix(",diagnosis"), "t,P9,female,30.0,head/neck")
    put(root, jpeg__train__a="A", jpeg__train__b="B", jpeg__test__t="T")
    listing = read_source("siim2020", root, SourceOptions())
    assert rows(listing, "image_id", "target", "patient_id", "age") == [
        ["a", 1.0, "P1", None],
        ["b", 0.0, "P1", 40.0],
        ["t", None, "P9", 30.0],
    ]
    assert all(listing.files)
    assert faults(listing) == [
        ("c", "train.csv line 4", "target is neither 0 nor 1"),
        ("d", "train.csv line 5", "target is neither 0 nor 1"),
        ("e", "train.csv line 6", "conflicting targets for one image"),
    ]


def test_siim2020_as_isic_has_it(root):
    csv(root, "train.csv", f"{KAGGLE},benign_malignant,target", "a,P1,male,40,,nevus,benign,0")
    csv(
        root,
        "ISIC_2020_Training_GroundTruth_v2.csv",
        "image_name,patient_id,lesion_id,target",
        *("a,P1,L1,0", "b,P1,L2,1", "c,P1,L2,1"),
    )
    csv(
        root,
        "ISIC_2020_Training_Duplicates.csv",
        "image_name_1,image_name_2",
        *("c,a", "a,c", "b,b", "b,gone"),
    )
    csv(root, "ISIC_2020_Test_Metadata.csv", "image,patient,anatom_site_general", "z,P3,torso")
    listing = read_source("siim2020", root, SourceOptions(tables_only=True))
    assert rows(listing, "image_id", "lesion_id", "patient_id", "site")[1:] == [
        ["b", "L2", "P1", None],
        ["c", "L2", "P1", None],
        ["z", None, "P3", "torso"],
    ]
    assert listing.same.tolist() == [[0, 2]]
    assert listing.facts["declared_pairs_without_row"] == 1


# ------------------------------------------------------------------------------------- ISIC Archive


def test_isic_archive(root):
    csv(
        root,
        "metadata.csv",
        "isic_id,attribution,copyright_license,age_approx,anatom_site_3,anatom_site_1,diagnosis_1,"
        "diagnosis_2,diagnosis_3,diagnosis_4,sex,lesion_id,patient_id",
        *("I1,Clinic,CC-0,85,Palm,Upper extremity,Malignant,x,Melanoma Invasive,,male,,IP_1",),
        *('I2,"A, B",CC-BY,,,Trunk,Benign,,Nevus,"Nevus, Spitz",,IL_1,',),
        *("I3,Clinic,CC-0,,,,Indeterminate,,Solar or actinic keratosis,,,,",),
        *("I4,Clinic,CC-0,,,,Malignant,,Basal cell carcinoma,,,,", "I5,,CC-0,,,,,,Nevus,,,,"),
    )
    put(root, I1="1", I2="2", I3="3", I4="4", I5="5", licenses__x="x")
    listing = read_source("isic-archive", root, SourceOptions())
    assert rows(listing, "image_id", "target", "diagnosis", "site") == [
        ["I1", 1.0, "mel", "palms/soles"],
        ["I2", 0.0, "nv", "torso"],
        ["I3", None, "akiec", None],
        ["I4", 1.0, "bcc", None],
        ["I5", None, "nv", None],
    ]
    assert listing.facts["licence"] == "CC-0 (4), CC-BY (1)"
    assert listing.facts["attribution"] == "Clinic (3), A, B (1), unknown (1)"
    melanoma_or_not = read_source("isic-archive", root, SourceOptions(positive=("mel", "akiec")))
    assert melanoma_or_not.table["target"].tolist() == [1, 0, 1, 0, 0]


def test_isic_archive_as_it_was(root):
    csv(
        root,
        "metadata.csv",
        "isic_id,benign_malignant,diagnosis,anatom_site_general,diagnosis_1",
        *("I1,malignant,melanoma,lateral torso,", "I2,indeterminate/malignant,,,Malignant"),
        *("I3,benign,nevus,,Malignant", "I4,,,,Benign"),
    )
    listing = read_source("isic-archive", root, SourceOptions(tables_only=True))
    assert rows(listing, "image_id", "target", "site") == [
        ["I1", 1.0, "torso"],
        ["I2", None, None],
        ["I4", 0.0, None],
    ]
    assert faults(listing) == [
        ("I3", "metadata.csv line 4", "conflicting targets for one image"),
    ]
    csv(root, "metadata.csv", "isic_id,sex", "I1,male")
    with pytest.raises(UserError, match="no column benign_malignant"):
        read_source("isic-archive", root, SourceOptions(tables_only=True))


# ------------------------------------------------------------------------------------------- folder


def test_class_folders(root):
    put(root, benign__a="A", benign__deep__b="B", malignant__c="C", unknown__d="D", loose="L")
    listing = read_source("folder", root, SourceOptions())
    assert rows(listing, "image_id", "target", "diagnosis", "patient_id") == [
        ["a", 0.0, None, None],
        ["b", 0.0, None, None],
        ["c", 1.0, None, None],
        ["d", None, None, None],
    ]
    assert [file.path.stem for file in listing.files] == ["a", "b", "c", "d"]
    assert faults(listing) == [("loose", "loose.jpg", "not in a class folder")]
    assert not listing.global_ids


def test_class_folders_of_diagnoses(root):
    put(root, Melanoma__1="A", nevus__1="B", bcc__2="C", nevus__x__3="D")
    listing = read_source("folder", root, SourceOptions())
    assert rows(listing, "image_id", "target", "diagnosis") == [
        ["Melanoma__1", 1.0, "mel"],
        ["bcc__2", 0.0, "bcc"],
        ["nevus__1", 0.0, "nv"],
        ["nevus__x__3", 0.0, "nv"],
    ]
    both = read_source("folder", root, SourceOptions(positive=("mel", "Basal cell carcinoma")))
    assert both.table["target"].tolist() == [1, 1, 0, 0]
    with pytest.raises(UserError, match="--positive scc: no such diagnosis"):
        read_source("folder", root, SourceOptions(positive=("scc",)))
    shutil.rmtree(root / "Melanoma")
    with pytest.raises(UserError, match="--positive mel: no such diagnosis"):
        read_source("folder", root, SourceOptions())


def test_folders_that_are_no_classes(root, capsys):
    put(root, train__benign__a="A", test__malignant__b="B")
    listing = read_source("folder", root, SourceOptions())
    assert rows(listing, "image_id", "target") == [["a", 0.0], ["b", 1.0]]
    assert "test, train" in capsys.readouterr().out
    put(root, train__c="C")
    with pytest.raises(UserError, match="test, train, which are no classes; point --root"):
        read_source("folder", root, SourceOptions())
    shutil.rmtree(root / "train")
    shutil.move(root / "test" / "malignant" / "b.jpg", root / "b.jpg")
    with pytest.raises(UserError, match="1 image and no class folder"):
        read_source("folder", root, SourceOptions())
    with pytest.raises(UserError, match=r"no CSV file in it or below; .* the column x"):
        read_source("folder", root, SourceOptions(target_column="x"))


def test_class_folders_with_names_that_are_no_text(root):
    put(root, malignant__a="A", benign__b="B")
    for name in (b"benign/\xff.jpg", b"b\xffd/c.jpg", b"benign/x\ny.jpg", b"\xff.jpg"):
        path = root / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    listing = read_source("folder", root, SourceOptions())
    assert listing.table["image_id"].tolist() == ["a", "b"]
    assert {fault.where for fault in listing.faults} == {
        *("\\udcff.jpg", "benign/\\udcff.jpg", "benign/x\\ny.jpg", "b\\udcffd/c.jpg"),
    }
    assert {fault.reason for fault in listing.faults} == {RENAME}
    listing.table.to_parquet(io.BytesIO())


@pytest.mark.parametrize(
    ("header", "cells", "targets", "reasons"),
    [
        ("image_id,target", ["0", "1", "1.0", ""], [0, 1, 1, None], []),
        ("filename,label", ["benign", "Malignant", "unknown", "2"], [0, 1, None], ["neither"]),
        ("filename,label", ["ja", "positive", "Nein", "0.0"], [1, 1, 0, 0], []),
        ("img_id,diagnostic", ["NEV", "MEL", "ACK", "indeterminate"], [0, 1, 0, None], []),
        ("name,malignant", ["True", "False", "-1", "nan"], [1, 0, None, None], []),
    ],
)
def test_folder_with_a_csv(root, header, cells, targets, reasons):
    lines = [f"{name}.jpg,{cell},P{name}" for name, cell in zip("abcd", cells, strict=True)]
    csv(root, "labels.csv", f"{header},patient", *lines)
    put(root, a="A", b="B", c="C", d="D")
    listing = read_source("folder", root, SourceOptions())
    assert [row[0] for row in rows(listing, "target")] == targets
    assert [fault.reason.split()[2] for fault in listing.faults] == reasons
    assert listing.table["patient_id"].str.match("P[a-d]").all()


def test_folder_with_columns_of_any_name(root):
    csv(root, "x.tsv", "bild\tbefund\tfall\tage", "a\tMelanom\t7\t30", "b\tNävus\t7\t31")
    put(root, a="A", b="B")
    with pytest.raises(UserError, match=r"it has bild, befund, fall, age; .*--image-column"):
        read_source("folder", root, SourceOptions())
    ask = SourceOptions(
        ("melanom",), image_column="bild", target_column="befund", group_column="fall"
    )
    listing = read_source("folder", root, ask)
    assert rows(listing, "image_id", "target", "diagnosis", "patient_id", "age") == [
        ["a", 1.0, "mel", "7", 30.0],
        ["b", 0.0, "nv", "7", 31.0],
    ]
    assert np.isfinite(listing.table["age"]).all()


def test_folder_with_target_and_diagnosis(root):
    csv(root, "x.csv", "id,target,dx", "a,1,scc", "b,0,", "c,1,mel", "d,,nv")
    ask = SourceOptions(tables_only=True)
    assert rows(read_source("folder", root, ask), "target") == [[1.0], [0.0], [1.0], [None]]
    ask = SourceOptions(tables_only=True, positive=("scc",))
    assert rows(read_source("folder", root, ask), "target") == [[1.0], [0.0], [0.0], [0.0]]
