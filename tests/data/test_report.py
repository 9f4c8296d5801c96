import hashlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import pandas as pd
import pytest
from card_pages import (
    add_pairs,
    add_skipped,
    make_dataset,
    make_images,
    make_table,
    page_of,
    rows_under,
    words_of,
)

from data import store
from data.card import samples
from data.card.counts import breakdown, leak_checks, with_rows
from data.images.native import ShardWriter
from data.report import ReportOptions, write_report
from data.store import Look
from dermsynth.errors import UserError
from dermsynth.options import TrackedOptions
from dermsynth.verify import verify

ROOT = Path(__file__).parents[2]
NASTY = '<script>alert(1)</script>"><img src="https://example.org/x.png" onerror=alert(1)>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "set")


def expected(rows: pd.DataFrame) -> list[str]:
    """Images, bar, malignant, share, groups."""
    malignant = int(rows["target"].sum())
    labelled = rows["target"].notna().sum()
    share = f"{malignant / labelled:.1%}" if labelled else "–"
    shown = f"{malignant:,}" if labelled else "–"
    return [f"{len(rows):,}", "", shown, share, f"{rows['group'].nunique():,}"]


def test_parts_are_counted_as_in_the_table(folder):
    table, found = make_table(), rows_under(page_of(folder), "part")
    names = {0: "fold 0", 1: "fold 1", 2: "fold 2", -1: "test", -2: "extra", -3: "no part"}
    assert list(found) == [*names.values(), "all"]
    for fold, name in names.items():
        assert found[name] == [*expected(table[table["fold"] == fold]), "2"]
    assert found["all"] == [*expected(table), "2"]


@pytest.mark.parametrize("column", ["sex", "site", "diagnosis", "source"])
def test_categories_are_counted_as_in_the_table(folder, column):
    table, found = make_table(), rows_under(page_of(folder), column)
    counts = table[column].value_counts()
    missing = ["not known"] if table[column].isna().any() else []
    assert sorted(found) == sorted([*counts.index, *missing])
    for name in counts.index:
        assert found[name] == expected(table[table[column] == name])
    if missing:
        assert list(found)[-1] == "not known"
        assert found["not known"] == expected(table[table[column].isna()])


def test_ages_are_counted_in_bands(folder):
    table, found = make_table(), rows_under(page_of(folder), "age")
    assert found["under 20"] == expected(table[table["age"] < 20])
    assert found["40–49"] == expected(table[table["age"].between(40, 49)])
    assert found["80 and over"] == expected(table[table["age"] >= 80])
    assert found["not known"] == expected(table[table["age"].isna()])
    assert sum(int(row[0]) for row in found.values()) == len(table)


def test_missing_values(folder):
    table, found = make_table(), rows_under(page_of(folder), "column")
    lost = table["sex"].isna()
    assert found["sex"][0] == f"{lost.sum()}"
    assert found["sex"][2] == f"{table['target'][lost].mean():.1%}"
    assert found["lesion_id"][:2] == ["0", "0.0%"]


def test_many_values_share_a_line():
    table = make_table(200).assign(site=[f"site {i % 40:02d}" for i in range(200)])
    lines = breakdown(table, table["site"])
    assert len(lines) == 21
    assert lines[-1]["name"] == "20 others"
    assert sum(line["images"] for line in lines) == 200
    few = table.assign(site=[f"site {i % 21:02d}" for i in range(200)])
    assert len(breakdown(few, few["site"])) == 21  # "1 others" would say less than its name


def test_summary_comes_first(folder):
    table, page = make_table(), page_of(folder)
    lead = words_of(page[page.index('class="lead"') : page.index("</p>")])
    known = table["target"].notna()
    assert f"holds {len(table)} images, {int(table['target'].sum())} of them malignant" in lead
    assert f"{table['target'][known].mean():.1%} of the labelled)" in lead
    assert f"{(~known).sum()} without a label, in {table['group'].nunique()} groups" in lead
    assert "No group lies in two parts" in lead
    assert 'role="alert"' not in page


# --- leaks ---------------------------------------------------------------------------------------


def torn(column: str, table: pd.DataFrame) -> dict[str, int]:
    return {line["name"]: line["torn"] for line in leak_checks(table, None)}[column]


def test_torn_group_is_announced_in_red_before_all_else(tmp_path):
    table = make_table()
    table.loc[0, "fold"] = 1  # its group's other image is in fold 0
    page = page_of(make_dataset(tmp_path / "d", table))
    assert page.index('role="alert"') < page.index('class="lead"')
    words = words_of(page)
    assert "Leaky. 1 of 100 groups lies in more than one part" in words
    assert "No group lies in two parts" not in words
    assert rows_under(page, "looked for")["groups"] == ["100", "1", "the groups of IMG_0000"]
    assert rows_under(page, "looked for")["patients"] == ["100", "1", "P0"]


@pytest.mark.parametrize(
    ("column", "name"),
    [("patient_id", "patients"), ("lesion_id", "lesions"), ("sha256", "file contents")],
)
def test_leak_that_the_groups_do_not_know_is_found(column, name):
    table = make_table()
    assert torn(name, table) == 0
    table.loc[0, column] = table.loc[2, column]  # fold 0 and fold 1, groups left as they are
    assert torn("groups", table) == 0
    assert torn(name, table) == 1


@pytest.mark.parametrize(("fold", "leaks"), [(-1, 1), (-2, 1), (-3, 0)])
def test_which_parts_count(fold, leaks):
    table = make_table()
    table.loc[0, "fold"] = fold
    assert torn("groups", table) == leaks


def test_duplicates_in_two_parts_are_a_leak(folder):
    add_pairs(folder, [("IMG_0000", "IMG_0002", "near", True), ("IMG_0000", "GONE", "near", False)])
    page = page_of(folder)
    found = rows_under(page, "looked for")["pairs of duplicates"]
    assert found == ["1", "1", "IMG_0000 and IMG_0002"]
    assert 'role="alert"' in page


def test_empty_ids_are_no_common_id():
    table = make_table().assign(patient_id=None, sha256="")
    lines = {line["name"]: line for line in leak_checks(table, None)}
    assert (lines["patients"]["checked"], lines["patients"]["torn"]) == (0, 0)
    assert (lines["file contents"]["checked"], lines["file contents"]["torn"]) == (0, 0)


# --- duplicates, left out, conflicts -------------------------------------------------------------


def test_pairs_are_counted_and_shown_across_lesions_first(folder):
    pairs = [(f"IMG_{i:04d}", f"IMG_{i + 1:04d}", "near", False) for i in range(0, 40, 2)]
    pairs += [("IMG_0100", "COPY", "identical", True), ("IMG_0102", "IMG_0103", "declared", True)]
    add_pairs(folder, pairs)
    page = page_of(folder)
    found = rows_under(page, "kind")
    assert [found[kind][:2] for kind in ("identical", "near", "declared")] == [
        *(["1", "1"], ["20", "0"], ["1", "1"]),
    ]
    twins = page[page.index('<div class="twins">') : page.index('<h2 id="what-was-left-out">')]
    assert twins.count("<p><strong>") == samples.PAIRS
    assert twins.count("<img") == 2 * samples.PAIRS - 1  # the dropped one has no picture
    for name in ("IMG_0100", "COPY", "IMG_0102"):
        assert 0 < twins.index(name) < twins.index("IMG_0000")
    assert "12 of 22 pairs" in words_of(twins)
    left = rows_under(page, "reason")
    assert left["byte for byte the same as another image"] == ["1", "COPY"]


def test_pair_of_different_labels_is_marked(folder):
    table = with_rows(make_table(), pd.DataFrame({"image_id_1": ["IMG_0000"], "image_id_2": ["X"]}))
    assert not table["differ"].any()
    target = make_table()["target"]
    benign, malignant = (make_table()["image_id"][target == t].iloc[0] for t in (0, 1))
    add_pairs(folder, [(benign, malignant, "near", False)])
    page = page_of(folder)
    assert rows_under(page, "kind")["near"][2] == "1"
    assert "different labels" in words_of(page)


def test_skipped_and_conflicts(tmp_path):
    conflict = {"lesion_id": "L7", "malignant": ["IMG_1"], "benign": ["IMG_2"]}
    folder = make_dataset(tmp_path / "d", conflicts=[conflict], dropped={"absent": ["A", "B"]})
    rows = [(f"X{i}", "train.csv line 9", "target is neither 0 nor 1") for i in range(7)]
    rows.append(("", "odd/name.jpg", "unsafe file name"))
    add_skipped(folder, rows)
    page = page_of(folder)
    found = rows_under(page, "reason")
    assert found["target is neither 0 nor 1"] == ["7", "X0, X1, X2, X3, X4 and 2 more"]
    assert found["unsafe file name"] == ["1", "odd/name.jpg"]
    assert found["absent"] == ["2", "A, B"]
    assert "L7 malignant: IMG_1; not malignant: IMG_2" in words_of(page)


def test_resolutions(folder):
    table, page = make_table(), page_of(folder)
    found = rows_under(page, "width × height")
    assert found["1024 × 768"] == expected(table[table["width"] == 1024])
    small = (table["height"] < 64).sum()
    assert f"{small} ({small / len(table):.1%}) are smaller than the 64 px" in words_of(page)


# --- one file, whatever is in it -----------------------------------------------------------------


def test_page_is_self_contained(folder):
    add_pairs(folder, [("IMG_0000", "IMG_0001", "near", False)])
    page = page_of(folder)
    loads = re.findall(r"""(?:src|srcset|href|action|data)\s*=\s*["']([^"']*)""", page)
    kinds = Counter(load.split(";")[0].split("#")[0] for load in loads)
    tables = page.count("<table")
    # samples, one of each diagnosis, pair; tables with their CSV; anchors and marks of figures
    assert kinds.pop("") > 2
    assert kinds.pop("data:image/png") == 1  # the colour bar of the sizes
    assert kinds == {"data:image/jpeg": 2 * samples.SAMPLES + 2 + 2, "data:text/csv": tables}
    assert tables > 8
    assert page.count("<svg") == 2  # resolution, skin tone
    assert page.count("<script") == 1
    for word in (r"url\((?!#)", "@import", "<link", "<iframe"):
        assert not re.search(word, page)


def test_only_options_that_its_source_uses_are_listed(tmp_path):
    options = {"source": "ham10000", "folds": 5, "seed": 0, "patients": 800, "best_auc": 0.9}
    page = page_of(make_dataset(tmp_path / "d", options=options | {"provenance": None}))
    shown = words_of(page[page.index('<details id="options">') :])
    assert "source ham10000 folds 5 seed 0" in shown
    for word in ("patients", "best_auc", "provenance"):
        assert word not in shown.split("As recorded")[0]


def test_content_is_escaped(tmp_path):
    table = make_table()
    table["image_id"] = [f"{NASTY} {i}" for i in range(len(table))]
    for column in ("diagnosis", "site", "sex", "lesion_id", "source"):
        table[column] = NASTY
    info = {"licence": NASTY, NASTY: [NASTY], "conflicts": [{"lesion_id": NASTY, NASTY: NASTY}]}
    info |= {"options": {NASTY: NASTY}, "sources": [{"name": NASTY, "licence": NASTY}]}
    folder = make_dataset(tmp_path / "<b>set", table, **info)
    add_pairs(folder, [(f"{NASTY} 0", f"{NASTY} 1", NASTY, True)])
    add_skipped(folder, [(NASTY,) * 3])
    page = page_of(folder)
    assert NASTY not in page
    assert page.count("<script") == 1
    assert "<b>" not in page
    assert words_of(page).count("<script>alert(1)") > 50


def test_tables_only(tmp_path):
    table = make_table().assign(width=0, height=0, sha256="", phash="")
    options = {"source": "siim2020", "tables_only": True}
    folder = make_dataset(tmp_path / "d", table, options=options)
    assert not (folder / "images.npy").exists()
    page = page_of(folder)
    words = words_of(page)
    assert "240 rows without their images" in words
    assert "No group lies in two parts" in words
    assert "Not known: only tables were read." in words
    assert "near-duplicates could not be looked for" in words
    assert "Not measured: the dataset has no images." in words
    assert "<img" not in page


def test_native_dataset(tmp_path):
    table, folder = make_table(24), tmp_path / "d"
    folder.mkdir()
    with ShardWriter(folder, 0) as shard:
        for row, image in enumerate(make_images(len(table))):
            content = cv2.imencode(".jpg", cv2.resize(image, (300, 200)))[1].tobytes()
            table.loc[row, "offset"] = shard.add(f"{row}.jpg", content)
            table.loc[row, ["shard", "length"]] = 0, len(content)
            table.loc[row, "sha256"] = hashlib.sha256(content).hexdigest()
    table = table.astype({"shard": "int32", "offset": "int64", "length": "int64"})
    look = Look(size="native", fit="crop", clean=())
    info = {"source": "folder", "options": {"size": "native"}, "look": look}
    store.seal_dataset(folder, table, info, {shard.name: shard.entry})
    page = page_of(folder)
    words = words_of(page)
    assert "stored at original size" in words
    assert "border of all 24 images" in words
    assert "enlarged" not in words
    labelled = int(table["target"].notna().sum())
    assert page.count("<img src=") == min(labelled, 2 * samples.SAMPLES) + 2


def test_no_labels_at_all(tmp_path):
    table = make_table()
    table["target"] = pd.array([pd.NA] * len(table), dtype="UInt8")
    words = words_of(page_of(make_dataset(tmp_path / "d", table.assign(fold=-3))))
    assert "240 without a label" in words
    assert not re.search(r"\b(nan|None)\b", words)


def test_large_sets_are_sampled(folder, monkeypatch):
    monkeypatch.setattr(samples, "TONES", 50)
    page = page_of(folder)
    assert "border of 50 images drawn at random from the 240" in words_of(page)
    assert sum(int(row[0]) for row in rows_under(page, "band").values()) == 50


def test_same_dataset_gives_the_same_bytes(folder):
    first = page_of(folder)
    assert page_of(folder) == first
    other = write_report(ReportOptions(folder, seed=1)).read_text()
    assert other != first


def test_prepared_dataset(options):
    from data.prepare import prepare

    prepare(options)
    page = page_of(options.out)
    assert "No group lies in two parts" in words_of(page)
    assert rows_under(page, "part")["all"][:3] == ["48", "", "16"]


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: (d / "manifest.json").unlink(), "no prepared dataset there"),
        (lambda d: (d / "manifest.json").write_text("[1"), "manifest.json: not JSON"),
        (lambda d: (d / "dataset.json").unlink(), "dataset.json: cannot be read"),
        (lambda d: (d / "dataset.json").write_text("[1"), "dataset.json: it is not what was"),
        (lambda d: (d / "table.parquet").write_bytes(b"PAR1"), "table.parquet: it is not what was"),
        (lambda d: (d / "images.npy").unlink(), "images.npy"),
        (lambda d: (d / "duplicates.parquet").write_bytes(b"x"), "duplicates.parquet: it is not"),
        (lambda d: (d / "skipped.csv").write_bytes(b"\xff\x00"), "skipped.csv: it is not what was"),
        (lambda d: (d / "report.html").mkdir(), "a folder of that name exists"),
        (lambda d: shutil.rmtree(d), "no prepared dataset there"),
    ],
)
def test_damaged_dataset_is_refused(folder, harm, message):
    add_pairs(folder, [("IMG_0000", "IMG_0001", "near", False)])
    add_skipped(folder, [("a", "b", "c")])
    harm(folder)
    with pytest.raises(UserError, match=message):
        write_report(ReportOptions(folder))
    assert not (folder / "report.html").is_file()


def test_changed_table_is_refused(folder):
    table = make_table()
    table.loc[0, "fold"] = 1
    table.to_parquet(folder / "table.parquet")
    with pytest.raises(UserError, match=r"table\.parquet: it is not what was written"):
        write_report(ReportOptions(folder))


def test_one_image_damaged_is_refused(folder):
    content = bytearray((folder / "images.npy").read_bytes())
    content[-5] ^= 1
    (folder / "images.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"images\.npy: image 239 .* is not what was written"):
        write_report(ReportOptions(folder))


def test_the_card_belongs_to_the_folder(folder):
    before = store.load_dataset(folder).identity
    write_report(ReportOptions(folder))
    write_report(ReportOptions(folder, seed=1))
    (check,) = verify(folder)
    assert check.faults == []
    assert store.load_dataset(folder).identity == before


def test_out_is_not_taken_from_anybody(folder, tmp_path):
    out = tmp_path / "mine.html"
    out.write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        write_report(ReportOptions(folder, TrackedOptions(out)))
    assert out.read_text() == "mine"
    write_report(ReportOptions(folder, TrackedOptions(out, overwrite=True)))
    assert "Dataset card" in out.read_text()
    with pytest.raises(UserError, match=r"ends in \.html"):
        write_report(
            ReportOptions(folder, TrackedOptions(folder / "table.parquet", overwrite=True))
        )
    below = out / "a.html"
    with pytest.raises(UserError, match="cannot be written to"):
        write_report(ReportOptions(folder, TrackedOptions(below)))


def test_command(folder, tmp_path):
    command = [sys.executable, "-m", "data.report"]
    done = subprocess.run([*command, folder], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == str(folder / "report.html")
    assert done.stdout.splitlines()[-1].startswith("next: python -m gan.train")
    wrong = subprocess.run([*command, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith(f"error: {tmp_path}: no prepared dataset there")
    assert wrong.stderr.count("\n") == 1
