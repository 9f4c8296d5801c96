"""Speed, ours beside what people use, in one run.

    python -m benchmarks.run                                             all parts, on the CPU
    python -m benchmarks.run classifier gan --device cuda --rounds 3     two of them, on a GPU
    python -m benchmarks.run --quick                                     does it all run?

Ways of the same work take turns (A B A B ...); medians and ratios of seconds by the clock and of
processor seconds go to a JSON file with machine, versions, command and commit. It draws its own
images, so that it needs no data; a reference whose package is missing is left out, and said.
"""

import importlib
import json
import os
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from benchmarks.provenance import provenance
from benchmarks.speed import show
from dermsynth import cli
from dermsynth.errors import UserError
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
    others: Path | None = None  # gan: folder of the authors' stylegan2-ada-pytorch, projected-gan
    compiled: bool = False  # classifier, on a GPU: timm under torch.compile too, a minute more
    out: Path = Path("benchmarks/results/speed.json")  # where the figures go
    figure: Path | None = None  # also draw them, to a PNG or SVG file
    page: Path | None = None  # also put the tables into this Markdown file, between its marks
    report: Path | None = None  # of an earlier run, for --figure and --page: nothing is measured


def main(options: Options) -> None:
    """Measure, or take what was measured; draw it, and put it into a page."""
    report = measure(options) if options.report is None else read(options.report)
    if options.figure is not None:
        from benchmarks.speed import figure

        figure.draw(report, options.figure)
    if options.page is not None:
        show.insert(options.page, report["options"]["device"], show.markdown(report))


def read(path: Path) -> dict[str, Any]:
    """A report. Raises UserError where it is none."""
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        report["parts"], report["options"]["device"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--report {path}: expected what --out wrote; {error}") from None
    return report


def measure(options: Options) -> dict[str, Any]:
    """The report; each table is written and printed when it is there."""
    # imported here: --help does not wait for torch
    from benchmarks.speed.limits import ceilings
    from benchmarks.speed.place import Place
    from dermsynth.device import resolve

    device = resolve(options.device, "auto").device
    parts = options.parts or PARTS
    if options.others is not None:
        from benchmarks.speed import authors

        authors.check(options.others)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    head = provenance("benchmarks.run", *PACKAGES) | {"options": cli.as_plain(options)}
    head["load_before"] = round(os.getloadavg()[0], 1)
    best = ceilings(device, options.quick)
    head["ceilings"] = asdict(best)
    print(show.ceilings(head["ceilings"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        works = {}
        for part in parts:
            scratch = Path(folder, part)
            scratch.mkdir()
            rounds = 1 if options.quick else options.rounds
            sizes = (options.quick, options.large, options.compiled, rounds)
            place = Place(device, *sizes, scratch, best, options.others)
            works[part] = importlib.import_module(f"benchmarks.speed.{part}").measure(place)
            head.setdefault("parts", {})[part] = {"notes": place.notes}
        failed: dict[str, Exception] = {}
        while works:
            for part, work in list(works.items()):
                try:
                    more = go_on(part, work, head, options.out)
                except Exception as error:  # the other parts' figures are worth having
                    traceback.print_exc()
                    head["parts"][part]["notes"].append(f"cut short by an error: {error}")
                    failed[part], more = error, False
                if not more:
                    del works[part]
    write_json(options.out, head)
    if failed:
        said = "; ".join(f"{part} was cut short: {error}" for part, error in failed.items())
        bad_input = all(isinstance(error, UserError) for error in failed.values())
        kind = UserError if bad_input else RuntimeError
        raise kind(f"{said}; what was measured is in {options.out}")
    print(f"wrote {options.out}")
    return head


def go_on(part: str, work: Iterator[dict[str, list[Any]]], head: dict[str, Any], out: Path) -> bool:
    """Measure until the part lets others go first; False where it has come to its end."""
    for piece in work:
        if not piece:  # benchmarks.speed.place.LATER
            return True
        for kind, rows in piece.items():
            head["parts"][part].setdefault(kind, []).extend(rows)
        head["load_after"] = round(os.getloadavg()[0], 1)
        write_json(out, head)
        if text := show.tables(part, piece):
            print(text, flush=True)
    return False


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.run", __doc__)
