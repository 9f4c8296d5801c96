"""Sweeps: what an agent of W&B would run is what our commands take; one is run."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils
from wandb_files import only_run

from classifier.options import TrainOptions, check_values
from data.prepare import PrepareOptions, prepare
from dermsynth.cli import parse
from dermsynth.options import flat, replace

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "experiments" / "sweeps").glob("*.yaml"))
BOUNDS = ("min", "max")


def choices(parameter: dict) -> list:
    if "value" in parameter:
        return [parameter["value"]]
    return parameter.get("values") or [parameter[bound] for bound in BOUNDS]


def commands(path: Path) -> list[list[str]]:
    """The commands of an agent, made by W&B's own code: each combination, bounds for ranges."""
    sweep = utils.load_sweep_config(str(path))
    names = list(sweep["parameters"])
    made = []
    for values in itertools.product(*map(choices, sweep["parameters"].values())):
        given = {name: {"value": value} for name, value in zip(names, values, strict=True)}
        said = utils.create_sweep_command_args({"args": given})
        said |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
        line = []
        for word in utils.create_sweep_command(list(sweep["command"])):
            line += said[word[2:-1]] if word.startswith("${") else [word]
        made.append(line)
    return made


def test_there_are_three():
    assert [path.stem for path in SWEEPS] == ["dose", "frozen-blocks", "learning-rate"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_command_line_takes_what_an_agent_gives(path: Path):
    lines = commands(path)
    assert len(lines) == {"dose": 12, "frozen-blocks": 18, "learning-rate": 12}[path.stem]
    told_apart = set()
    for line in lines:
        assert line[:4] == ["/usr/bin/env", "python", "-m", "classifier.train"]
        assert all(word.startswith("--") and "=" in word for word in line[4:])
        options = parse(TrainOptions, line[4:], "", "")
        check_values(options)
        told_apart.add(tuple(map(str, flat(options).values())))
    assert len(told_apart) == len(lines)  # every parameter arrives


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_what_is_optimised_is_a_curve_of_validation(path: Path):
    sweep = yaml.safe_load(path.read_text())
    assert sweep["metric"] == {"name": "val_auc", "goal": "maximize"}
    assert sweep["method"] in ("grid", "bayes")


def run_as_an_agent_does(*words: str) -> None:
    """classifier.train with the variables that an agent sets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    kept |= {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "abcd1234", "WANDB_RUN_ID": "run00001"}
    done = subprocess.run(
        [sys.executable, "-m", "classifier.train", *words],
        cwd=ROOT,
        env=kept,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout


@pytest.mark.slow
def test_an_agents_command_runs_and_logs_what_is_optimised(tmp_path: Path):
    data, out = tmp_path / "phantom", tmp_path / "run"
    prepare(replace(PrepareOptions(), patients=60, size=32, out=data))
    line = commands(SWEEPS[1])[0][4:]
    line = [word for word in line if word.split("=")[0] not in ("--data", "--epochs")]
    tiny = [f"--data={data}", f"--out={out}", "--epochs=1", "--size=32", "--smoke"]
    run_as_an_agent_does(*line, *tiny)
    run = only_run(out)
    assert run.path.name == "run-run00001.wandb"  # the sweep's run, not one of our own
    assert "val_auc" in run.rows[0]
    assert run.config["seed"] == 0


@pytest.mark.slow
def test_folds_are_runs_of_their_own_beside_the_sweeps_run(tmp_path: Path):
    data, out = tmp_path / "phantom", tmp_path / "run"
    prepare(replace(PrepareOptions(), patients=100, size=32, folds=2, out=data))
    tiny = ["--backbone=vanilla-cnn", "--weights=none", "--size=32", "--epochs=1"]
    run_as_an_agent_does(f"--data={data}", f"--out={out}", "--fold=all", *tiny)
    whole, folds = only_run(out), [only_run(out / f"fold{fold}") for fold in (0, 1)]
    assert whole.path.name == "run-run00001.wandb"
    assert len({run.path.name for run in (whole, *folds)}) == 3
    assert (whole.sweep, [run.sweep for run in folds]) == ("abcd1234", ["", ""])
    assert whole.value("val_auc") == pytest.approx(whole.value("val_mean/auc"))
    means = [run.value("val/auc") for run in folds]
    assert whole.value("val_auc") == pytest.approx(sum(means) / 2)
