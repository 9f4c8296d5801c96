"""Make a dataset (or a pool) that everything else reads: images, table, groups, folds.

    python -m data.prepare                                         the phantom, nothing to download
    python -m data.prepare --source ham10000 --root DIR            HAM10000 as downloaded
    python -m data.prepare --source siim2020 --root A --extra isic2019 --root B
                                            the second source joins the training parts only
    python -m data.prepare --source isic2018 --root DIR            fifteen published data sets so
    python -m data.prepare --source folder --root DIR --table FILE your own images and tables
    python -m data.prepare --source pool --root DIR --out DIR2 --provenance "made by ... from ..."
                                            synthetic malignant images from any other tool

Every image goes the same way, whatever its source: upright, centre crop to a square, Lanczos to
--size. Images of one patient, one lesion, or that show the same lesion again are one group, and no
group is ever split over folds. The folder appears at --out complete or not at all; after a kill the
same command goes on where it was.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from data.preparation.options import DATASETS, FIRST, PrepareOptions, check_options
from dermsynth import cli
from dermsynth.errors import UserError
from dermsynth.folders import check_replaceable
from dermsynth.locks import locked
from dermsynth.manifest import is_finished

if TYPE_CHECKING:
    import pandas as pd

    from data.pool import Pool
    from data.store import Dataset


def prepare(options: PrepareOptions) -> "Dataset | Pool | pd.DataFrame":
    """Prepare and open a dataset; a pool with `source="pool"`; the table with `tables_only`.

    Raises UserError for bad input: nothing is left at `options.out`, what was there stays.
    """
    from data import pool, store  # imported here: --help does not wait for pandas and OpenCV
    from data.preparation.images import prepare_images
    from data.preparation.phantom import prepare_phantom
    from data.preparation.pool import prepare_pool

    check_options(options)
    source = options.input.source
    kind = pool.KIND if source == "pool" else store.KIND
    check_replaceable(options.out, kind, options.output.overwrite)
    return {"pool": prepare_pool, "phantom": prepare_phantom}.get(source, prepare_images)(options)


def default_dataset() -> Path:
    """`datasets/phantom`, prepared with default options unless it is there.

    Where another process is preparing it, waits for that. Raises UserError for anything else there.
    """
    path = DATASETS / "phantom"
    if _is_there(path):
        return path
    with locked(path, wait=True):
        if not _is_there(path):
            print(f"no --data given: preparing the phantom in {path}", flush=True)
            prepare(PrepareOptions())
    return path


def _is_there(path: Path) -> bool:
    """Whether a dataset lies there; False where nothing does. Raises UserError for the rest."""
    from data.store import KIND

    try:
        if not (there := is_finished(path, KIND)):
            check_replaceable(path, KIND, overwrite=False)
    except UserError as error:
        raise UserError(
            f"no --data given, and {path} is not the phantom that is taken then ({error}); move it "
            "away, or give --data"
        ) from None
    return there


def main(options: PrepareOptions) -> None:
    """Prepare, and say what to do with it."""
    from data.preparation.tracked import track_prepared

    track_prepared(options, prepare(options))
    out = shlex.quote(str(options.out))
    if options.input.source == "pool":
        cli.say_next(f"python -m gan.evaluate --pool {out} --data datasets/NAME")
    elif options.labels.tables_only:
        cli.say_next(f"python -m classifier.metadata --data {out}")
    else:
        cli.say_next(f"python -m data.report {out}")


if __name__ == "__main__":
    cli.run(PrepareOptions, main, "data.prepare", __doc__, FIRST)
