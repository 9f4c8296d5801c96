"""Ways of doing the same work, timed in turn, and what they come to: medians and ratios."""

import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Way:
    """One way: `work` does all of the work once, and may leave the device busy."""

    name: str
    work: Callable[[], object]
    ours: bool = False
    prepare: Callable[[], object] | None = None  # before each time, not timed
    part: float = 1.0  # of the work that `work` does: slow ways do less; seconds are of the whole


@dataclass(frozen=True)
class Timing:
    """What a piece of work took: by the clock, and of processors over all processes it started."""

    seconds: float
    cpu_seconds: float


@dataclass
class Times:
    """A way's timings, one a round."""

    way: str
    ours: bool
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def timed(work: Callable[[], object], device: torch.device) -> Timing:
    """Time a piece of work, with all that it has put on the device before and after it done."""
    wait_for(device)
    seconds, cpu = time.perf_counter(), cpu_seconds()
    work()
    wait_for(device)
    return Timing(time.perf_counter() - seconds, cpu_seconds() - cpu)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turn(
    ways: Sequence[Way], rounds: int, device: torch.device, warm_ups: int = 1
) -> list[Times]:
    """Time all ways, one after the other, `rounds` times: A B A B ...; warm-ups do not count."""
    times = [Times(way.name, way.ours) for way in ways]
    for number in range(-warm_ups, rounds):
        for way, kept in zip(ways, times, strict=True):
            if way.prepare is not None:
                way.prepare()
            took = timed(way.work, device)
            if number >= 0:
                kept.seconds.append(took.seconds / way.part)
                kept.cpu_seconds.append(took.cpu_seconds / way.part)
    return times


def comparison(what: str, amount: float, unit: str, times: Sequence[Times]) -> dict[str, Any]:
    """A table of the report: each way's median rate, and how many times as fast ours is.

    Ratios are medians over rounds of (the way's time / the time of the first of ours), so that what
    else the machine did in a round meets both. On a device of its own only the clock's count.

    Parameters
    ----------
    what : is done
    amount, unit : of work in a round, such as 640 images
    times : of all ways, the first of ours is what the others are compared with
    """
    ours = next((each for each in times if each.ours), None)
    rows = []
    for each in times:
        row: dict[str, Any] = {
            "way": each.way,
            "ours": each.ours,
            "rate": significant(amount / statistics.median(each.seconds)),
            "rate_cpu": significant(amount / max(statistics.median(each.cpu_seconds), 1e-9)),
        }
        if ours is not None:
            row["ours_times_as_fast"] = ratio(each.seconds, ours.seconds)
            row["ours_times_as_fast_cpu"] = ratio(each.cpu_seconds, ours.cpu_seconds)
        row["seconds"] = [significant(value) for value in each.seconds]
        row["cpu_seconds"] = [significant(value) for value in each.cpu_seconds]
        rows.append(row)
    return {"what": what, "amount": amount, "unit": unit, "ways": rows}


def ratio(times: Sequence[float], ours: Sequence[float]) -> float:
    """Median over rounds of a way's time by that of ours; above 1 ours is faster."""
    return significant(
        statistics.median(a / max(b, 1e-9) for a, b in zip(times, ours, strict=True))
    )


def significant(value: float, digits: int = 4) -> float:
    """A number with so many digits; figures of a clock have no more."""
    return float(f"{value:.{digits}g}")


# --------------------------------------------------------------------------------- processor time


def cpu_seconds() -> float:
    """Processor seconds of this process and of all it started, those that still run included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + _running("self")


def _running(process: str) -> float:
    """Seconds of the running children of a process, and of theirs; 0 where there is no /proc."""
    seconds = 0.0
    for listing in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = listing.read_text().split()
        except OSError:  # the thread has ended
            continue
        for child in children:
            try:  # the name, in brackets, may hold spaces; 12: time in user mode, of 15 in all
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
            seconds += _running(child)
    return seconds


# -------------------------------------------------------------------------------- other processes


@dataclass(frozen=True)
class Ended:
    """What a process took until it ended, those that it waited for included."""

    seconds: float
    cpu_seconds: float
    peak_mib: float  # of resident memory, of the largest process


def run(command: Sequence[str], **variables: str) -> Ended:
    """Run a command without a terminal. Raises RuntimeError with what it said where it fails."""
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        child = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=os.environ | variables
        )
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            tail = said.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)}: status {child.returncode}\n{tail}")
    return Ended(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
