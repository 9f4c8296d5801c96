"""Every recipe at what fits a small machine: AUC with its interval, and minutes.

    python -m data.prepare --source ham10000 --root DIR --test-fraction 0 \\
        --out datasets/ham10000-all
    python -m benchmarks.recipes                                     all, on one fold
    python -m benchmarks.recipes --names own-clinic --names frozen18 --fold all
    python -m benchmarks.recipes --names own-clinic --names other-clinics \\
        --names own-clinic+other-clinics --fold all --external isic2019=datasets/isic2019

A+B is the mean score of two recipes that are trained already: own-clinic+other-clinics is what
`default` comes to, without training both again. An external set is a second column:
a half of it to choose by and a half to report (benchmarks.elsewhere).

FITS says what is changed so that it fits: ImageNet weights that come with a package, and images of
the dataset's size. One training at a time, each in a folder of its own under --runs: whatever is
finished there is not done again, and a killed run goes on from its last checkpoint. --out keeps the
figures of earlier trainings, also of those whose folders are gone. What the recipe costs as it was
published is extrapolated from one step on a few images.
"""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from benchmarks import elsewhere
from benchmarks.provenance import read_result
from classifier.evaluate import MARKER, EvaluateOptions, evaluate
from classifier.model.classifier import Classifier
from classifier.options import RECIPES, TrainOptions
from classifier.run_folder import (
    open_networks,
    open_run,
    read_facts,
    read_metrics,
    read_predictions,
)
from classifier.training.setup import resolve
from dermsynth import cli, device
from dermsynth.errors import UserError
from dermsynth.files import write_json
from dermsynth.folders import can_resume
from dermsynth.machine import machine, versions

LITE = "--backbone efficientnet-lite2"
FITS = {
    "default": "",
    "own-clinic": "",
    "other-clinics": "",
    "frozen18": f"{LITE} --frozen 15",  # five stages, as b3's 18 blocks are
    "b3-meta-cutmix": f"{LITE} --size 128",
    "b6-tta-meta-ensemble": f"{LITE} --size 128",
    "b6-1024": f"{LITE} --size 128 --batch 32 --lr-start 0.00004",  # the same rate an image
    "ham7-scratch": "",
    "ham7-densenet": "--precision bf16",  # faster here: none of its convolutions is depthwise
    "ham7-vgg": f"{LITE} --frozen 15",
    "ham7-vgg-aux": f"{LITE} --frozen 15",
}
FIGURES = ("auc", "average_precision", "sensitivity_at_95_specificity")


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.recipes`."""

    data: Path = Path("datasets/ham10000-all")  # prepared with --test-fraction 0
    names: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()  # which; all if not given
    fold: int | Literal["all"] = 1  # held out; all: each in turn
    external: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()  # NAME=FOLDER to test on
    runs: Path = Path("runs/benchmark-recipes")  # where the trainings go
    out: Path = Path("benchmarks/results/recipes.json")  # where the figures go


def main(options: Options) -> None:
    """Train and score what is missing; write every figure that there is."""
    asked = {part for name in options.names for part in name.split("+")}
    if unknown := sorted(asked - set(FITS)):
        raise UserError(f"--names {', '.join(unknown)}: known are {', '.join(FITS)}")
    for name in options.names or FITS:
        (mix if "+" in name else run_one)(options, name)
        cells = collect(options)
        write_json(options.out, {"cells": cells})
    print(table(cells))


def run_one(options: Options, name: str) -> None:
    """Train and score one recipe, unless its cell.json says that this is done."""
    run = options.runs / f"{name}-fold{options.fold}"
    if (run / "cell.json").exists():
        return
    words = ["--config", os.path.relpath(RECIPES / f"{name}.yaml")]
    words += ["--data", str(options.data), "--fold", str(options.fold), *FITS[name].split()]
    words += [word for name in options.external for word in ("--external", name)]
    command = ["-m", "classifier.train", *words, "--out", str(run), "--tracking", "none"]
    resume = ["--resume"] if can_resume(run) else []
    load = os.getloadavg()[0]
    if code := subprocess.run([sys.executable, *command, *resume]).returncode:
        sys.exit(code)  # it has said why
    if not (run / "evaluation" / MARKER).exists():
        evaluate(EvaluateOptions(run=run))
    evaluated = read_result(run / "evaluation" / MARKER)["parts"]
    sealed = open_run(run)
    facts = [read_facts(network) for network in open_networks(sealed)]
    parts = {}
    for part, figures in evaluated.items():
        parts[part] = {key: figures[key] for key in FIGURES}
        if figures["classes"]:
            even = figures["classes"]["equal_prior"]["balanced_accuracy"]
            parts[part]["balanced_accuracy_equal_prior"] = even
    predictions = read_predictions(sealed)
    cell = {
        "recipe": name,
        "fold": options.fold,
        "command": shlex.join(["python", *command]),
        "epochs": [fold.epochs for fold in facts],
        "minutes": [round(fold.training_seconds / 60, 1) for fold in facts],
        "parts": parts,
        "elsewhere": elsewhere.measure(predictions)["elsewhere"] if options.external else {},
        "val_mean": read_metrics(sealed).get("val_mean"),
        "as_published": as_published(options, name),
        "load_before": round(load, 1),
        "machine": machine(),
        "versions": versions("torch", "numpy"),
        "threads": torch.get_num_threads(),
    }
    write_json(run / "cell.json", cell)


def mix(options: Options, name: str) -> None:
    """Score the mean of recipes that are trained. Raises UserError where one is not."""
    tables, cells = [], []
    for one in name.split("+"):
        run = options.runs / f"{one}-fold{options.fold}"
        if not (run / "cell.json").exists():
            raise UserError(f"--names {name}: {run} is not finished; give --names {one} before it")
        tables.append(read_predictions(open_run(run)))
        cells.append(read_result(run / "cell.json"))
    try:
        found = elsewhere.measure(elsewhere.mixed(tables))
    except ValueError as error:
        raise UserError(f"--names {name}: {error}; give each the same --external") from None
    parts = {
        part: {key: figures[key] for key in FIGURES}
        for part, figures in found["validation"].items()
    }
    cell = {
        "recipe": name,
        "fold": options.fold,
        "command": " and ".join(cell["command"] for cell in cells),
        "epochs": [number for cell in cells for number in cell["epochs"]],
        "minutes": [number for cell in cells for number in cell["minutes"]],
        "parts": parts,
        "elsewhere": found["elsewhere"],
    }
    folder = options.runs / f"{name}-fold{options.fold}"
    folder.mkdir(exist_ok=True)
    write_json(folder / "cell.json", cell)


def as_published(options: Options, name: str) -> dict[str, Any]:
    """Images a second of training at the recipe's own settings, and the hours of all its epochs.

    The second step on a few images, with random weights; without early stopping.
    """
    words = ["--config", str(RECIPES / f"{name}.yaml"), "--data", str(options.data)]
    chosen = cli.parse(TrainOptions, [*words, "--fold", "0", "--weights", "none"], "", "")
    device.resolve("cpu", "auto")  # memory as in a training
    setup = resolve(chosen)
    model = Classifier(setup.spec).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    n, side = max(2, min(16, setup.spec.at_once)), setup.spec.size
    x = torch.rand(n, 3, side, side).to(memory_format=torch.channels_last)
    metadata = torch.rand(n, setup.spec.columns) if setup.spec.columns else None
    for _ in range(2):
        started = time.monotonic()
        with torch.set_grad_enabled(not model.trunk_is_pure):
            features = model.trunk(x)
        model.tail(features, metadata).square().mean().backward()
        seconds = time.monotonic() - started
    images = chosen.steps.epochs * setup.training.n_real
    return {
        "backbone": chosen.model.backbone,
        "size": side,
        "batch": chosen.steps.batch,
        "epochs": chosen.steps.epochs,
        "images_per_second": float(f"{n / seconds:.2g}"),
        "hours_a_fold": float(f"{images * seconds / n / 3600:.2g}"),
    }


def collect(options: Options) -> list[dict[str, Any]]:
    """The cells in --out, and in their place and beside them those under --runs."""
    known = read_result(options.out)["cells"] if options.out.exists() else []
    new = [read_result(path) for path in options.runs.glob("*/cell.json")]
    cells = {(cell["recipe"], str(cell["fold"])): cell for cell in known + new}
    return [cells[key] for key in sorted(cells)]


def table(cells: list[dict[str, Any]]) -> str:
    """A line a training, the highest AUC first."""
    lines = []
    for cell in cells:
        figures = next(iter(cell["parts"].values()))  # validation, or out of fold
        words = [
            f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
            for figure in figures.values()
        ]
        line = f"{cell['recipe']:<22} fold {cell['fold']:<4} " + "  ".join(words)
        line += f"  {cell['minutes']} min, {cell['epochs']} epochs"
        if there := elsewhere.columns(cell):
            line += f"\n    {there}"
        lines.append((figures["auc"]["value"], line))
    return "\n".join(line for _, line in sorted(lines, reverse=True))


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.recipes", __doc__ or "")
