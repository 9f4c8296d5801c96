"""CSV files as they come: encodings, separators, and what is no CSV at all."""

import os
import time

import pytest

from data.sources import diagnoses, tables, vocabulary
from data.sources.tables import find_table, read_table
from dermsynth.errors import UserError

PLAIN = "Image_ID,site,age\na,Gesäß,40\nb,,\n"


@pytest.fixture
def read(tmp_path):
    def write_and_read(content, needed=("image_id", "site"), optional=("age", "sex")):
        path = tmp_path / "t.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(path, tmp_path, needed, optional)

    return write_and_read


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_separators(read, separator, encoding, newline, capsys):
    text = PLAIN.replace(",", separator).replace("\n", newline)
    sheet = read(text.encode(encoding))
    assert sheet.cells.to_dict("list") == {
        "image_id": ["a", "b"],
        "site": ["Gesäß", ""],
        "age": ["40", ""],
    }
    assert list(sheet.cells.index) == [2, 3]
    assert ("not in UTF-8" in capsys.readouterr().out) == (encoding in ("latin-1", "cp1252"))


def test_rows_that_are_not_as_long_as_the_header(read):
    sheet = read("image_id,site,age\na,b\n\nc,d,1,,\n , ,\ne,f,2,3\ng,h,4\n")
    assert list(sheet.cells["image_id"]) == ["c", "g"]
    assert sheet.ragged == [2, 6]
    assert sheet.where([2]) == "t.csv line 2"
    assert sheet.where([2, 6]) == "t.csv lines 2, 6"


def test_quotes(read):
    cells = read('"image_id","site"\n"a, b","line\none"\nc,"d ""x"""\n').cells
    assert cells.to_numpy().tolist() == [["a, b", "line\none"], ["c", 'd "x"']]


def test_other_names_of_a_column(read):
    sheet = read("x;Patient;IMAGE\n1;p;i\n", (("image_id", "image"),), (("patient_id", "patient"),))
    assert sheet.cells.to_dict("list") == {"image_id": ["i"], "patient_id": ["p"]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "0 bytes"),
        ("image_id,site\n", "no rows below the header"),
        ("image_id,sites,x\na,b,c\n", r"no column site; it has image_id, sites, x; needed are .*"),
        ("image_id,site,Site\na,b,c\n", "column site is there more than once"),
        ("image_id,site\na,b\n" + "x" * 2**20, "a line of more than 1,048,576 characters"),
        ("image_id,site\n" + "x" * 140_000 + ",b\n", "field larger than field limit"),
        ('image_id,site\na,"b\nc,d\n', "not a CSV file"),
        (",".join(["image_id", "site", *map(str, range(1000))]) + "\n", "1,002 columns"),
        (b"image_id,site\na,\x00b\n", "binary data"),
        (b"\xff\xfei\x00m\x00", "no column image_id"),
        (b"\xff\xfei\x00m", "damaged UTF-16"),
        (b"PK\x03\x04rest", "a ZIP archive or an Excel workbook"),
        (b"\x1f\x8b\x08rest", "gzip"),
        (b"%PDF-1.4", "a PDF"),
        ("\n<!DOCTYPE html><p>404", "a web page"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_what_is_no_table(read, content, expected):
    with pytest.raises(UserError, match=expected) as caught:
        read(content)
    assert "t.csv" in str(caught.value)


def test_what_is_no_file(tmp_path):
    inside = tmp_path / "root"
    inside.mkdir()
    (tmp_path / "secret.csv").write_text("image_id\na\n")
    (inside / "link.csv").symlink_to(tmp_path / "secret.csv")
    os.mkfifo(inside / "pipe.csv")
    for name, expected in [("link.csv", "leads out"), ("pipe.csv", "not a regular file")]:
        with pytest.raises(UserError, match=expected):
            read_table(inside / name, inside, ("image_id",))
    (inside / "big.csv").touch()
    os.truncate(inside / "big.csv", tables.MAX_BYTES + 1)
    with pytest.raises(UserError, match="at most 1 GiB"):
        read_table(inside / "big.csv", inside, ("image_id",))


def test_an_earlier_name_beats_a_later_one_and_copies_do_not_matter(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "B.csv").write_text("b")
    assert find_table(tmp_path, ("a.csv", "b.csv")) == tmp_path / "x" / "B.csv"
    (tmp_path / "y" / "a.CSV").write_text("a")
    assert find_table(tmp_path, ("a.csv", "b.csv")) == tmp_path / "y" / "a.CSV"
    assert find_table(tmp_path, ("c.csv",)) is None
    (tmp_path / "y" / "B.csv").write_text("other")
    with pytest.raises(UserError, match="several metadata files that differ"):
        find_table(tmp_path, ("b.csv",))


def test_many_rows_are_read_quickly(read):
    rows = "".join(f"ISIC_{n:07d},torso,{n % 90},male\n" for n in range(200_000))
    start = time.process_time()
    assert len(read("image_id,site,age,sex\n" + rows).cells) == 200_000
    assert time.process_time() - start < 10


# -------------------------------------------------------------------------------------- vocabulary


@pytest.mark.parametrize(
    ("translate", "word", "expected"),
    [
        (vocabulary.site, "Anterior  Torso", "torso"),
        (vocabulary.site, "head and neck", "head/neck"),
        (vocabulary.site, "palms/soles", "palms/soles"),
        (vocabulary.site, "acral", "palms/soles"),
        (vocabulary.site, "Sole of foot", "palms/soles"),
        (vocabulary.site, "foot", "lower extremity"),
        (vocabulary.site, "oral or genital", "oral/genital"),
        (vocabulary.site, "Nail NOS", "nail nos"),
        (vocabulary.site, "N/A", None),
        (vocabulary.sex, "M", "male"),
        (vocabulary.sex, "Female", "female"),
        (vocabulary.sex, "unknown", None),
        (diagnoses.diagnosis, "MEL", "mel"),
        (diagnoses.diagnosis, "Melanoma in situ, Lentigo maligna type", "mel"),
        (diagnoses.diagnosis, "Melanoma, NOS", "mel"),
        (diagnoses.diagnosis, "Melanoacanthoma", "melanoacanthoma"),
        (diagnoses.diagnosis, "Nevus, Atypical, Dysplastic, or Clark", "nv"),
        (diagnoses.diagnosis, "Nevus sebaceus", "nevus sebaceus"),
        (diagnoses.diagnosis, "Solar or actinic keratosis", "akiec"),
        (diagnoses.diagnosis, "Squamous cell carcinoma in situ, Bowens disease", "akiec"),
        (diagnoses.diagnosis, "Squamous cell carcinoma, Invasive", "scc"),
        (diagnoses.diagnosis, "basal cell carcinoma", "bcc"),
        (diagnoses.diagnosis, "pigmented_benign_keratosis", "bkl"),
        (diagnoses.diagnosis, "UNK", None),
        (diagnoses.diagnosis, "Scar", "scar"),
        (vocabulary.age, "85+", 85.0),
        (vocabulary.age, "0", 0.0),
        (vocabulary.age, "47.5", 47.5),
    ],
)
def test_vocabulary(translate, word, expected):
    assert translate(word) == expected


@pytest.mark.parametrize("word", ["old", "-1", "121", "inf", "-inf", "4O"])
def test_what_is_no_age(word):
    with pytest.raises(ValueError, match=r".+"):
        vocabulary.age(word)


def test_the_vocabulary_is_closed():
    assert all(vocabulary.site(site) == site for site in vocabulary.SITES)
    assert all(diagnoses.diagnosis(code) == code for code in diagnoses.DIAGNOSES)
