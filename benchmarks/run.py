"""Speed, ours beside what people use, in one run.

    python -m benchmarks.run                                             all parts, on the CPU
    python -m benchmarks.run classifier gan --device cuda --rounds 3     two of them, on a GPU
    python -m benchmarks.run --quick                                     does it all run?

Ways of the same work take turns (A B A B ...); medians and ratios of seconds by the clock and of
processor seconds go to a JSON file with machine, versions, command and commit. It draws its own
images, so that it needs no data; a reference whose package is missing is left out, and said.
"""

import importlib
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from benchmarks.provenance import provenance
from dermsynth import cli
from dermsynth.files import write_json
from dermsynth.options import Between

PARTS = ("data", "gan", "classifier", "experiment", "statistics")
PACKAGES = (
    *("torch", "torchvision", "numpy", "pillow", "opencv-python-headless", "albumentations"),
    *("efficientnet-pytorch", "efficientnet-lite-pytorch", "timm", "scikit-learn", "MLstatkit"),
)


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.run`."""

    parts: tyro.conf.Positional[tuple[Literal[*PARTS], ...]] = ()  # which; all if not given
    device: Literal["cpu", "cuda"] = "cpu"
    quick: bool = False  # the smallest sizes: a minute or two a part, and no figures to keep
    large: bool = False  # also the largest sizes of the cost curves: hours
    rounds: Annotated[int, Between(1, 100)] = 5  # timings of each way; their median counts
    out: Path = Path("benchmarks/results/speed.json")  # where the figures go
    figure: Path | None = None  # also draw them, to a PNG or SVG file
    page: Path | None = None  # also put the tables into this Markdown file, between its marks


def main(options: Options) -> None:
    """Measure, write after every part, print a table."""
    from benchmarks.speed import show  # imported here: --help does not wait for torch
    from benchmarks.speed.limits import ceilings
    from benchmarks.speed.place import Place
    from dermsynth.device import resolve

    device = resolve(options.device, "auto").device
    parts = options.parts or PARTS
    head = provenance("benchmarks.run", *PACKAGES) | {"options": cli.as_plain(options)}
    head["load_before"] = round(os.getloadavg()[0], 1)
    best = ceilings(device, options.quick)
    head["ceilings"] = asdict(best)
    print(show.ceilings(head["ceilings"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        for part in parts:
            scratch = Path(folder, part)
            scratch.mkdir()
            sizes = (options.quick, options.large, 1 if options.quick else options.rounds)
            place = Place(device, *sizes, scratch, best)
            measured: dict[str, Any] = importlib.import_module(f"benchmarks.speed.{part}").measure(
                place
            )
            head.setdefault("parts", {})[part] = measured | {"notes": place.notes}
            head["load_after"] = round(os.getloadavg()[0], 1)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.out, head)
            print(show.tables(part, head["parts"][part]), flush=True)
    if options.figure is not None:
        from benchmarks.speed import figure

        figure.draw(head, options.figure)
    if options.page is not None:
        show.insert(options.page, options.device, show.markdown(head))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.run", __doc__)
