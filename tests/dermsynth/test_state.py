"""Checkpoints, seeds, signals."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dermsynth import checkpoint, seeds
from dermsynth.errors import UserError
from dermsynth.interrupts import stop_request


def trained(steps: int) -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def state(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}


def test_training_goes_on_as_if_unbroken(tmp_path: Path):
    checkpoint.save(tmp_path, state(*trained(3), 3))
    loaded = checkpoint.load(tmp_path)
    model, optimizer = trained(0)
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    for _ in range(loaded["step"], 5):
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(model.weight, trained(5)[0].weight)


def test_shared_and_strided_tensors_survive(tmp_path: Path):
    base = torch.arange(24, dtype=torch.bfloat16).reshape(1, 2, 3, 4)
    tree = {
        "a": base,
        "b": base.to(memory_format=torch.channels_last),
        "c": [base[0], None, "x", 1.5],
        7: {"empty": torch.zeros(0)},
    }
    checkpoint.save(tmp_path, tree)
    loaded = checkpoint.load(tmp_path)
    assert torch.equal(loaded["b"], base)
    assert torch.equal(loaded["c"][0], base[0])
    assert loaded["c"][1:] == [None, "x", 1.5]
    assert loaded[7]["empty"].shape == (0,)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: str, capsys):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(*trained(step), step))
    newest = tmp_path / checkpoint.NEWEST
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
    newest.write_bytes(
        {"truncate": content[:-9], "flip": content, "empty": b"", "text": b"hello" * 9}[damage]
    )
    assert checkpoint.load(tmp_path)["step"] == 1
    assert "damaged" in capsys.readouterr().out
    (tmp_path / checkpoint.PREVIOUS).write_bytes(b"")
    with pytest.raises(UserError, match="every checkpoint"):
        checkpoint.load(tmp_path)


def test_no_checkpoint_is_none_and_a_failed_save_keeps_the_newest(tmp_path: Path, monkeypatch):
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, {"step": 1})

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, {"step": 2})
    assert checkpoint.load(tmp_path)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NEWEST]


@given(st.lists(st.integers() | st.text(max_size=5), min_size=1, max_size=4))
def test_derived_seeds_fit_every_generator(parts: list):
    seed = seeds.derive(*parts)
    assert 0 <= seed < 2**63
    assert seed == seeds.derive(*parts)
    torch.Generator().manual_seed(seed)


def test_derived_seeds_differ():
    assert (
        len({seeds.derive(seed, "noise", step) for seed in range(30) for step in range(30)}) == 900
    )


def test_first_signal_asks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with stop_request() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        stop.requested = False  # seen
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_last_step_is_not_forgotten(number):
    def work():
        with stop_request() as stop:
            stop.message = "kept in runs/a"
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt, match="kept in runs/a"):
        work()
