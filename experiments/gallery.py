"""One page over everything that lies in a folder of runs: what came out, with links to its pages.

    python -m experiments.gallery --runs runs

Experiments, generators, pools, classifiers and datasets, to be sorted and filtered; what is damaged
or not ours is listed with the reason. The page is one file without a server. Every command that
finishes a folder in runs/ writes it anew.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dermsynth import cli
from dermsynth.errors import UserError
from dermsynth.files import write_text
from experiments.numbers import number, typographic

if TYPE_CHECKING:
    from experiments.found_runs import Collection, Found

RUNS, DATASETS, PAGE = Path("runs"), Path("datasets"), "index.html"
MARK = '<meta name="generator" content="dermsynth gallery">'  # a page of ours, to be written over


@dataclass(frozen=True)
class GalleryOptions:
    """Options of `python -m experiments.gallery`."""

    runs: Path = RUNS  # folder whose runs are shown
    datasets: Path = DATASETS  # folder whose datasets and pools are shown too, where there is one
    out: Path | None = None  # the page to write (default: index.html in --runs)


def write_gallery(options: GalleryOptions) -> Path:
    """Write the page and return its path.

    Raises UserError where there is no folder of runs and where another file is in the way.
    """
    from experiments.found_runs import collect  # imported here: --help does not wait for torch

    if not options.runs.is_dir():
        raise UserError(
            f"--runs {options.runs}: no such folder; name the one that your runs lie in"
        )
    out = options.out or options.runs / PAGE
    if out.suffix != ".html":
        raise UserError(f"--out {out}: expected the name of a page, which ends in .html")
    if out.is_dir() or (out.exists() and MARK not in out.read_text("utf-8", "replace")[:2000]):
        raise UserError(f"{out}: is no gallery, and is not written over; choose another --out")
    folders = [options.runs, *([options.datasets] if options.datasets.is_dir() else [])]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render(collect(folders), options, out))
    return out


def update(runs: Path = RUNS) -> Path:
    """Write the gallery of a folder of runs anew: a second for hundreds of runs.

    Only manifests and small records are read. Raises UserError as `write_gallery` does.
    """
    return write_gallery(GalleryOptions(runs, runs.parent / DATASETS))


def update_after(folders: Sequence[Path]) -> None:
    """Write the gallery anew where one of the finished folders is on it, and say so.

    That is: it lies in runs/, or in datasets/ where runs/ has a gallery already. The entry point
    that commands tell of what they finished (dermsynth.finished). Raises UserError as
    `write_gallery` does.
    """
    shown = [RUNS, *([DATASETS] if (RUNS / PAGE).is_file() else [])]
    around = {parent for folder in folders for parent in folder.resolve().parents}
    if any(folder.resolve() in around for folder in shown):
        print(f"gallery: {update()}")


def render(collection: "Collection", options: GalleryOptions, out: Path) -> str:
    """The page's HTML; links are relative to the folder of `out`."""
    from dermsynth.page import templates
    from experiments import found_runs, records
    from gan.evaluation import records as evaluations

    environment = templates(Path(__file__).parent)

    def link(path: Path) -> str:
        return quote(Path(os.path.relpath(path.resolve(), out.parent.resolve())).as_posix())

    def shown(path: Path) -> str:
        """A path as it is called on the page: below the folder of runs, or of datasets."""
        return path.relative_to(options.runs).as_posix() if _below(path, options) else str(path)

    environment.globals |= {"link": link, "shown": shown}
    environment.globals |= {"number": number, "typographic": typographic}
    scores = {one.inputs.get("subject"): one for one in collection.of(evaluations.KIND)}
    return environment.get_template("gallery.html.j2").render(
        mark=MARK,
        runs=str(options.runs),
        experiments=collection.of(records.KIND),
        generators=collection.of(found_runs.GENERATOR),
        pools=collection.of(found_runs.POOL),
        classifiers=collection.of(*found_runs.CLASSIFIERS),
        datasets=collection.of(found_runs.DATASET),
        kinds=found_runs.CLASSIFIERS,
        scores=scores,
        faults=collection.faults,
        page_of=page_of,
        card_of=lambda one: page_of(scores[one.id], evaluations.PAGE) if one.id in scores else None,
    )


def page_of(one: "Found", *names: str) -> Path | None:
    """The first of these files that lies in a folder, as a link's end; None where there is none."""
    return next((one.path / name for name in names if (one.path / name).is_file()), None)


def _below(path: Path, options: GalleryOptions) -> bool:
    return path.is_relative_to(options.runs)


def main(options: GalleryOptions) -> None:
    """Write the page and say where it is."""
    page = write_gallery(options)
    print(page)
    cli.say_next(f"python -m webbrowser {page}")


if __name__ == "__main__":
    cli.run(GalleryOptions, main, "experiments.gallery", __doc__)
