"""What torch_xla was asked for: `make test-xla` runs these tests, on a CPU by PJRT."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from dermsynth import device


@dataclass
class Counts:
    """What a piece of work asked for."""

    compilations: int
    to_host: int  # tensors brought back
    on_host: list[str]  # operators that torch_xla left to the CPU


def _count(work: Callable[[], Any]) -> Counts:
    import torch_xla
    from torch_xla.debug import metrics

    def how_often(name: str) -> int:
        return (metrics.metric_data(name) or (0,))[0]

    metrics.clear_all()
    work()
    torch_xla.sync(wait=True)
    names = [name for name in metrics.counter_names() if name.startswith("aten::")]
    return Counts(how_often("CompileTime"), how_often("TransferFromDeviceTime"), names)


@pytest.fixture(scope="session")
def counted():
    """counted(work): the Counts of a piece of work, of all that it queued."""
    return _count


@pytest.fixture(scope="session")
def xla():
    """The CPU, by way of XLA."""
    pytest.importorskip("torch_xla", reason="torch_xla is not here: `make test-xla`")
    assert os.environ.get("PJRT_DEVICE") == "CPU", "run `make test-xla`"
    return device.resolve("xla", "fp32")


@pytest.fixture
def same_draws(monkeypatch):
    """Random numbers are drawn on the CPU, whose generator is not that of XLA, and sent."""
    for name in ("rand", "randn"):
        draw = getattr(torch, name)

        def drawn(*size, device=None, draw=draw, **options):
            return draw(*size, **options).to(device)

        monkeypatch.setattr(torch, name, drawn)
