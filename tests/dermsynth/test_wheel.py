"""The wheel holds what the tree holds, and works installed, beside folders of the same names."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("dermsynth", "data", "gan", "classifier", "experiments")
DELIVERED = (".py", ".yaml", ".j2", ".css", ".typed")  # everything in the packages, by its ending
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
EXPERIMENT = {
    "seeds": [0],
    "gan": {"kimg": 0.032, "batch": 8},
    "classifier": {"backbone": "efficientnet-lite0", "weights": "none", "epochs": 1, "size": 32},
    "arms": {"real": {}, "synthetic": {"synthetic": 0.3}},
    "comparisons": [["synthetic", "real"]],
    "bootstrap": 1000,
}


def tree() -> list[str]:
    """The project's files, from its root: committed ones and new ones."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        answer = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: what belongs to the tree is not known")
    return [name for name in answer.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files alone: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("copy")
    for name in tree():
        if name.startswith(PACKAGES) or "/" not in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the setuptools that is installed, without a download."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-c", BUILD, str(out)]
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {name for name in tree() if name.partition("/")[0] in PACKAGES}
    assert {Path(name).suffix for name in held} <= set(DELIVERED)


def test_the_wheel_says_its_name_version_licence_and_command(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    by_name = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
    metadata = archive.read(by_name["METADATA"]).decode()
    assert "\nName: dermsynth\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "LICENSE" in by_name
    entry_points = archive.read(by_name["entry_points.txt"]).decode()
    assert "dermsynth = dermsynth.__main__:main" in entry_points


# ------------------------------------------------------------------------------------- installed


class Installed:
    """A fresh environment, and a working directory of the user's with names like ours."""

    def __init__(self, folder: Path, *install: str) -> None:
        self.environment, self.work = folder / "environment", folder / "work"
        make = [sys.executable, "-m", "venv", "--without-pip", self.environment]
        subprocess.run(make, check=True)
        self._see_dependencies()
        pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(self.environment), "install"]
        offline = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
        subprocess.run([*pip, *offline, *install], check=True)
        (self.work / "data" / "images").mkdir(parents=True)
        (self.work / "data.py").write_text("raise RuntimeError('the data.py of the user')\n")
        (self.work / "gan.py").write_text("raise RuntimeError('the gan.py of the user')\n")
        (self.work / "experiments").mkdir()

    def _see_dependencies(self) -> None:
        """Third-party packages from here; an editable install among them is not followed."""
        own = {"base": str(self.environment), "platbase": str(self.environment)}
        site = Path(sysconfig.get_path("purelib", vars=own))
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def __call__(self, line: str = "") -> str:
        """Run `dermsynth LINE` in the working directory; what it printed."""
        command = [self.environment / "bin" / "dermsynth", *line.split()]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
        answer = subprocess.run(
            command, cwd=self.work, env=environment, capture_output=True, text=True
        )
        assert answer.returncode == 0, f"{line}: {answer.stdout}\n{answer.stderr}"
        return answer.stdout


def walk_through(dermsynth: Installed) -> None:
    """From a dataset to a verdict, as a user would."""
    place, work = "--device cpu --tracking none", dermsynth.work
    dermsynth("data prepare --patients 80 --prevalence 0.3 --size 64 --out datasets/p")
    dermsynth(f"gan train --data datasets/p --kimg 0.032 --batch 8 --out runs/gan/g {place}")
    dermsynth("gan evaluate --generator runs/gan/g --device cpu")
    assert (work / "runs/gan/g/evaluation.html").exists()
    small = "--backbone efficientnet-lite0 --size 32 --epochs 1 --synthetic 0.3"  # makes its pool
    dermsynth(f"classifier train --data datasets/p {small} --out runs/cls/c {place}")
    assert (work / "runs/cls/c/model.safetensors").exists()
    dermsynth("classifier evaluate --run runs/cls/c --replicates 200")
    assert (work / "runs/cls/c/evaluation/evaluation.html").exists()
    (work / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    dermsynth(f"experiments run e.yaml --data datasets/p --out runs/exp/e {place}")
    trials = pd.read_parquet(work / "runs/exp/e/trials.parquet")
    assert set(trials["status"]) == {"done"}
    assert (work / "runs/exp/e/report.html").exists()
    in_the_users_folder = {path.name for path in (work / "data").iterdir()}
    assert in_the_users_folder == {"images"}


def test_the_wheel_lists_its_commands_beside_the_users_own_names(wheel: Path, tmp_path: Path):
    dermsynth = Installed(tmp_path, str(wheel))
    assert "dermsynth data prepare" in dermsynth()
    assert "--patients" in dermsynth("data prepare --help-all")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_goes_from_a_dataset_to_a_verdict_anywhere(wheel: Path, tmp_path: Path):
    walk_through(Installed(tmp_path, str(wheel)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_editable_install_works_beside_the_users_own_names(copy: Path, tmp_path: Path):
    walk_through(Installed(tmp_path, "--editable", str(copy)))
