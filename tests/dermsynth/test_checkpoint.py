"""Faults of checkpoints: no damage gives another state, and none a traceback."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from dermsynth import checkpoint
from dermsynth.errors import UserError

STATES = [
    {
        "weights": {"a": torch.arange(6.0).reshape(2, 3) + step, "b": torch.ones(3).bfloat16()},
        "optimizer": {0: {"step": torch.tensor(step)}, 1: [None, 0.5, "adam", True]},
        "step": step,
    }
    for step in (1, 2)
]


@pytest.fixture(scope="module")
def saved():
    """The bytes of the newest checkpoint and of the one before it."""
    with tempfile.TemporaryDirectory() as folder:
        for state in STATES:
            checkpoint.save(Path(folder), state)
        return [
            (Path(folder) / name).read_bytes() for name in (checkpoint.NEWEST, checkpoint.PREVIOUS)
        ]


def loaded(newest: bytes, previous: bytes | None) -> str:
    """The state in words, or `refused`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / checkpoint.NEWEST).write_bytes(newest)
        if previous is not None:
            (folder / checkpoint.PREVIOUS).write_bytes(previous)
        try:
            return repr(checkpoint.load(folder))
        except UserError:
            return "refused"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_the_same_state_or_the_one_before(saved, data):
    newest = bytearray(saved[0])
    header = 8 + int.from_bytes(newest[:8], "little")
    places = st.integers(0, header - 1) | st.integers(0, len(newest) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=3, unique=True)):
        newest[place] ^= data.draw(st.integers(1, 255))
    words = [repr(state) for state in reversed(STATES)]
    assert loaded(bytes(newest), saved[1]) in words
    assert loaded(bytes(newest), None) in (words[0], "refused")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_truncated_and_zeroed_checkpoints_give_the_one_before(saved, data):
    newest = saved[0]
    start = data.draw(st.integers(0, len(newest) - 1))
    end = data.draw(st.integers(start + 1, len(newest)))
    zeroed = newest[:start] + bytes(end - start) + newest[end:]
    before = repr(STATES[0])
    assert loaded(newest[:start], saved[1]) == before
    if zeroed != newest:
        assert loaded(zeroed, saved[1]) == before
        assert loaded(zeroed, zeroed) == "refused"


def test_tensors_of_another_checkpoint_do_not_pass(saved):
    """A header and a body that fit each other in all but what they are."""
    length = 8 + int.from_bytes(saved[0][:8], "little")
    mixed = saved[0][:length] + saved[1][length:]
    assert loaded(mixed, None) == "refused"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_the_systems_error_and_keeps_what_was_there(tmp_path, monkeypatch, number):
    checkpoint.save(tmp_path, STATES[0])
    (tmp_path / ".1.partial").write_bytes(b"of a killed process")

    def full(*_, **__):
        raise SafetensorError(f"I/O error: whatever (os error {number})")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=str(tmp_path)) as caught:
        checkpoint.save(tmp_path, STATES[1])
    assert caught.value.errno == number
    assert repr(checkpoint.load(tmp_path)) == repr(STATES[0])
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NEWEST]


def test_a_folder_or_a_pipe_where_a_checkpoint_belongs_is_refused(tmp_path):
    (tmp_path / checkpoint.NEWEST).mkdir()
    os.mkfifo(tmp_path / checkpoint.PREVIOUS)
    with pytest.raises(UserError, match="every checkpoint"):
        checkpoint.load(tmp_path)
