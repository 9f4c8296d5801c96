"""How a result came about: the head of every file in benchmarks/results."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from dermsynth.machine import machine, versions


def provenance(module: str, *packages: str) -> dict[str, Any]:
    """The command of `python -m module`, the machine, and the versions of Python and packages."""
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(*packages),
    }


def read_result(path: Path) -> Any:
    """What a benchmark wrote before, as JSON."""
    return json.loads(path.read_text(encoding="utf-8"))
