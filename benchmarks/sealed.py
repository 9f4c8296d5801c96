"""What checking costs: images read as they are first touched, against a training's time for them.

    python -m benchmarks.sealed

A dataset of random images is written, opened and read twice, in batches of random rows as in a
training: with the check of every image, and from the bare memory map. Beside it the
default generator trains, in the same process and turn by turn, for the time that an epoch takes.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.provenance import provenance
from data.images.stored import map_images
from data.store import COLUMNS, IMAGES, load_dataset, write_dataset
from dermsynth import cli
from dermsynth.device import resolve
from dermsynth.files import write_json
from gan.networks import make_config
from gan.trainer import Trainer

BATCH = 64


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.sealed`."""

    images: int = 8000  # as many as HAM10000 has in the training part of a fold
    size: int = 128  # side in pixels
    rounds: int = 5  # the median of each counts
    seconds: float = 4.0  # of training in a round
    out: Path = Path("benchmarks/results/sealed.json")  # where the figures go


def main(options: Options) -> None:
    """Measure, write the figures, print them."""
    with tempfile.TemporaryDirectory() as name:
        figures = measure(options, Path(name) / "dataset")
    write_json(options.out, provenance("benchmarks.sealed", "torch", "numpy") | figures)
    print(json.dumps(figures, indent=1))


def measure(options: Options, path: Path) -> dict[str, float]:
    """Medians over the rounds, seconds and shares."""
    rng = np.random.default_rng(0)
    count, size = options.images, options.size
    table = pd.DataFrame({column: [None] * count for column in COLUMNS})
    table["image_id"] = [f"i{number:06d}" for number in range(count)]
    table["target"], table["group"] = np.arange(count) % 2, np.arange(count)
    table["fold"] = np.arange(count) % 5
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    write_dataset(path, pixels, table, {})
    trainer = Trainer(
        "lesiongan", make_config("lesiongan", size), 0, resolve("cpu", "auto", "bf16")
    )
    step = torch.from_numpy(pixels[: trainer.images_a_step])
    trainer.step(step)
    opened, checked, bare, trained = [], [], [], []
    for _ in range(options.rounds):
        begin = time.perf_counter()
        images = load_dataset(path).images
        opened.append(time.perf_counter() - begin)
        plain = map_images(path / IMAGES, count, "")
        checked.append(read_all(images, rng.permutation(count)))
        bare.append(read_all(plain, rng.permutation(count)))
        trained.append(seconds_an_image(trainer, step, options.seconds))
    epoch = count * statistics.median(trained)
    extra = statistics.median(a - b for a, b in zip(checked, bare, strict=True))
    return {
        "open_seconds": round(statistics.median(opened), 4),
        "read_checked_seconds": round(statistics.median(checked), 4),
        "read_bare_seconds": round(statistics.median(bare), 4),
        "check_microseconds_an_image": round(1e6 * extra / count, 1),
        "training_milliseconds_an_image": round(1e3 * epoch / count, 2),
        "share_of_first_epoch": round((extra + statistics.median(opened)) / epoch, 5),
    }


def read_all(images: object, order: np.ndarray) -> float:
    """Seconds that reading all rows once takes, in batches of random rows."""
    begin = time.perf_counter()
    for start in range(0, len(order), BATCH):
        np.asarray(images[order[start : start + BATCH]])  # type: ignore[index]
    return time.perf_counter() - begin


def seconds_an_image(trainer: Trainer, images: torch.Tensor, seconds: float) -> float:
    """Of the default generator's training."""
    begin, before = time.perf_counter(), trainer.steps
    while time.perf_counter() - begin < seconds:
        trainer.step(images)
    return (time.perf_counter() - begin) / ((trainer.steps - before) * trainer.images_a_step)


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.sealed", __doc__)
