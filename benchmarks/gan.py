"""Architectures at equal wall-clock: KID on held-out melanoma after the same minutes of training.

    python -m data.prepare --source ham10000 --root DIR --test-fraction 0 \\
        --out datasets/ham10000-all
    python -m benchmarks.gan                                      all eight, 10 minutes, two seeds
    python -m benchmarks.gan --minutes 30 --archs lesiongan --archs projected --archs sngan
    python -m benchmarks.gan --archs projected --archs sngan --recipe augment=translation
    python -m benchmarks.gan --archs lesiongan --minutes 60 --share 0.056 --evaluations 6
                                                     of 50 melanomas, how it goes on the way
    python -m benchmarks.gan --archs lesiongan --kimg 53  what an hour of a CPU showed it, on a GPU

Nothing else may run on the machine meanwhile. One trained generator at a time, each in a folder of
its own under --runs: whatever is finished is not done again, so that the benchmark can be run in
pieces; a killed run goes on from its last checkpoint. Every architecture has its published recipe,
with the same DiffAugment and average (StyleGAN2 has its own ADA).
"""

import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from benchmarks.provenance import provenance, read_result
from dermsynth import cli
from dermsynth.cli import Repeatable
from dermsynth.device import resolve
from dermsynth.errors import UserError
from dermsynth.files import write_json
from dermsynth.folders import can_resume
from dermsynth.options import replace
from gan.evaluate import EvaluateOptions, evaluate
from gan.networks import ARCHITECTURES
from gan.sampling import draw_labels, sample
from gan.train import TrainOptions, train
from gan.weights import load_generator, read_description

# of the fine detail: names in the cell, where they stand in an evaluation's result
NEAR = {
    "texture_kid": ("texture", "synthetic", "kid"),
    "texture_kid_std": ("texture", "synthetic", "kid_std"),
    "spectrum_gap": ("texture", "spectrum_synthetic"),
    "weave": ("texture", "weave_synthetic"),
    "told_apart": ("audit", "synthetic", "auc"),
}
KEPT = ("kid", "kid_std", "kid_floor", "precision", "recall", "density", "coverage", "memorisation")
MADE = 512  # images whose making is timed


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.gan`."""

    data: Path = Path("datasets/ham10000-all")  # prepared with --test-fraction 0
    archs: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()  # which; all if not given
    minutes: float = 10.0  # of training, each
    kimg: float | None = None  # or thousands of images, each: the same on a machine of other speed
    seeds: int = 2  # runs of each architecture
    fold: int = 0  # whose validation part is held out
    share: float = 1.0  # of the malignant training groups
    evaluations: int = 0  # scores on the way, which choose what is shipped; 0: none, the last is
    recipe: Repeatable = ()  # NAME=VALUE, repeatable: what all of them are to have otherwise
    runs: Path = Path("runs/benchmark-gan")  # where the generators go
    out: Path = Path("benchmarks/results/gan.json")  # where the figures go


def main(options: Options) -> None:
    """Train and score what is missing; write every figure that there is."""
    if unknown := sorted(set(options.archs) - set(ARCHITECTURES)):
        raise UserError(f"--archs {', '.join(unknown)}: known are {', '.join(ARCHITECTURES)}")
    for seed in range(options.seeds):  # all once, then all again: a piece is a fair comparison
        for arch in options.archs or ARCHITECTURES:
            run_one(options, arch, seed)
            write_json(options.out, collect(options))
    print(table(collect(options)["cells"]))


def run_one(options: Options, arch: str, seed: int) -> None:
    """Train, score and time one generator, unless its cell.json says that this is done."""
    changed = "".join(f"-{word}" for word in options.recipe)
    changed += f"-fold{options.fold}" if options.fold else ""
    changed += f"-share{options.share:g}" if options.share < 1 else ""
    budget = f"{options.minutes:g}min" if options.kimg is None else f"{options.kimg:g}kimg"
    run = options.runs / f"{arch}{changed}-{budget}-seed{seed}"
    if (run / "cell.json").exists():
        return
    load = os.getloadavg()[0]
    resume = can_resume(run)
    common = {"data": options.data, "arch": arch, "kimg": options.kimg, "seed": seed}
    common |= {"minutes": options.minutes if options.kimg is None else None}
    common |= {"fold": options.fold, "recipe": options.recipe, "malignant_share": options.share}
    quiet = {"tracking": "none", "divergence": "warn", "evaluations": options.evaluations}
    train(replace(TrainOptions(), **common, **quiet, out=run, resume=resume))
    scores = evaluate(EvaluateOptions(generator=run, network="diagnosis"))
    made = read_description(run)
    cell = {
        "arch": arch + changed,
        "seed": seed,
        "minutes": made.minutes,
        "kimg": made.kimg,
        "shipped_kimg": made.shipped_kimg,
        "scored": [one.model_dump() for one in made.scored],
        "training_images": len(made.training_ids),
        "images_per_second": round(1000 * made.kimg / (60 * made.minutes), 1),
        "generated_per_second": generation_rate(run),
        **{key: scores[key] for key in KEPT},
        **{
            name: functools.reduce(lambda part, key: part[key], place, scores)
            for name, place in NEAR.items()
        },
        "memorisation_flagged": scores["memorisation_flagged"],
        "evaluation_network": scores["evaluation_network"],
        "kid_other": scores.get("kid_other"),
        "load_before": round(load, 1),
    }
    write_json(run / "cell.json", cell)


def generation_rate(run: Path) -> float:
    """Images a second from latents to uint8 pixels, the better of two rounds."""
    network, record = load_generator(run)
    labels = draw_labels(record.classes, None, MADE, 0)  # of a conditional generator
    compute = resolve("auto", "auto", cpu_auto="bf16")
    seconds = []
    for _ in range(2):
        started = time.monotonic()
        sample(network.to(compute.device), MADE, 0, compute, labels)
        seconds.append(time.monotonic() - started)
    return round(MADE / min(seconds), 1)


def collect(options: Options) -> dict[str, Any]:
    """All cells under --runs, of every piece, with machine and versions."""
    cells = [read_result(path) for path in sorted(options.runs.glob("*/cell.json"))]
    return {
        **provenance("benchmarks.gan", "torch", "numpy"),
        "threads": torch.get_num_threads(),
        "cells": cells,
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Means over seeds, the lowest KID of each budget first."""
    keys = sorted({(round(cell["minutes"]), cell["arch"]) for cell in cells})
    lines = []
    for minutes, arch in keys:
        rows = [c for c in cells if (round(c["minutes"]), c["arch"]) == (minutes, arch)]
        # None where a generator that collapsed leaves a figure undefined
        mean = {key: float(np.mean([_number(row[key]) for row in rows])) for key in KEPT}
        rate = np.mean([row["images_per_second"] for row in rows])
        lines.append(
            (
                minutes,
                mean["kid"],
                f"{minutes:>4} min  {arch:<32} {len(rows)} seeds  KID x1000 "
                f"{1000 * mean['kid']:7.1f}  precision {mean['precision']:.2f}  recall "
                f"{mean['recall']:.2f}  coverage {mean['coverage']:.2f}  {rate:5.1f} img/s",
            )
        )
    return "\n".join(line for *_, line in sorted(lines))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.gan", __doc__ or "")
