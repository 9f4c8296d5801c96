"""What a result was computed on: the machine, and the versions of Python and packages."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dermsynth.errors import UserError

# instructions that decide the speed, and what is computed in bf16
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "neon", "bf16")


def cores() -> int:
    """CPU cores that this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_memory(need: int, what: str, mend: str) -> None:
    """Raise UserError where `need` bytes are more than can be had now, as far as that is known.

    `what` needs them, and `mend` is what to do about it.
    """
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if free and need > free[0]:
        raise UserError(
            f"{what} need {need / 2**30:,.1f} GiB of memory, {free[0] / 2**30:,.1f} GiB are free; "
            f"{mend}"
        )


def machine() -> dict[str, Any]:
    """The machine in words: processor, those of FLAGS that it has, cores, memory in GiB, system."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    words = [line.split() for line in lines if line.lower().startswith(("flags", "features"))]
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": names[0] if names else platform.machine(),
        "flags": [flag for flag in FLAGS if words and flag in words[0]],
        "cores": cores(),
        "memory_gib": round(memory, 1),
        "system": platform.system(),
    }


def versions(*packages: str) -> dict[str, str]:
    """The version of Python and of each package; those that are not installed are left out."""
    installed = {"python": platform.python_version()}
    for name in packages:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed
