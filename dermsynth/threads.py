"""How the threads of a computation wait for each other, said before torch is loaded.

By itself GNU's OpenMP, which torch brings along, lets a thread that waits spin. That is fastest
where the cores are free. Where another process has taken one, the threads that spin take the other
from the one they wait for, and waiting passively is twice as fast (docs/measurements/threads.md).
"""

import os
import statistics
import time
from pathlib import Path

from dermsynth.machine import cores

WAITING = {"OMP_WAIT_POLICY": "passive"}  # chosen by benchmarks/threads.py
DECIDED_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
LOOKS, PAUSE = 5, 0.004  # at what runs, and seconds between two of them


def choose_waiting() -> None:
    """Set `WAITING` where others need cores that this process would use.

    For this process and those it starts, unless the user has decided.
    """
    if not any(name in os.environ for name in DECIDED_BY) and is_crowded():
        os.environ.update(WAITING)


def is_crowded() -> bool:
    """Whether other processes run on some of the cores; False where it cannot be told."""
    others = []
    for _ in range(LOOKS):
        others.append(running() - 1)  # all but this one
        time.sleep(PAUSE)
    return statistics.median(others) + cores() > (os.cpu_count() or 1)


def running() -> int:
    """Processes that run or want to, on the whole machine; 1 where the system does not say."""
    try:
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 1
    counts = [line.split()[1] for line in lines if line.startswith("procs_running")]
    return int(counts[0]) if counts else 1
