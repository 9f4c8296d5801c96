"""The notebook runs from top to bottom, with the commands that it shows."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs/notebooks/first-hour.ipynb"


def as_python(source: str) -> str:
    """A cell as plain Python: `!command $NAME` runs the command, with this interpreter's python."""
    lines = []
    for line in source.splitlines():
        bare = line.lstrip()
        indent = line[: len(line) - len(bare)]
        if bare.startswith("!"):
            lines.append(f"{indent}shell({bare[1:]!r})")
        elif bare.startswith("%cd"):
            lines.append(f"{indent}os.chdir({bare[3:].strip()!r})")
        else:
            lines.append(line)
    return "\n".join(lines)


PRELUDE = f"""
import os, string, subprocess
def shell(command):
    command = string.Template(command).substitute(globals())
    command = command.replace("python -m", {shlex.quote(sys.executable)!r} + " -m", 1)
    subprocess.run(command, shell=True, check=True)
"""


def cells() -> list[str]:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def test_it_holds_no_outputs():
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path):
    program = PRELUDE + "\n".join(map(as_python, cells()))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        **{"cwd": tmp_path, "env": environment, "capture_output": True, "text": True},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "AUC " in done.stdout.splitlines()[-1]
