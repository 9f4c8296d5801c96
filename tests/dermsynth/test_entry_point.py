"""`dermsynth`: lists the commands, runs them, names the nearest."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from dermsynth.__main__ import COMMANDS, module_of


def dermsynth(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    code = "from dermsynth.__main__ import main; main()"  # what the console script does
    command = [sys.executable, "-P", "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_every_command_of_the_list_is_there():
    for name in COMMANDS:
        assert importlib.util.find_spec(module_of(name)), name


def test_it_lists_commands_and_those_of_a_package():
    everything = dermsynth().stdout
    assert all(f"dermsynth {name} " in everything for name in COMMANDS)
    of_gan = dermsynth("gan").stdout
    assert "dermsynth gan train" in of_gan
    assert "classifier" not in of_gan
    assert dermsynth("--version").stdout.startswith("dermsynth 0.")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["gan", "tran"], "did you mean `dermsynth gan train`?"),
        (["prepaer"], "did you mean `dermsynth data prepare`?"),
        (["nonsense"], "`dermsynth` lists them"),
    ],
)
def test_an_unknown_command_names_the_nearest(words: list[str], hint: str):
    done = dermsynth(*words)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_runs_beside_folders_and_files_of_our_packages_names(tmp_path: Path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    for name in ("data.py", "gan.py", "classifier.py"):
        (tmp_path / name).write_text("raise SystemExit('somebody else is imported')\n")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise SystemExit('theirs')\n")
    for how in (["-P", "-m", "dermsynth"], ["-m", "dermsynth"]):
        command = [sys.executable, *how, "data", "prepare", "--patients", "30", "--size", "32"]
        done = subprocess.run(
            [*command, "--out", "prepared"], capture_output=True, text=True, cwd=tmp_path
        )
        if "-P" in how:
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            assert "exists already" in done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_there_without_torch(name: str):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['x', '--help']\n"
        "try:\n"
        f"    runpy.run_module({module_of(name)!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code in (0, None), stop.code\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'matplotlib', 'cv2', 'timm', 'wandb'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout
