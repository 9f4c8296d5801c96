"""Fetch a public data set from its official address, ready for `python -m data.prepare`.

Run the same command again after a cut: what is complete is not fetched twice, and what is not goes
on where it stopped. `download.json` in the folder says what was got, from where, and its SHA-256.
"""

import shlex
from pathlib import Path

from data.transfer.published import SOURCES, DownloadOptions
from dermsynth import cli
from dermsynth.errors import UserError
from dermsynth.options import check_bounds


def download(options: DownloadOptions) -> Path:
    """Fetch a data set into `options.out` and return it.

    Raises UserError, where there is no network for instance, with everything that is complete kept.
    """
    # imported here: --help does not wait
    from data.transfer.dataset import fetch_dataset
    from data.transfer.tracked import track_download

    _check_options(options)
    fetch_dataset(options)
    track_download(options)
    return options.out


def _check_options(options: DownloadOptions) -> None:
    check_bounds(options)
    if options.test and not SOURCES[options.source].test_files:
        raise UserError("--test: only siim2020 has test images to fetch")
    if options.source != "isic-archive" and (options.search or options.limit):
        raise UserError("--search and --limit: of isic-archive only; the others come as a whole")


def main(options: DownloadOptions) -> None:
    """Fetch, and say how to prepare it."""
    out, source = download(options), options.source
    root = shlex.quote(str(out))
    cli.say_next(f"python -m data.prepare --source {source} --root {root} --out datasets/{source}")


if __name__ == "__main__":
    cli.run(DownloadOptions, main, "data.download", __doc__)
