"""Make a pool of synthetic lesions with a trained generator.

The same generator, count and seed give the same pool on the same machine, and a larger count only
adds images: image i depends on the seed and on i alone.
"""

import contextlib
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from dermsynth import cli
from dermsynth.errors import UserError, counted
from dermsynth.files import free_name, free_space
from dermsynth.folders import check_replaceable, whole_folder
from dermsynth.options import (
    Between,
    ComputeOptions,
    Seed,
    TrackedOptions,
    check_bounds,
    replace,
)
from dermsynth.tracked import config_of

Truncation = Annotated[float, Between(0, 1, above=True)]
BYTES = 32  # of an image's hash


@dataclass(frozen=True)
class GenerateOptions:
    """Options of `python -m gan.generate`."""

    generator: Path  # run folder of gan.train
    count: Annotated[int, Between(1, 10_000_000)] = 1000  # images
    label: str | None = None  # malignant (default), benign or a class; of a conditional generator
    seed: Seed = 0  # of the latents
    truncation: Truncation = 1.0  # 1 for training data; 0.7: typical and less varied pictures
    png: bool = False  # write the images as PNG files too
    output: TrackedOptions = field(default_factory=TrackedOptions)
    compute: ComputeOptions = field(default_factory=ComputeOptions)


def generate(options: GenerateOptions) -> Path:
    """Write a pool and return its folder; by default datasets/pool-RUN[-LABEL]-seedS.

    Images are written as they are made. Raises UserError where the run is missing, unfinished or
    damaged, it does not know the label, `out` is taken, or the disk has no room.
    """
    from data.pool import KIND, save_pngs, seal_pool  # here: --help does not wait for torch
    from data.provenance import PoolRecord, Provenance
    from data.store import image_writer
    from dermsynth.device import resolve
    from gan.sampling import draw_labels, sample_batches
    from gan.tracked import track_pool
    from gan.weights import load_generator, open_generator

    check_bounds(options)
    overwrite, seed, count = options.output.overwrite, options.seed, options.count
    sealed = open_generator(options.generator)
    network, record = load_generator(sealed)
    label = options.label or "malignant"
    stem = f"pool-{options.generator.resolve().name}"
    stem += f"-{label}" if options.label else ""
    out = options.output.out or free_name(Path("datasets"), f"{stem}-seed{seed}")
    check_replaceable(out, KIND, overwrite)
    space = _check_space(options, record.size, out)
    compute = resolve(options.compute.device, options.compute.precision, cpu_auto="bf16")
    print(f"{counted(count, f'{label} image')} ({space}) from {options.generator} on {compute}")
    labels = draw_labels(record.classes, options.label, count, seed)
    provenance = Provenance(
        kind="generator",
        generator=record,
        generator_id=sealed.identity.id,
        seed=seed,
        label=label,
        truncation=options.truncation,
    )
    batches = sample_batches(network, count, seed, compute, labels, options.truncation)
    with whole_folder(out, KIND, overwrite) as folder, contextlib.closing(batches):
        with image_writer(folder, record.size) as append:
            done = 0
            for images in batches:
                append(images)
                if options.png:
                    save_pngs(folder, images, done)
                done += len(images)
        pool = PoolRecord(count=count, size=record.size, provenance=provenance)
        seal_pool(folder, pool, {"generator": sealed.as_input})
    track_pool(replace(options.output, out=out), config_of(options), record, sealed)
    print(f"pool: {out}")
    return out


def _check_space(options: GenerateOptions, size: int, out: Path) -> str:
    """What the pool takes on the disk, in words. Raises UserError where that is not free."""
    needed = options.count * (size * size * 3 * (2 if options.png else 1) + BYTES)
    free = free_space(out)
    if needed > free:
        raise UserError(
            f"--count {options.count}: takes {needed:,} bytes ({_gib(needed)}) at {size} px, "
            f"{free:,} ({_gib(free)}) are free where {out} is to lie; make fewer, or choose an "
            "--out on a larger disk"
        )
    return _gib(needed)


def _gib(count: int) -> str:
    unit, size = ("GiB", 2**30) if count >= 2**28 else ("MiB", 2**20)
    return f"{count / size:.2g} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"


def main(options: GenerateOptions) -> None:
    """Make the pool, and name what comes next."""
    pool = generate(options)
    data = "--data DATASET --fold FOLD"
    cli.say_next(
        f"python -m classifier.train {data} --synthetic 0.3 --pool {shlex.quote(str(pool))}"
    )


if __name__ == "__main__":
    cli.run(GenerateOptions, main, "gan.generate", __doc__)
