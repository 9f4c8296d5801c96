"""Dataset card: one self-contained HTML page that says what a prepared dataset holds.

    python -m data.report datasets/NAME                 writes datasets/NAME/report.html

Reads only what lies in the dataset's folder. Everything on the page is counted from the table, and
that no group lies in two parts is checked there, not taken over. Pictures are embedded.
"""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from dermsynth import cli
from dermsynth.errors import UserError
from dermsynth.files import check_free, write_text
from dermsynth.leaving import DISK_FULL
from dermsynth.locks import locked
from dermsynth.options import Seed, TrackedOptions, check_bounds


@dataclass(frozen=True)
class ReportOptions:
    """Options of `python -m data.report`."""

    dataset: tyro.conf.Positional[Path]  # a prepared dataset, such as datasets/ham10000
    output: TrackedOptions = field(default_factory=TrackedOptions)
    seed: Seed = 0  # of the choice of sample images


def write_report(options: ReportOptions) -> Path:
    """Write the card of a dataset, to DATASET/report.html without --out, and return its path.

    Raises UserError for what is no dataset, is damaged, or cannot be written to.
    """
    # imported here: --help does not wait for matplotlib
    from data.card.page import dataset_card
    from data.card.tracked import track_card

    check_bounds(options)
    out = _check_out(options)
    page = dataset_card(options.dataset, options.seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(out, page, options.dataset)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
    track_card(options, options.dataset, out)
    return out


def _write(out: Path, page: str, dataset: Path) -> None:
    """Write the page; inside the dataset's folder the manifest takes it up."""
    from data.store import open_dataset_folder

    if not out.resolve().is_relative_to(dataset.resolve()):
        write_text(out, page)
        return
    with locked(dataset):
        write_text(out, page)
        name = out.resolve().relative_to(dataset.resolve()).as_posix()
        open_dataset_folder(dataset).seal_again(name)


def _check_out(options: ReportOptions) -> Path:
    out = options.output.out or options.dataset / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: expected a name that ends in .html")
    check_free(out, options.output.overwrite or options.output.out is None)
    folder = next(folder for folder in out.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: {folder} cannot be written to; choose another --out")
    return out


def main(options: ReportOptions) -> None:
    """Write the card and say where it is."""
    print(write_report(options))
    cli.say_next(f"python -m gan.train --data {shlex.quote(str(options.dataset))} --fold 0")


if __name__ == "__main__":
    cli.run(ReportOptions, main, "data.report", __doc__)
