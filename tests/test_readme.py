"""What README and the guides tell a reader exists: links, commands, modules, the Python example."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dermsynth.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
OURS = r"(?:dermsynth|data|gan|classifier|experiments|benchmarks)"
NAME = rf"(?<![\w/.-]){OURS}(?:\.\w+)+"  # a module, or something inside one
FILE_ENDINGS = (".py", ".yaml", ".json", ".md", ".j2", ".npy")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """Headings as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(name: str) -> bool:
    """Whether `package.module` or `package.module.Name` can be imported."""
    parent, _, last = name.rpartition(".")
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass  # the parent is a module, or is not there
    return bool(parent) and exists(parent) and hasattr(importlib.import_module(parent), last)


@pages
def test_every_link_leads_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        destination = (page.parent / path).resolve() if path else page
        assert destination.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(destination), f"{page}: {target}"


@pages
def test_no_line_is_too_long_to_read(page: Path):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120] == []


@pages
def test_every_command_exists(page: Path):
    text = page.read_text(encoding="utf-8")
    for module in set(re.findall(r"\bpython -m\s+([\w.]+)", text)) - {"venv", "build", "pip"}:
        if module != "PACKAGE.COMMAND":
            assert exists(module), f"{page}: python -m {module}"
    for command in re.findall(rf"`dermsynth ({OURS} \w+)", text):
        assert command in COMMANDS, f"{page}: dermsynth {command}"


@pages
def test_every_module_and_file_exists(page: Path):
    code = " ".join(re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")))
    for name in set(re.findall(NAME, code)):
        if not name.endswith(FILE_ENDINGS):
            assert exists(name), f"{page}: {name}"
    for path in set(re.findall(rf"(?<![\w/.-]){OURS}/[\w/.-]+\.(?:py|yaml|json)", code)):
        assert "NAME" in path or (ROOT / path).exists(), f"{page}: {path}"


@pytest.mark.slow
def test_the_python_example_runs_and_compares(tmp_path: Path):
    example = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(example) == 1
    assert len([line for line in example[0].splitlines() if line]) <= 17
    (tmp_path / "example.py").write_text(example[0])
    answer = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"^AUC [+-]0\.\d{3} \[[+-]0\.\d{3}, ", answer.stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_api_pages_are_made_from_docstrings(tmp_path: Path):
    command = re.search(r"-m pdoc .*", (ROOT / "Makefile").read_text())
    assert command is not None
    words = command[0].replace("runs/api", str(tmp_path)).split()
    subprocess.run([sys.executable, *words], check=True, cwd=ROOT, timeout=300)
    page = (tmp_path / "experiments/statistics/comparison.html").read_text(encoding="utf-8")
    assert "View Source" in page
    assert (tmp_path / "index.html").exists()


def test_the_comparison_of_ones_own_scores_runs(capsys):
    page = (ROOT / "docs/guides/python.md").read_text(encoding="utf-8")
    example = next(
        e for e in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "compare(" in e
    )
    exec(compile(example, "python.md", "exec"), {})
    verdict, difference, *_ = capsys.readouterr().out.split()
    assert verdict in ("helps", "inconclusive")
    assert float(difference) > 0
