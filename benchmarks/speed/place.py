"""Where a run measures, how much, and what it has to say beside figures."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.limits import Ceilings
from benchmarks.speed.timing import Way

Found = TypeVar("Found")
Piece = dict[str, list[dict[str, Any]]]  # of a part's report: comparisons, limits, curves
LATER: Piece = {}  # what comes after it waits for all parts: it matters less, or disturbs them
Pieces = Iterator[Piece]


@dataclass
class Place:
    """A run of `python -m benchmarks.run`: what all parts share, and the report as it grows."""

    device: torch.device
    quick: bool  # the smallest sizes that still run everything
    large: bool  # also the sizes that take long
    compiled: bool  # also what has to be compiled first
    rounds: int
    scratch: Path  # a folder for data, deleted at the end
    ceilings: Ceilings
    others: Path | None = None  # checkouts of the authors' generators
    notes: list[str] = field(default_factory=list)  # what was left out, and why

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
        """A reference of a name, or none, noted, where its package is missing or it fails."""
        try:
            return [make(name)]
        except (ImportError, RuntimeError) as error:
            self.note(f"{name}: not measured, {' '.join(str(error).split())[:300]}")
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

    def busy_seconds(self, work: Callable[[], object]) -> float | None:
        """Seconds of a piece of work in which the GPU computes or copies; None on a CPU."""
        if not self.on_gpu:
            return None
        torch.cuda.synchronize(self.device)
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            work()
            torch.cuda.synchronize(self.device)
        on_card = torch.autograd.DeviceType.CUDA
        spans = [
            (event.time_range.start, event.time_range.end)
            for event in seen.events() or []
            if event.device_type == on_card and not getattr(event, "is_user_annotation", False)
        ]
        return union(spans) / 1e6


def union(spans: list[tuple[float, float]]) -> float:
    """Length of what (start, end) cover, in their unit; what overlaps counts once."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(end - max(start, reached), 0)
        reached = max(reached, end)
    return covered
