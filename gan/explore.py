"""Look into a trained generator.

interpolation.png: each row walks from one latent to another; jumps are a sign of memorised images.
truncation.png: each row one latent, from the mean image (left) to the full variety (right).
projection.png, with --image: a real image beside the nearest image that the generator can make.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from dermsynth import cli
from dermsynth.options import Between, ComputeOptions, Seed, check_bounds, refuse_idle


@dataclass(frozen=True)
class ExploreOptions:
    """Options of `python -m gan.explore`."""

    generator: Path  # run folder of gan.train
    image: Path | None = None  # a real image to find again in the generator
    label: str | None = None  # malignant (default), benign or a class; of a conditional generator
    steps: Annotated[int, Between(1, 1_000_000)] = 300  # of the search for --image
    seed: Seed = 0  # of the latents
    out: Path | None = None  # folder for the pictures; default RUN/explore, added to what is there
    compute: ComputeOptions = field(default_factory=ComputeOptions)


def explore(options: ExploreOptions) -> Path:
    """Write the pictures and return their folder.

    Raises UserError where the run or the image cannot be read, or the label is not known.
    """
    import numpy as np  # imported here: --help does not wait for torch

    from dermsynth.device import resolve
    from dermsynth.files import write_json
    from gan.exploration import ROWS, project, read_image, save_galleries
    from gan.pictures import save_grid
    from gan.sampling import draw_labels
    from gan.weights import load_generator

    check_bounds(options)
    refuse_idle(options, {"steps": (options.image is not None, "--image")})
    network, description = load_generator(options.generator)
    labels = draw_labels(description, options.label, ROWS, options.seed)
    real = None if options.image is None else read_image(options.image, description["size"])
    compute = resolve(options.compute.device, options.compute.precision, cpu_auto="bf16")
    out = options.out or options.generator / "explore"
    save_galleries(network, labels, options.seed, compute, out)
    if real is not None:
        label = None if labels is None else int(labels[0])
        nearest, distance = project(network, real, label, options.steps, options.seed, compute)
        save_grid(out / "projection.png", np.stack([real, nearest]), 2)
        write_json(out / "projection.json", {"image": str(options.image), "distance": distance})
        print(f"{options.image}: root mean square distance {distance:.1f} of 255 levels")
    print(f"pictures: {out}")
    return out


def main(options: ExploreOptions) -> None:
    """Write the pictures, and name what comes next."""
    explore(options)
    cli.say_next(f"python -m gan.evaluate --generator {options.generator}")


if __name__ == "__main__":
    cli.run(ExploreOptions, main, "gan.explore", __doc__)
