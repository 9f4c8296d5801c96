"""A folder of synthetic images from some other tool."""

from pathlib import Path

from data.images.files import find_files, find_images
from data.images.formats import IN_WORDS
from data.sources.listing import packed_hint
from dermsynth.errors import UserError


def list_pool(root: Path) -> list[Path]:
    """Image files below `root`, sorted. Raises UserError where there is none or it is a pool."""
    if made := [folder for folder in (root, root.parent) if (folder / "pool.json").exists()]:
        raise UserError(
            f"--root {root}: {made[0]} is a pool already, with its own provenance; "
            f"use `--pool {made[0]}` as it is"
        )
    if files := find_images(root):
        return files
    raise UserError(
        f"--root {root}: no image below it; expected {IN_WORDS} files"
        + packed_hint(find_files(root), "; ")
    )
