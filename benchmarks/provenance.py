"""How a result came about: the head of every file in benchmarks/results."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from dermsynth.machine import machine, versions


def provenance(module: str, *packages: str) -> dict[str, Any]:
    """The command of `python -m module`, the machine, the commit, and versions of packages."""
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine() | {"gpu": gpu()},
        "versions": versions(*packages),
    }


def gpu() -> str | None:
    """The GPU's name where torch is loaded and sees one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name()


def commit() -> str | None:
    """The commit that was measured, `+` where files differed from it; None outside a checkout."""
    home = Path(__file__).parent

    def git(*words: str) -> str:
        told = subprocess.run(["git", *words], cwd=home, capture_output=True, text=True, check=True)
        return told.stdout.strip()

    try:
        changed = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short=12", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return None


def read_result(path: Path) -> Any:
    """What a benchmark wrote before, as JSON."""
    return json.loads(path.read_text(encoding="utf-8"))
