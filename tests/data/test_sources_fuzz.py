"""Whatever a table holds: a UserError or a Listing, soon, and nothing outside is touched."""

import csv
import io
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.sources import read_source
from data.sources.listing import COLUMNS, Listing, SourceOptions
from dermsynth.errors import UserError

TABLES = {  # each source's files with a header that it takes
    "ham10000": {"HAM10000_metadata.csv": "image_id,lesion_id,dx,age,sex,localization,fold"},
    "isic2019": {
        "ISIC_2019_Training_GroundTruth.csv": "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK",
        "ISIC_2019_Training_Metadata.csv": "image,age_approx,anatom_site_general,lesion_id,fold",
    },
    "siim2020": {
        "train.csv": "image_name,patient_id,sex,age_approx,diagnosis,benign_malignant,target,fold",
        "test.csv": "image_name,patient_id",
        "ISIC_2020_Training_Duplicates.csv": "image_name_1,image_name_2",
    },
    "isic-archive": {
        "metadata.csv": "isic_id,copyright_license,benign_malignant,diagnosis_1,diagnosis_3,"
        "age_approx,anatom_site_1,lesion_id,fold",
    },
    "folder": {"x.csv": "image_id,target,diagnosis,patient_id,age,fold"},
}
WORDS = [
    *("a", "b.jpg", "c_downsampled", "../../secret", "/etc/passwd", "out", "", "nan", "unknown"),
    *("0", "1", "1.0", "2", "-1", "inf", "1e999", "121", "85+", "mel", "Melanoma", "nevus"),
    *("benign", "malignant", "Indeterminate", "male", "torso", "a\nb", 'q"', "\u202e", "é", "=1+1"),
]
MAX_SECONDS = 5  # of processor time: a busy machine does not matter
SETTINGS = settings(
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

words = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))


@st.composite
def table(draw, header):
    """Bytes of a CSV file that is mostly well formed."""
    columns = header.split(",")
    if draw(st.integers(0, 9)) == 0:
        columns = draw(st.permutations(columns))[1:]
    width = len(columns)
    row = st.lists(words, min_size=width, max_size=width) | st.lists(words, max_size=width + 2)
    text = io.StringIO()
    separator = draw(st.sampled_from(",;\t"))
    writer = csv.writer(text, delimiter=separator, quoting=draw(st.sampled_from([0, 1])))
    writer.writerows([columns, *draw(st.lists(row, max_size=6))])
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]))
    return text.getvalue().encode(encoding, errors="replace")


@st.composite
def damaged(draw, header):
    """Bytes of a table, cut off, with bytes changed, or anything."""
    content = bytearray(draw(table(header)))
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)))):
        if content:
            content[place % len(content)] = byte
    content = bytes(content[: draw(st.integers(0, 2000))])
    return draw(st.sampled_from([content, content, draw(st.binary(max_size=60))]))


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / f"{name}.jpg").write_text(name)
    for secret in (tmp_path / "secret.jpg", tmp_path / "passwd.jpg"):
        secret.write_text("secret")
    return root


def check(source: str, root: Path, ask: SourceOptions) -> None:
    before = sorted(root.parent.rglob("*"))
    message, start = "", time.process_time()
    try:
        listing = read_source(source, root, ask)
    except UserError as error:
        message = str(error)
    else:
        check_listing(listing, root, ask)
    assert time.process_time() - start < MAX_SECONDS
    assert message.isprintable()
    assert len(message) < 10_000
    assert sorted(root.parent.rglob("*")) == before


def check_listing(listing: Listing, root: Path, ask: SourceOptions) -> None:
    found = listing.table
    assert set(found.columns) == {*COLUMNS, *(["given_fold"] if ask.fold_column else [])}
    assert found["image_id"].is_unique
    assert found["image_id"].is_monotonic_increasing
    assert set(found["target"].dropna()) <= {0.0, 1.0}
    assert found["age"].dropna().between(0, 120).all()
    for name in found["image_id"]:
        assert name
        assert name == Path(name).name
        assert name.isprintable() or "\n" not in name
    for column in ("diagnosis", "patient_id", "lesion_id", "sex", "site"):
        assert all(word is None or (isinstance(word, str) and word) for word in found[column])
    assert len(listing.files) == len(found)
    for file in filter(None, listing.files):
        assert file.path.parent == root
        assert not ask.tables_only
    assert listing.same.shape[1] == 2
    assert listing.same.dtype == np.int64
    assert (listing.same[:, 0] < listing.same[:, 1]).all()
    assert (listing.same < max(1, len(found))).all()
    for fault in listing.faults:
        assert fault.reason
        assert fault.image_id.isprintable()
        assert len(fault.image_id) < 300


asks = st.builds(
    SourceOptions,
    positive=st.sampled_from([("mel",), ("nv", "mel"), ("melanoma",), ("x",), ("",), ()]),
    tables_only=st.booleans(),
    fold_column=st.sampled_from([None, None, "fold", "absent"]),
)


@pytest.mark.parametrize("source", TABLES)
@pytest.mark.parametrize("strategy", [table, damaged])
def test_any_table(root, source, strategy):
    files = {name: strategy(header) for name, header in TABLES[source].items()}

    @SETTINGS
    @given(st.fixed_dictionaries(files), asks)
    def attempt(contents: dict[str, bytes], ask: SourceOptions) -> None:
        for name, content in contents.items():
            (root / name).write_bytes(content)
        check(source, root, ask)

    attempt()


@SETTINGS
@given(st.lists(st.lists(words, min_size=1, max_size=3), min_size=1, max_size=5), asks)
def test_any_class_folders(tmp_path_factory, names, ask):
    top = tmp_path_factory.mktemp("top")
    root = top / "root"
    root.mkdir()
    for steps in names:
        path = root.joinpath(*(step.replace("/", "").replace("\0", "") or "x" for step in steps))
        path = path.parent / f"{path.name}.jpg"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        except OSError:
            return  # no such name can be
    try:
        listing = read_source("folder", root, ask)
    except UserError:
        return
    ids = listing.table["image_id"]
    assert ids.is_unique
    assert all(name == Path(name).name for name in ids)
    assert all(file is None or file.path.is_relative_to(root) for file in listing.files)


@pytest.mark.slow
def test_many_clashes_take_no_time(root):
    """100,000 ids twice each, all contradicting: linear work."""
    rows = "".join(f"i{n % 100_000},{n},mel\n" for n in range(200_000))
    (root / "HAM10000_metadata.csv").write_text("image_id,lesion_id,dx\n" + rows)
    listing = read_source("ham10000", root, SourceOptions(tables_only=True))
    assert len(listing.faults) == 100_000
    assert listing.table.empty
