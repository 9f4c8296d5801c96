"""Content ids and what is read through a manifest."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from dermsynth import manifest, verify
from dermsynth.errors import UserError
from dermsynth.manifest import Identity, as_input, check_same, digest, identify, open_sealed, seal
from dermsynth.records import Record
from dermsynth.row_hashes import CheckedRows, row_hashes


class Note(Record):
    text: str


def make(folder, weights=1.0):
    folder.mkdir()
    (folder / "note.json").write_text('{"text": "a"}')
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}).to_parquet(folder / "table.parquet")
    (folder / "model.safetensors").write_bytes(save({"w": torch.full((8, 8), weights)}))
    (folder / "sub").mkdir()
    (folder / "sub" / "picture.png").write_bytes(b"picture")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "newest").write_bytes(b"changes")
    source = Identity(kind="dataset", id=digest("d"), parts={"images": digest("i")})
    inputs = {"dataset": as_input(source, folder / "nowhere")}
    return seal(folder, "thing", {"weights": digest(weights)}, inputs, {"seed": 3})


def opened(folder):
    return open_sealed(folder, "thing", "no thing there", "make it again")


def read_everything(folder):
    sealed = opened(folder)
    return (
        sealed.record("note.json", Note),
        sealed.table("table.parquet", ["a", "b"]).to_dict(),
        sealed.tensors("model.safetensors")["w"].tolist(),
        sealed.bytes("sub/picture.png"),
        sealed.identity.id,
        sealed.manifest.options,
    )


def test_the_id_depends_on_content_and_inputs_not_on_the_place(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert first == second
    assert make(tmp_path / "c", weights=2.0).id != first.id
    other = Identity(kind="dataset", id=digest("e"), parts={})
    assert identify("thing", {"w": digest(1)}, {"dataset": other}).id != first.id
    shutil.move(tmp_path / "a", tmp_path / "moved")
    assert opened(tmp_path / "moved").identity == first


def test_what_is_in_the_manifest(tmp_path):
    make(tmp_path / "a")
    names = set(opened(tmp_path / "a").manifest.files)
    assert names == {"note.json", "table.parquet", "model.safetensors", "sub/picture.png"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "a"
    make(folder)
    return folder, read_everything(folder)


@settings(max_examples=150)
@given(data=st.data())
def test_any_damage_of_any_file_is_noticed_or_harmless(whole, data):
    folder, expected = whole
    files = ["manifest.json", "note.json", "table.parquet", "model.safetensors", "sub/picture.png"]
    path = folder / data.draw(st.sampled_from(files))
    content = path.read_bytes()
    kind = data.draw(st.sampled_from(["flip", "cut", "zero", "grow", "list"]))
    at = data.draw(st.integers(0, len(content) - 1))
    damaged = {
        "flip": content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :],
        "cut": content[:at],
        "zero": bytes(len(content)),
        "grow": content + b"0",
        "list": b"[]",
    }[kind]
    try:
        path.write_bytes(damaged)
        found = read_everything(folder)
    except UserError as error:
        found, said = expected, str(error)
    else:
        said = str(folder)
    finally:
        path.write_bytes(content)
    assert found == expected
    assert str(folder) in said
    assert "\n" not in said


def test_missing_foreign_and_unfinished_folders_are_told_apart(tmp_path):
    with pytest.raises(UserError, match=r"^no thing there$"):
        opened(tmp_path / "none")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_text("a: 1\n")
    with pytest.raises(UserError, match="earlier versions"):
        opened(tmp_path / "old")
    (tmp_path / "began").mkdir()
    manifest.begin(tmp_path / "began", "thing", {}, {})
    with pytest.raises(UserError, match=r"not finished. no thing there"):
        opened(tmp_path / "began")
    make(tmp_path / "a")
    with pytest.raises(UserError, match="a thing, expected a pool"):
        open_sealed(tmp_path / "a", "pool", "absent", "mend")


def test_a_version_of_the_future_is_refused_by_number(tmp_path):
    make(tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 77}))
    with pytest.raises(UserError, match="schema version 77, expected 2"):
        opened(tmp_path / "a")


def test_an_edited_manifest_does_not_fit_its_seal(tmp_path):
    make(tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    values = json.loads(path.read_text())
    values["options"]["seed"] = 4
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="does not fit its seal"):
        opened(tmp_path / "a")


def test_a_difference_is_told_by_name():
    one = identify("dataset", {"targets": digest(1), "images": digest(2)}, {})
    two = identify("dataset", {"targets": digest(9), "images": digest(2)}, {})
    check_same({"dataset": one}, {"dataset": one}, "run", "mend")
    with pytest.raises(UserError, match=r"run: .*dataset: other targets\); mend"):
        check_same({"dataset": one}, {"dataset": two}, "run", "mend")
    with pytest.raises(UserError, match="pool: there was none, now there is one"):
        check_same({"dataset": one}, {"dataset": one, "pool": two}, "run", "mend")
    with pytest.raises(UserError, match="pool: there was one, now there is none"):
        check_same({"dataset": one, "pool": two}, {"dataset": one}, "run", "mend")
    assert one.differences(two, ignoring=("targets",)) == []


def test_work_in_a_finished_folder_keeps_what_it_names_readable(tmp_path):
    identity = make(tmp_path / "a")
    sealed = opened(tmp_path / "a")
    manifest.loosen(tmp_path / "a", sealed.manifest, ("model.safetensors",))
    (tmp_path / "a" / "note.json").write_text("changed")
    sealed = opened(tmp_path / "a")
    assert sealed.identity == identity
    assert sealed.tensors("model.safetensors")["w"][0, 0] == 1
    with pytest.raises(UserError, match=r"not in manifest.json"):
        sealed.record("note.json", Note)


# --- rows ----------------------------------------------------------------------------------------


def test_rows_are_checked_when_they_are_first_read(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    hashes = row_hashes(array)
    array[7, 0, 0, 0] ^= 1
    rows = CheckedRows(array, hashes, tmp_path / "images.npy", "prepare it again")
    assert (rows[3] == array[3]).all()
    assert (rows[np.array([5, 1, 1])] == array[[5, 1, 1]]).all()
    assert rows[:3].shape == (3, 4, 4, 3)
    assert rows[-1].shape == (4, 4, 3)
    assert len(rows[[]]) == 0
    assert len(rows[np.arange(20) < 3]) == 3
    for chosen in (7, -13, slice(5, 9), [0, 7], np.arange(20)):
        with pytest.raises(UserError, match=r"image 7 .*prepare it again"):
            rows[chosen]
    with pytest.raises(UserError, match="image 7"):
        np.asarray(rows)


def test_a_copy_is_given_so_that_nobody_changes_what_was_checked(tmp_path):
    array = np.zeros((3, 2), np.uint8)
    rows = CheckedRows(array, row_hashes(array), tmp_path, "mend")
    rows[:2][0] = 9
    assert array.max() == 0


# --- verify --------------------------------------------------------------------------------------


def test_verify_names_what_is_wrong_in_folders_within_folders(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "a" / "sub" / "inner")
    assert [check.faults for check in verify.verify(tmp_path)] == [[], []]
    (tmp_path / "a" / "sub" / "inner" / "note.json").write_text('{"text": "b"}')
    (tmp_path / "a" / "note.json").unlink()
    (tmp_path / "a" / "stranger.txt").write_text("?")
    outer, inner = verify.verify(tmp_path)
    assert outer.faults == ["note.json: missing", "stranger.txt: not in the manifest"]
    assert inner.faults == ["note.json: changed or damaged"]
    with pytest.raises(UserError, match=r"no manifest.json there"):
        verify.verify(tmp_path / "a" / "checkpoint")
