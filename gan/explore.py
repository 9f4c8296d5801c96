"""Look into a trained generator.

interpolation.png: each row walks from one latent to another; jumps are a sign of memorised images.
truncation.png: each row one latent, from the mean image (left) to the full variety (right).
projection.png, with --image: a real image beside the nearest image that the generator can make.
"""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from dermsynth import cli
from dermsynth.options import (
    Between,
    ComputeOptions,
    Seed,
    TrackingMode,
    as_plain,
    check_bounds,
    refuse_idle,
)


@dataclass(frozen=True)
class ExploreOptions:
    """Options of `python -m gan.explore`."""

    generator: Path  # run folder of gan.train
    image: Path | None = None  # a real image to find again in the generator
    label: str | None = None  # malignant (default), benign or a class; of a conditional generator
    steps: Annotated[int, Between(1, 1_000_000)] = 300  # of the search for --image
    seed: Seed = 0  # of the latents
    out: Path | None = (
        None  # folder for the pictures; default RUN/exploration; replaced at the next call
    )
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline
    compute: ComputeOptions = field(default_factory=ComputeOptions)


def explore(options: ExploreOptions) -> Path:
    """Write the pictures and return their folder.

    Raises UserError where the run or the image cannot be read, or the label is not known.
    """
    import numpy as np  # imported here: --help does not wait for torch

    from dermsynth.device import resolve
    from dermsynth.files import sha256
    from dermsynth.folders import whole_folder
    from dermsynth.manifest import seal, sealed_names
    from dermsynth.records import write_record
    from gan.exploration import FOLDER, KIND, ROWS, Projection, project, read_image, save_galleries
    from gan.pictures import save_grid
    from gan.sampling import draw_labels
    from gan.tracked import track_exploration
    from gan.weights import load_generator, open_generator

    check_bounds(options)
    refuse_idle(options, {"steps": (options.image is not None, "--image")})
    run = open_generator(options.generator)
    network, record = load_generator(run)
    labels = draw_labels(record.classes, options.label, ROWS, options.seed)
    real = None if options.image is None else read_image(options.image, record.size)
    compute = resolve(options.compute.device, options.compute.precision, cpu_auto="bf16")
    out = options.out or options.generator / FOLDER
    distance = None
    with whole_folder(out, KIND, overwrite=True) as folder:
        save_galleries(network, labels, options.seed, compute, folder)
        if real is not None:
            label = None if labels is None else int(labels[0])
            nearest, distance = project(network, real, label, options.steps, options.seed, compute)
            save_grid(folder / "projection.png", np.stack([real, nearest]), 2)
            found = Projection(image=str(options.image), distance=distance)
            write_record(folder / "projection.json", found)
            print(f"{options.image}: root mean square distance {distance:.1f} of 255 levels")
        parts = {name: sha256(folder / name) for name in sealed_names(folder)}
        seal(folder, KIND, parts, {"generator": run.as_input}, as_plain(options))
    track_exploration(options, out, run, distance)
    print(f"pictures: {out}")
    return out


def main(options: ExploreOptions) -> None:
    """Write the pictures, and name what comes next."""
    explore(options)
    cli.say_next(f"python -m gan.evaluate --generator {shlex.quote(str(options.generator))}")


if __name__ == "__main__":
    cli.run(ExploreOptions, main, "gan.explore", __doc__)
