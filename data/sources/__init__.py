"""Where images and their labels come from: what a source lists before anything is decoded."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from data.sources.folder import list_folder
from data.sources.ham10000 import list_ham10000
from data.sources.isic2019 import list_isic2019
from data.sources.isic_archive import list_isic_archive
from data.sources.listing import OWN_IDS, Listing, SourceOptions, check_root
from data.sources.packed import list_dermamnist
from data.sources.ph2 import list_ph2
from data.sources.pool import list_pool
from data.sources.published import LAYOUTS, list_published, recognised
from data.sources.siim2020 import list_siim2020
from data.sources.tfrecords import list_tfrecords
from dermsynth.errors import UserError

__all__ = ["OWN_IDS", "READERS", "check_root", "list_pool", "read_source"]

READERS: dict[str, Callable[[Path, SourceOptions], Listing]] = {
    "ham10000": list_ham10000,
    "isic2019": list_isic2019,
    "siim2020": list_siim2020,
    "isic-archive": list_isic_archive,
    "folder": list_folder,
    "tfrecords": list_tfrecords,
    "ph2": list_ph2,
    "dermamnist": list_dermamnist,
    **{name: partial(list_published, name) for name in LAYOUTS},
}
NO_SUCH_TABLE = re.compile(  # errors that another --source may mend
    r"in it or below|tables that differ|no column|no such diagnosis|no image below"
)


def read_source(name: str, root: Path | None, options: SourceOptions) -> Listing:
    """List the images of a source. Raises UserError for what is wrong with whole files.

    What is wrong with single rows is in `Listing.faults`.
    """
    root = check_root(name, root)
    try:
        return READERS[name](root, options)
    except UserError as error:
        other = recognised(root)
        if not other or other.endswith(f" {name}") or not NO_SUCH_TABLE.search(str(error)):
            raise
        raise UserError(f"{error}{other}") from None
