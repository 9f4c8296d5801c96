"""Make a pool of synthetic lesions with a trained generator.

The same generator, count and seed give the same pool on the same machine, and a larger count only
adds images: image i depends on the seed and on i alone.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from dermsynth import cli
from dermsynth.files import check_replaceable, sha256
from dermsynth.options import Between, ComputeOptions, OutputOptions, Seed, check_bounds
from dermsynth.runs import free_name

Truncation = Annotated[float, Between(0, 1, above=True)]


@dataclass(frozen=True)
class GenerateOptions:
    """Options of `python -m gan.generate`."""

    generator: Path  # run folder of gan.train
    count: Annotated[int, Between(1, 10_000_000)] = 1000  # images
    label: str | None = None  # malignant (default), benign or a class; of a conditional generator
    seed: Seed = 0  # of the latents
    truncation: Truncation = 1.0  # 1 for training data; 0.7: typical and less varied pictures
    png: bool = False  # write the images as PNG files too
    output: OutputOptions = field(default_factory=OutputOptions)
    compute: ComputeOptions = field(default_factory=ComputeOptions)


def generate(options: GenerateOptions) -> Path:
    """Write a pool and return its folder; by default datasets/pool-RUN[-LABEL]-seedS.

    Raises UserError where the run is missing, unfinished or damaged, it does not know the label,
    or `out` is taken.
    """
    from data.pool import MARKER, write_pool  # imported here: --help does not wait for torch
    from dermsynth.device import resolve
    from gan.sampling import draw_labels, sample
    from gan.weights import WEIGHTS, load_generator

    check_bounds(options)
    network, description = load_generator(options.generator)
    labels = draw_labels(description, options.label, options.count, options.seed)
    label = options.label or "malignant"
    stem = f"pool-{options.generator.resolve().name}"
    stem += f"-{label}" if options.label else ""
    out = options.output.out or free_name(Path("datasets"), f"{stem}-seed{options.seed}")
    check_replaceable(out, MARKER, options.output.overwrite)
    compute = resolve(options.compute.device, options.compute.precision, cpu_auto="bf16")
    print(f"{options.count} {label} images from {options.generator} on {compute}")
    images = sample(network, options.count, options.seed, compute, labels, options.truncation)
    provenance = {
        "kind": "generator",
        "generator": description,
        "sha256": sha256(options.generator / WEIGHTS),
        "seed": options.seed,
        "label": label,
        "truncation": options.truncation,
    }
    write_pool(out, images, provenance, overwrite=options.output.overwrite, png=options.png)
    print(f"pool: {out}")
    return out


def main(options: GenerateOptions) -> None:
    """Make the pool, and name what comes next."""
    pool = generate(options)
    data = "--data DATASET --fold FOLD"
    cli.say_next(f"python -m classifier.train {data} --synthetic 0.3 --pool {pool}")


if __name__ == "__main__":
    cli.run(GenerateOptions, main, "gan.generate", __doc__)
