"""How a result came about: the head of every file in benchmarks/results."""

import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from experiments.results import machine


def provenance(module: str, *packages: str) -> dict[str, Any]:
    """The command of `python -m module`, the machine, and the versions of Python and packages.

    Packages that are not installed are left out.
    """
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions,
    }
