"""Every command that writes something is a run at W&B: a new one without tracking fails here."""

import hashlib
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from wandb_files import Tracked, tracked

from data.transfer.published import SOURCES
from dermsynth.__main__ import COMMANDS, module_of
from dermsynth.options import flat_hints

UNTRACKED = {  # commands that make no result
    "experiments gallery": "a page of links to what lies there",
    "verify": "writes nothing",
}
TINY = ("--backbone", "vanilla-cnn", "--weights", "none", "--size", "32", "--epochs", "1")
GAN = ("--arch", "dcgan", "--recipe", "width=8", "--batch", "8", "--kimg", "0.032")
EXPERIMENT = {
    "seeds": [0],
    "classifier": {"backbone": "vanilla-cnn", "weights": "none", "size": 32},
    "arms": {"real": {}, "real_oversampled": {"oversample": 0.3}},
    "comparisons": [["real_oversampled", "real"]],
    "bootstrap": 1000,
}
# each with: its words, and its run's name, job, what it made and was made from (kinds), figures
CHAIN: dict[str, tuple[tuple[str, ...], str, str, set[str], set[str], set[str]]] = {
    "data prepare": (
        ("--patients", "200", "--size", "32", "--out", "datasets/p"),
        *("p", "data", {"dataset"}, set(), {"images", "groups"}),
    ),
    "data report": (
        ("datasets/p",),
        *("p/report", "data", {"dataset-card"}, {"dataset"}, {"images", "malignant", "torn"}),
    ),
    "data download": (
        ("isic2019", "--out", "raw"),
        *("raw", "data", {"download"}, set(), {"files", "bytes", "licence"}),
    ),
    "data phantom": (
        ("--count", "40", "--size", "32", "--out", "datasets/oracle"),
        *("oracle", "pool", {"pool"}, set(), {"images", "samples"}),
    ),
    "gan train": (
        ("--data", "datasets/p", "--fold", "0", *GAN, "--evaluations", "0", "--out", "runs/g"),
        *("g", "gan", {"generator"}, {"dataset"}, {"loss_d", "kimg", "samples"}),
    ),
    "gan generate": (
        ("--generator", "runs/g", "--count", "40", "--out", "datasets/made"),
        *("made", "pool", {"pool"}, {"generator"}, {"images", "samples"}),
    ),
    "gan evaluate": (
        (*("--generator", "runs/g", "--data", "datasets/p"), "--network", "imagenet"),
        *("g/evaluation", "evaluate", {"generator-evaluation"}, {"dataset", "generator"}, {"kid"}),
    ),
    "gan explore": (
        ("--generator", "runs/g"),
        *("g/exploration", "evaluate", {"exploration"}, {"generator"}),
        {"interpolation", "truncation"},
    ),
    "classifier train": (
        ("--data", "datasets/p", "--fold", "0", *TINY, "--out", "runs/c"),
        *("c", "train", {"classifier", "predictions"}, {"dataset"}, {"val_auc", "test/auc"}),
    ),
    "classifier evaluate": (
        ("--run", "runs/c", "--replicates", "200"),
        *("c/evaluation", "evaluate", {"classifier-evaluation"}, {"classifier", "predictions"}),
        {"test/auc", "test/auc_low"},
    ),
    "classifier predict": (
        ("--run", "runs/c", "--data", "datasets/p", "--out", "scores/s.csv"),
        *("scores/c-on-s", "predict", {"predictions"}, {"classifier", "dataset"}),
        {"images", "mean_score"},
    ),
    "classifier export": (
        ("--run", "runs/c", "--out", "nets/c.onnx"),
        *("nets/c-as-c", "export", {"onnx"}, {"classifier"}, {"bytes", "difference"}),
    ),
    "classifier metadata": (
        ("--data", "datasets/p", "--out", "runs/m"),
        *("m", "train", {"metadata-classifier", "predictions"}, {"dataset"}, {"test/auc"}),
    ),
    "classifier blend": (
        ("--scores", "a=runs/c", "b=runs/m", "--truth", "datasets/p", "--out", "blends/both.csv"),
        *("blends/both", "predict", {"predictions"}, {"dataset", "predictions"}),
        {"images", "auc_truth"},
    ),
    "experiments run": (
        ("e.yaml", "--data", "datasets/p", "--out", "runs/e", "--smoke"),
        *("e", "compare", {"experiment"}, {"dataset", "predictions"}, {"verdict", "delta_auc"}),
    ),
    "experiments report": (
        ("runs/e",),
        *("e/report", "compare", {"report"}, {"experiment"}, {"report"}),
    ),
}


def options_of(name: str) -> type:
    """The options of a command: what its module gives to cli.run."""
    package = import_module(module_of(name))
    is_package = hasattr(package, "__path__")
    module = import_module(f"{module_of(name)}.__main__") if is_package else package
    found = re.search(r"cli\.run\((\w+),", Path(module.__file__).read_text())
    return getattr(module, found[1])


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in UNTRACKED])
def test_every_command_that_writes_has_the_option_and_is_in_the_chain(name: str):
    assert "tracking" in flat_hints(options_of(name))
    assert name in CHAIN


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder in which every command has run, each with --tracking offline."""
    here = tmp_path_factory.mktemp("work")
    (here / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    write_download(here / "raw")
    for folder in ("scores", "nets", "blends"):
        (here / folder).mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    for name, (words, *_) in CHAIN.items():
        done = subprocess.run(
            [sys.executable, "-m", module_of(name), *words, "--tracking", "offline"],
            cwd=here,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert "not tracked" not in done.stdout, f"{name}: {done.stdout}"
        assert "W&B" not in done.stdout, f"{name}: {done.stdout}"
    return here


def write_download(folder: Path) -> None:
    """A download that is complete, so that the command fetches nothing."""
    source, files = SOURCES["isic2019"], {}
    for name in source.files:
        place = folder / (Path(name).stem if name.endswith(".zip") else name)
        if name.endswith(".zip"):
            place.mkdir()
            (place / "a.jpg").write_bytes(b"12345")
        else:
            folder.mkdir(exist_ok=True)
            place.write_bytes(b"image\n")
        unpacked = {"files": 1, "bytes": 5} if name.endswith(".zip") else None
        digest = hashlib.sha256(name.encode()).hexdigest()
        files[name] = {"url": f"https://x/{name}", "bytes": 6, "sha256": digest}
        files[name] |= {"checked": None, "etag": None, "unpacked": unpacked}
    said = {
        "schema_version": 1,
        "source": "isic2019",
        "page": source.page,
        "search": "",
        "limit": 0,
    }
    said |= {"licence": source.licence, "citation": source.citation, "files": files}
    (folder / "download.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def runs(work: Path) -> dict[str, Tracked]:
    paths = [path for path in work.rglob("*.wandb") if path.parent.name.startswith("offline-run")]
    return {run.name: run for run in map(tracked, sorted(paths))}


def kinds(names: dict) -> set[str]:
    """Kinds of artifacts of ours; W&B makes one of each table besides."""
    return {name.rsplit("-", 1)[0] for name in names if not name.startswith("run-")}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAIN)
def test_a_command_is_a_run_with_figures_and_lineage(runs: dict[str, Tracked], name: str):
    _, run_name, job, made, used, figures = CHAIN[name]
    run = runs[run_name]
    assert run.job == job
    assert run.group
    assert run.config["tracking"] == "offline"
    assert (kinds(run.made), kinds(run.used)) == (made, used)
    assert figures <= {key.removesuffix("/path") for key in run.keys}


@pytest.mark.slow
def test_what_one_command_made_another_uses(runs: dict[str, Tracked]):
    def only(name: str, kind: str) -> str:
        (found,) = (one for one in runs[name].made if one.startswith(f"{kind}-"))
        return found

    dataset = only("p", "dataset")
    for name in ("p/report", "g", "c", "m", "e", "blends/both"):
        assert dataset in runs[name].used
    assert only("g", "generator") in runs["g/exploration"].used
    assert only("c", "classifier") in runs["nets/c-as-c"].used
    members = {only("c", "predictions"), only("m", "predictions")}
    assert members <= set(runs["blends/both"].used)
    assert runs["raw"].table("downloaded")[1][0][0] == "ISIC_2019_Training_GroundTruth.csv"
    assert runs["p/report"].table("parts")[1][0][0] == "fold 0"
    assert runs["blends/both"].table("members")[1][0][:2] == ["a", 0.5]
    assert "</html>" in runs["p/report"].media("card").read_text()
