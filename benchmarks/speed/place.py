"""Where a run measures, how much, and what it has to say beside figures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.speed.limits import Ceilings
from benchmarks.speed.timing import Way

Found = TypeVar("Found")


@dataclass
class Place:
    """A run of `python -m benchmarks.run`: what all parts share, and the report as it grows."""

    device: torch.device
    quick: bool  # the smallest sizes that still run everything
    large: bool  # also the sizes that take long
    rounds: int
    scratch: Path  # a folder for data, deleted at the end
    ceilings: Ceilings
    notes: list[str] = field(default_factory=list)  # what was left out, and why
    report: dict[str, Any] = field(default_factory=dict)  # tables by part

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def pick(self, quick: Found, cpu: Found, gpu: Found) -> Found:
        """A size by how much time there is."""
        return quick if self.quick else gpu if self.on_gpu else cpu

    def note(self, line: str) -> None:
        """Say and keep a line."""
        if line not in self.notes:
            self.notes.append(line)
            print(f"note: {line}", flush=True)

    def optional(self, name: str, make: Callable[[str], Way]) -> list[Way]:
        """A reference of a name, or none where its package is missing, which is noted."""
        try:
            return [make(name)]
        except ImportError as error:
            self.note(f"{name}: not measured, {error}")
            return []

    def peak_mib(self, work: Callable[[], object]) -> float | None:
        """The GPU's memory that a piece of work had in use at most; None on a CPU."""
        if not self.on_gpu:
            return None
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        torch.cuda.synchronize(self.device)
        return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
