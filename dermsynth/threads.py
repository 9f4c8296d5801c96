"""How the threads of a computation wait for each other, said before torch is loaded.

By itself GNU's OpenMP, which torch brings along, lets a thread that waits spin. Where another
process has taken a core, the threads that spin take the other from the one they wait for.
"""

import os

WAITING = {"OMP_WAIT_POLICY": "passive"}  # chosen by benchmarks/threads.py
DECIDED_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def wait_passively() -> None:
    """Set `WAITING` for this process and those it starts, unless the user has decided."""
    if not any(name in os.environ for name in DECIDED_BY):
        os.environ.update(WAITING)
