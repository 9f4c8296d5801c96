"""What counts as malignant: one meaning a dataset, told by the source or by the user."""

from pathlib import Path

import layouts
import pandas as pd
import pytest

from data.preparation.join import join
from data.prepare import PrepareOptions, prepare
from data.sources import read_source
from data.sources.diagnosis_map import read_map
from data.sources.listing import SourceOptions
from dermsynth.errors import UserError
from dermsynth.options import replace

CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
ISIC = "isic_id,diagnosis_1,diagnosis_2,diagnosis_3"
CANCERS = ("a,Malignant,,Melanoma in situ", "b,Malignant,,Basal cell carcinoma", "c,Benign,,Nevus")


def table(root: Path, name: str, *lines: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def read(source, root, positive=None, **options):
    return read_source(source, root, SourceOptions(positive, tables_only=True, **options))


def targets(listing):
    rows = listing.table[["image_id", "target"]].astype(object)
    return dict(rows.where(rows.notna(), None).itertuples(index=False))


# --------------------------------------------------------------------------- words in doubt


def test_words_that_are_not_understood_are_listed_with_what_they_were_taken_for(tmp_path, capsys):
    rows = [f"x{i},{word}" for i, word in enumerate(["melanoma", "SSM", "nevus", "wart", "wart"])]
    root = table(tmp_path / "r", "t.csv", "image,diagnosis", *rows)
    listing = read("folder", root)
    assert listing.table["target"].tolist() == [1, 1, 0, 0, 0]
    words = listing.words.set_index("word")
    assert words.loc["wart", ["kind", "target", "n"]].tolist() == ["unknown", 0, 2]
    assert words.loc["SSM", "kind"] == "known"


@pytest.mark.parametrize("word", ["suspected melanoma", "melonoma", "nevus vs melanoma"])
def test_a_word_that_may_mean_melanoma_stops(word, tmp_path):
    root = table(tmp_path, "t.csv", "image,dx", "a,mel", f"b,{word}", "c,nv")
    with pytest.raises(UserError, match=rf"1 row .* may mean melanoma .*`{word}` \(1\).*-map"):
        read("folder", root)


def test_the_users_word_counts(tmp_path):
    root = table(
        tmp_path / "r", "t.csv", "image,dx", "a,mel", "b,Suspected MELANOMA", "c,nv,", "d,q"
    )
    root = table(
        tmp_path / "r", "t.csv", "image,dx", "a,mel", "b,Suspected MELANOMA", "c,nv", "d,q"
    )
    told = table(tmp_path, "m.csv", "word,diagnosis", "suspected melanoma,mel", "q,") / "m.csv"
    listing = read("folder", root, diagnosis_map=read_map(told))
    assert targets(listing) == {"a": 1, "b": 1, "c": 0, "d": None}
    told.write_text("word,diagnosis\nsuspected melanoma,nevus\n")
    listing = read("folder", root, diagnosis_map=read_map(told))
    assert targets(listing) == {"a": 1, "b": 0, "c": 0, "d": 0}
    assert targets(read("folder", root, ("mel", "suspected melanoma"))) == {
        **{"a": 1, "b": 1, "c": 0, "d": 0}
    }


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["word,diagnosis", "x,suspected melanoma"], "is in doubt itself"),
        (["word,diagnosis", "x,mel", "X,nv"], "line 3: X is there twice, with two meanings"),
        (["word,diagnosis", ",mel"], "line 2: no word"),
        (["a,b", "x,mel"], "no column word"),
    ],
)
def test_a_map_that_says_nothing_clear(lines, expected, tmp_path):
    table(tmp_path, "m.csv", *lines)
    with pytest.raises(UserError, match=expected):
        read_map(tmp_path / "m.csv")


def test_words_of_the_map_that_no_row_has(tmp_path):
    root = table(
        tmp_path / "r",
        "t.csv",
        "image,dx",
        *[f"x{i},{'mel' if i < 9 else 'nv'}" for i in range(30)],
    )
    table(tmp_path, "m.csv", "word,diagnosis", "melonoma,mel")
    ask = replace(
        PrepareOptions(),
        **{"source": "folder", "root": (root,), "out": tmp_path / "d", "tables_only": True},
        diagnosis_map=tmp_path / "m.csv",
    )
    with pytest.raises(UserError, match="no row has the diagnosis melonoma; there are mel, nv"):
        prepare(ask)


# --------------------------------------------------------------------------- --positive


def test_isic_archive_obeys(tmp_path):
    root = table(tmp_path, "metadata.csv", ISIC, *CANCERS, "d,Malignant,,", "e,Indeterminate,,")
    listing = read("isic-archive", root)
    assert targets(listing) == {"a": 1, "b": 1, "c": 0, "d": 1, "e": None}
    assert (listing.meaning.one, listing.meaning.positive) == ("malignant", ())
    for positive in ("mel", "melanoma", "MEL"):
        listing = read("isic-archive", root, (positive,))
        assert targets(listing) == {"a": 1, "b": 0, "c": 0, "d": None, "e": None}
        assert (listing.meaning.one, listing.meaning.zero) == ("melanoma", "not melanoma")
    assert targets(read("isic-archive", root, ("mel", "bcc")))["b"] == 1
    assert targets(read("isic-archive", root, ("malignant",)))["b"] == 1


@pytest.mark.parametrize("positive", ["mel", "vasc"])
def test_a_table_of_zeros_and_ones_cannot_tell(positive, tmp_path):
    root = table(tmp_path, "t.csv", "image,target", "a,0", "b,1")
    with pytest.raises(UserError, match=f"--positive {positive}: .* has no diagnosis, only column"):
        read("folder", root, (positive,))
    assert targets(read("folder", root, ("malignant",))) == {"a": 0, "b": 1}


def test_malignant_needs_a_column_that_says_it(tmp_path):
    root = table(tmp_path, "HAM10000_metadata.csv", "image_id,lesion_id,dx", "a,l,mel", "b,m,nv")
    with pytest.raises(UserError, match=r"--positive malignant: .* no column that says malignant"):
        read("ham10000", root, ("malignant",))
    root = table(tmp_path / "s", "train.csv", "image_name,target", "a,0", "b,1")
    with pytest.raises(UserError, match=r"the column target in .* means melanoma"):
        read("siim2020", root, ("malignant",))


def test_classes_of_both_kinds(tmp_path):
    """`malignant` beside `bcc`: is a basal-cell carcinoma malignant here? Only the user knows."""
    root = table(tmp_path, "t.csv", "image,label", "a,malignant", "b,nevus", "c,bcc")
    with pytest.raises(
        UserError, match=r"1 image is called malignant and others bcc, .*--positive"
    ):
        read("folder", root)
    root = table(tmp_path, "t.csv", "image,label", "a,malignant", "b,nevus", "c,benign")
    assert targets(read("folder", root)) == {"a": 1, "b": 0, "c": 0}


# ------------------------------------------------------------------- target against diagnosis


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x,0,melanoma", "target 0, but the diagnosis is melanoma"),
        ("x,1,nevus", "target 1, but the diagnosis is another"),
    ],
)
def test_a_row_that_contradicts_itself(row, reason, tmp_path):
    root = table(tmp_path, "t.csv", "image,target,dx", "a,1,mel", "b,0,nv", row)
    listing = read("folder", root)
    assert [(f.image_id, f.reason) for f in listing.faults] == [("x", reason)]
    assert targets(listing) == {"a": 1, "b": 0}


def test_the_target_zero_of_what_may_be_a_melanoma_stops(tmp_path):
    root = table(tmp_path, "t.csv", "image,target,dx", "a,1,suspected melanoma", "b,0,melanoma?")
    with pytest.raises(UserError, match=r"column target of t.csv counts as 0: `melanoma\?` \(1\)"):
        read("folder", root)


def test_numbered_classes_are_no_target(tmp_path, capsys):
    rows = [f"x{i},{i},{code}" for i, code in enumerate(CODES)]
    root = table(tmp_path, "t.csv", "image,label,dx", *rows)
    listing = read("folder", root)
    assert (listing.table["target"] == (listing.table["diagnosis"] == "mel")).all()
    assert "column label holds numbers other than 0 and 1" in capsys.readouterr().out
    table(tmp_path, "t.csv", "image,label", *[row.rpartition(",")[0] for row in rows])
    with pytest.raises(UserError, match=r"column label holds numbers .*0 \(1\), 1 \(1\)"):
        read("folder", root)
    told = (
        table(
            tmp_path / "m",
            "m.csv",
            "word,diagnosis",
            *[f"{i},{code}" for i, code in enumerate(CODES)],
        )
        / "m.csv"
    )
    assert targets(read("folder", root, diagnosis_map=read_map(told)))["x4"] == 1


# ------------------------------------------------------------------------------ several sources


def both(tmp_path, positive=None):
    ham = "image_id,lesion_id,dx"
    one = table(tmp_path / "h", "HAM10000_metadata.csv", ham, "p,l,mel", "q,m,bcc", "r,n,nv")
    two = table(tmp_path / "i", "metadata.csv", ISIC, *CANCERS)
    return [
        (name, read(name, root, positive))
        for name, root in (("ham10000", one), ("isic-archive", two))
    ]


def test_one_diagnosis_with_two_targets_stops(tmp_path):
    with pytest.raises(
        UserError, match=r"bcc counts as 1 \(1 in isic-archive\) and as 0 \(1 in ham10000\)"
    ):
        join(both(tmp_path))
    joined = join(both(tmp_path, ("mel",)))
    assert joined.meaning.one == "melanoma"
    assert joined.table.groupby("diagnosis")["target"].max().to_dict() == {
        "bcc": 0,
        "mel": 1,
        "nv": 0,
    }


def test_another_meaning_without_a_common_diagnosis_stops_too(tmp_path):
    one = table(
        tmp_path / "h", "HAM10000_metadata.csv", "image_id,lesion_id,dx", "p,l,mel", "r,n,nv"
    )
    two = table(tmp_path / "i", "metadata.csv", ISIC, *CANCERS[1:])
    with pytest.raises(UserError, match="in ham10000 the target is melanoma, but bcc counts as 1"):
        join([("ham10000", read("ham10000", one)), ("isic-archive", read("isic-archive", two))])


# ------------------------------------------------------------------------------- ids


@pytest.mark.parametrize("word", ["-1", "-1.0", "0", "none", "unknown", "NaN", "anonymous", "-9"])
def test_placeholders_are_no_ids(word, tmp_path):
    rows = [f"x{i},{'mel' if i < 9 else 'nv'},{word if i % 2 else f'P{i}'}" for i in range(30)]
    root = table(tmp_path, "t.csv", "image,dx,patient_id", *rows)
    listing = read("folder", root)
    assert listing.table["patient_id"].notna().sum() == 15
    assert listing.facts["placeholders"] == {"patient_id": {word: 15}}


def test_zero_is_an_id_among_whole_numbers(tmp_path):
    rows = [f"x{i},{'mel' if i < 9 else 'nv'},{i // 3}" for i in range(30)]
    listing = read("folder", table(tmp_path, "t.csv", "image,dx,patient", *rows))
    assert listing.table["patient_id"].nunique() == 10
    rows = [f"x{i},{'mel' if i < 9 else 'nv'},{max(0, i - 20)}" for i in range(30)]
    listing = read("folder", table(tmp_path, "t.csv", "image,dx,patient", *rows))
    assert listing.table["patient_id"].isna().sum() == 21


def test_the_dataset_says_what_its_target_means(tmp_path):
    rows = [f"x{i},{'SSM' if i < 9 else 'wart'}" for i in range(30)]
    root = table(tmp_path / "r", "t.csv", "image,dx", *rows)
    ask = replace(
        PrepareOptions(), source="folder", root=(root,), out=tmp_path / "d", tables_only=True
    )
    prepare(ask)
    from data.store import load_table

    frame, info, _ = load_table(tmp_path / "d")
    assert (info.target.one, info.target.zero) == ("melanoma", "not melanoma")
    assert info.facts["unknown_diagnoses"] == {"wart": 21}
    assert isinstance(frame, pd.DataFrame)


@pytest.mark.parametrize(("suffix", "told"), [(".bmp", True), (".jpeg", False)])
def test_a_format_that_gives_the_target_away_is_said(suffix, told, tmp_path, capsys):
    for i in range(24):
        folder = "malignant" if i % 3 == 0 else "benign"
        layouts.save(tmp_path / "r" / folder / f"x{i}{'.jpg' if i % 3 == 0 else suffix}", i)
    ask = replace(PrepareOptions(), source="folder", root=(tmp_path / "r",), out=tmp_path / "d")
    prepare(replace(ask, size=32, folds=2))
    said = "0% of the images of `malignant` are .bmp files and 100% of those of `not malignant`"
    assert (said in capsys.readouterr().out) == told
