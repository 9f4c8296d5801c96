"""Where images and their labels come from: what a source lists before anything is decoded."""

from collections.abc import Callable
from pathlib import Path

from data.sources.ham10000 import list_ham10000, list_pool
from data.sources.listing import Ask, Fault, Listing, check_root

__all__ = [
    *("READERS", "Ask", "Fault", "Listing"),
    *("check_root", "list_ham10000", "list_pool", "read_source"),
]

READERS: dict[str, Callable[[Path, Ask], Listing]] = {}


def read_source(name: str, root: Path | None, ask: Ask) -> Listing:
    """List the images of a source. Raises UserError for what is wrong with whole files."""
    return READERS[name](check_root(name, root), ask)
