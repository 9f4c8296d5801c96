"""TFRecords against HAM10000's own table, and against every way of being broken."""

import random
import shutil
import struct
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tfrecord.example_pb2 import Example
from tfrecord.writer import TFRecordWriter

from data.images.decoding import Preprocessing, decode
from data.sources import read_source, tfrecords
from data.sources.listing import Listing, SourceOptions
from data.sources.tfrecords import list_tfrecords
from dermsynth.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
PLAIN = SourceOptions()
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")


def example(**values: object) -> bytes:
    """A serialized Example; a default record with some features replaced, None leaves one out."""
    features = {
        "image": b"\xff\xd8jpeg",
        "image_name": b"ISIC_1",
        "patient_id": 3,
        "sex": 1,
        "age_approx": 45,
        "anatom_site_general_challenge": 3,
        "diagnosis": 2,
        "target": 0,
        **values,
    }
    message = Example()
    for name, value in features.items():
        if value is None:
            continue
        many = value if isinstance(value, list) else [value]
        feature = message.features.feature[name]
        kinds = {bytes: feature.bytes_list, float: feature.float_list, int: feature.int64_list}
        kinds[type(many[0])].value.extend(many)
    return message.SerializeToString()


def frame(data: bytes) -> bytes:
    """A record, its checksums by another implementation: the writer of the tfrecord package."""
    length = struct.pack("<Q", len(data))
    return length + TFRecordWriter.masked_crc(length) + data + TFRecordWriter.masked_crc(data)


def read(
    folder: Path, *records: bytes, name: str = "train00.tfrec", ask: SourceOptions = PLAIN
) -> Listing:
    (folder / name).write_bytes(b"".join(records))
    return list_tfrecords(folder, ask)


def one(listing: Listing) -> pd.Series:
    assert len(listing.table) == 1
    return listing.table.iloc[0]


# ------------------------------------------------------------------------------------ real files


@needs_data
def test_names_targets_and_metadata_are_those_of_ham10000() -> None:
    found = read_source("tfrecords", SHARED / "tfrecords", SourceOptions())
    table = found.table.set_index("image_id")
    known = read_source("ham10000", SHARED / "ham10000", SourceOptions(tables_only=True)).table
    known = known.set_index("image_id").loc[table.index]
    assert len(table) == 392
    assert not found.faults
    for column in ("age", "sex", "site"):
        pd.testing.assert_series_equal(table[column], known[column], check_dtype=False)
    tested = table["target"].isna()
    assert tested.sum() == 60
    assert (table["target"] == known["target"])[~tested].all()
    pairs = pd.DataFrame({"patient": table["patient_id"], "lesion": known["lesion_id"]})
    assert len(pairs.drop_duplicates()) == pairs["patient"].nunique() == pairs["lesion"].nunique()
    in_test = [file.path.name.startswith("test") for file in found.files]
    assert in_test == tested.tolist()


@needs_data
def test_images_are_decoded_where_they_lie() -> None:
    found = list_tfrecords(SHARED / "tfrecords", SourceOptions())
    known = read_source("ham10000", SHARED / "ham10000", SourceOptions())
    originals = dict(zip(known.table["image_id"], known.files, strict=True))
    for row in range(0, len(found.table), 40):
        ours = decode(found.files[row], Preprocessing(size=64)).pixels.astype(float)
        same = decode(originals[found.table["image_id"][row]], Preprocessing(size=64)).pixels
        blocks = (ours - same).reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))  # encoded twice
        assert np.abs(blocks).mean() < 12
        assert np.corrcoef(ours.ravel(), same.ravel())[0, 1] > 0.9


@needs_data
def test_one_flipped_bit_anywhere_is_caught_and_names_file_and_record(tmp_path: Path) -> None:
    whole = (SHARED / "tfrecords/train01-113.tfrec").read_bytes()
    whole = b"".join(cut_records(whole)[:4])  # the rest is the same four parts again
    starts = np.cumsum([0, *map(len, cut_records(whole))])
    draw = random.Random(0)
    places = [starts[1] + n for n in (0, 7, 8, 11, 12, 13)] + [len(whole) - n for n in (1, 4, 5)]
    for place in places + [draw.randrange(len(whole)) for _ in range(60)]:
        broken = bytearray(whole)
        broken[place] ^= 1 << draw.randrange(8)
        number = int(np.searchsorted(starts, place, side="right"))
        try:
            found = read(tmp_path, bytes(broken))
        except UserError as error:
            said = str(error)
        else:
            said = ""
        if place - starts[number - 1] < 12:  # in its length
            assert f"train00.tfrec: record {number} " in said
        else:
            assert said == ""
            (fault,) = found.faults
            assert (fault.where, fault.reason) == (f"train00.tfrec record {number}", "CRC error")
            assert len(found.table) == 3


def cut_records(content: bytes) -> list[bytes]:
    found = []
    while content:
        end = 16 + struct.unpack("<Q", content[:8])[0]
        found.append(content[:end])
        content = content[end:]
    return found


# --------------------------------------------------------------------------------- single records


def test_codes_and_their_absence(tmp_path: Path) -> None:
    row = one(read(tmp_path, frame(example(target=1))))
    assert (row.image_id, row.patient_id, row.sex, row.site) == ("ISIC_1", "3", "male", "torso")
    assert (row.age, row.target, row.source) == (45, 1, "tfrecords")
    assert row.diagnosis is None  # a code, and nobody says of what
    row = one(
        read(
            tmp_path,
            frame(example(patient_id=-1, sex=-1, anatom_site_general_challenge=-1, age_approx=-1)),
        )
    )
    assert row[["patient_id", "sex", "site"]].isna().all()
    assert np.isnan(row.age)
    row = one(read(tmp_path, frame(example(sex=7, anatom_site_general_challenge=99))))
    assert row[["sex", "site"]].isna().all()


def test_words_in_the_place_of_codes(tmp_path: Path) -> None:
    words = {"patient_id": b"IP_7", "sex": b"female", "diagnosis": b"melanoma"}
    words |= {"anatom_site_general_challenge": b"anterior torso", "age_approx": 45.0}
    row = one(read(tmp_path, frame(example(**words, target=1))))
    assert (row.patient_id, row.sex, row.diagnosis, row.site) == ("IP_7", "female", "mel", "torso")
    assert row.age == 45


def test_optional_features_may_be_absent(tmp_path: Path) -> None:
    lean = example(**dict.fromkeys(["patient_id", "sex", "age_approx", "diagnosis"]), target=1)
    row = one(read(tmp_path, frame(lean)))
    assert row.target == 1
    assert row[["patient_id", "sex", "diagnosis"]].isna().all()


def test_files_without_targets_have_no_labels(tmp_path: Path) -> None:
    (tmp_path / "train.tfrec").write_bytes(frame(example(target=1)))
    found = read(tmp_path, frame(example(image_name=b"ISIC_2", target=None)), name="test.tfrec")
    assert found.table["target"].tolist()[0] == 1
    assert np.isnan(found.table["target"][1])
    (tmp_path / "train.tfrec").unlink()
    assert list_tfrecords(tmp_path, PLAIN).table["target"].isna().all()


def test_folds_may_be_a_feature(tmp_path: Path) -> None:
    found = read(tmp_path, frame(example(tfrecord=4)), ask=SourceOptions(fold_column="tfrecord"))
    assert one(found).given_fold == 4
    with pytest.raises(UserError, match="no feature tfrecord"):
        read(tmp_path, frame(example()), ask=SourceOptions(fold_column="tfrecord"))


def test_tables_only_looks_for_no_image(tmp_path: Path) -> None:
    assert read(tmp_path, frame(example()), ask=SourceOptions(tables_only=True)).files == [None]


def test_the_image_is_found_in_its_file(tmp_path: Path) -> None:
    records = [frame(example(image_name=f"I{n}".encode(), image=b"j" * n)) for n in range(1, 5)]
    found = read(tmp_path, *records)
    content = (tmp_path / "train00.tfrec").read_bytes()
    for number, file in enumerate(found.files, 1):
        assert content[file.offset : file.offset + file.length] == b"j" * number


BAD = {
    "no feature image, or not bytes": {"image": None},
    "no feature image, or not bytes ": {"image": 5},
    "no feature image, or not bytes  ": {"image": b""},
    "no feature image_name, or not bytes": {"image_name": 5},
    "feature image_name is not UTF-8": {"image_name": b"\xff"},
    "feature sex is of the wrong type": {"sex": 1.5},
    "feature target has more than one value": {"target": [0, 1]},
    "target is neither 0 nor 1": {"target": 2},
    "target is neither 0 nor 1 ": {"target": b"yes"},
    "no feature target": {"target": None},
    "age is not a number of years from 0 to 120": {"age_approx": 400},
    "age is not a number of years from 0 to 120 ": {"age_approx": float("inf")},
    "image_id is empty": {"image_name": b" "},
    "unsafe file name: it leads out of the folder, or is no plain text": {
        "image_name": b"../../etc/pass"
    },
    "unsafe file name: it leads out of the folder, or is no plain text ": {
        "image_name": b"x" * 10**6
    },
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_record_is_one_fault_and_the_others_stay(tmp_path: Path, reason: str) -> None:
    good = frame(example(image_name=b"ISIC_9"))
    found = read(tmp_path, frame(example(**BAD[reason])), good)
    (fault,) = found.faults
    assert (fault.where, fault.reason) == ("train00.tfrec record 1", reason.strip())
    assert len(fault.image_id) < 300
    assert one(found).image_id == "ISIC_9"


def test_records_that_are_no_examples_are_faults(tmp_path: Path) -> None:
    good = frame(example())
    found = read(tmp_path, frame(b"\xff" * 50), good, frame(b""))
    assert [fault.reason for fault in found.faults] == [
        "not a tf.train.Example",
        "no feature image, or not bytes",
    ]
    with pytest.raises(UserError, match=r"not one usable record.*record 1: not a tf.train"):
        read(tmp_path, frame(b"\xff" * 50))


def test_names_that_come_twice(tmp_path: Path) -> None:
    record = frame(example())
    found = read(tmp_path, record, record)
    assert len(found.table) == 1
    assert found.facts["repeated_rows"] == 1
    other = frame(example(image_name=b"ISIC_2"))
    (fault,) = read(tmp_path, record, frame(example(image=b"another")), other).faults
    assert fault.reason == "image_id more than once"
    assert fault.where == "train00.tfrec record 1, train00.tfrec record 2"


def test_positive_needs_diagnoses_that_are_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no diagnosis, only the feature target"):
        read(tmp_path, frame(example()), ask=SourceOptions(positive=("bcc",)))
    found = read(tmp_path, frame(example(diagnosis=b"bcc")), ask=SourceOptions(positive=("bcc",)))
    assert one(found).target == 1


# ----------------------------------------------------------------------------------- whole files


def test_lengths_that_lie(tmp_path: Path) -> None:
    good = frame(example())
    for length in (2**63, 2**40, len(good) + 1):
        header = struct.pack("<Q", length)
        lying = header + TFRecordWriter.masked_crc(header) + b"data"
        with pytest.raises(UserError, match=rf"record 2 \(byte {len(good):,}\): cut off"):
            read(tmp_path, good, lying)
    with pytest.raises(UserError, match="record 2"):
        read(tmp_path, good, good[:-1])
    with pytest.raises(UserError, match=r"record 2 .*cut off; download"):
        read(tmp_path, good, good[:5])


def test_a_large_record_is_passed_over_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfrecords, "MAX_RECORD", 2**20)
    found = read(tmp_path, frame(example(image=b"x" * 2**21)), frame(example()))
    assert [fault.reason for fault in found.faults] == ["record of more than 1 MiB"]
    assert len(found.table) == 1


def test_images_are_never_all_in_memory(tmp_path: Path) -> None:
    image = b"x" * 2**20
    records = (frame(example(image_name=b"I%d" % n, image=image)) for n in range(60))
    (tmp_path / "train00.tfrec").write_bytes(b"".join(records))
    list_tfrecords(tmp_path, PLAIN)  # whatever is imported and cached once
    tracemalloc.start()
    list_tfrecords(tmp_path, PLAIN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_endless_rubbish_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecords, "MAX_FAULTS", 50)
    with pytest.raises(UserError, match="50 unusable records"):
        read(tmp_path, frame(b"") * 1000)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"\x1f\x8b" + b"x" * 100, "a compressed file"),
        (b"<html><body>not found</body></html>", "not a TFRecord file"),
        (b"short", "cut off"),
    ],
)
def test_what_is_no_tfrecord_file_says_so(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(tmp_path, content)


def test_a_file_cut_between_two_records_is_seen_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 records, its name says 2"):
        read(tmp_path, frame(example()), name="train00-2.tfrec")
    (tmp_path / "train00-2.tfrec").unlink()
    assert len(read(tmp_path, frame(example()), name="train00-1.tfrec").table) == 1


def test_links_out_of_the_folder_and_folders_are_refused(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside.tfrec", tmp_path / "root"
    outside.write_bytes(frame(example()))
    root.mkdir()
    (root / "readme.txt").write_text("x")
    with pytest.raises(UserError, match=r"no .tfrec"):
        list_tfrecords(root, SourceOptions())
    (root / "a.tfrec").symlink_to(outside)
    with pytest.raises(UserError, match="leads out"):
        list_tfrecords(root, SourceOptions())


# ------------------------------------------------------------------------------------------ fuzz


def outcome(content: bytes) -> Listing | UserError:
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "train00.tfrec").write_bytes(content)
        return list_tfrecords(folder, SourceOptions())
    except UserError as error:
        return error
    finally:
        shutil.rmtree(folder)


@settings(max_examples=100)
@given(st.binary(max_size=400))
def test_fuzz_any_bytes(content: bytes) -> None:
    assert isinstance(outcome(content), UserError)


@settings(max_examples=100)
@given(st.data())
def test_fuzz_mutated_files(data: st.DataObject) -> None:
    content = bytearray(frame(example()) + frame(example(image_name=b"ISIC_2", target=1)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"])):
            case "flip":
                content[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 50))]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
            case "repeat":
                content += content[at:]
        content = content or bytearray(b"\0")
    found = outcome(bytes(content))
    if isinstance(found, UserError):
        assert "train00.tfrec" in str(found)


@settings(max_examples=100)
@given(st.data())
def test_fuzz_mutated_examples_with_right_checksums(data: st.DataObject) -> None:
    message = bytearray(example())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(message) - 1))
        message[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=8))
        message = message or bytearray(b"\0")
    found = outcome(frame(bytes(message)) + frame(example(image_name=b"ISIC_2", target=1)))
    assert isinstance(found, Listing)
    assert "ISIC_2" in set(found.table["image_id"])
    assert len(found.table) + len(found.faults) + found.facts.get("repeated_rows", 0) == 2


FEATURES = sorted(Example.FromString(example()).features.feature)
value = st.none() | st.binary(max_size=30) | st.integers(-(2**63), 2**63 - 1) | st.floats(width=32)


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(FEATURES),
        value | st.lists(st.integers(-2, 2), min_size=1, max_size=3),
    )
)
def test_fuzz_features_of_any_type(features: dict[str, object]) -> None:
    found = outcome(frame(example(**features)) + frame(example(image_name=b"ISIC_2")))
    assert isinstance(found, Listing)
    assert found.table["target"].isin([0, 1]).all()
    assert found.table["age"].dropna().between(0, 120).all()


@pytest.mark.parametrize("package", ["crc32c", "google.protobuf.message", "tfrecord.example_pb2"])
def test_without_the_extra_it_is_named(tmp_path, monkeypatch, package):
    tfrecords._libraries.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'dermsynth\[tfrecords\]'"):
        list_tfrecords(tmp_path, SourceOptions())
    monkeypatch.undo()
    tfrecords._libraries.cache_clear()
