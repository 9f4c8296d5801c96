"""What is checked before the long work begins: enough lesions, enough space."""

import numpy as np
import pandas as pd

from data import folds
from data.images.decoding import Preprocessing
from data.images.files import Encoded
from data.preparation.group_sizes import check_group_sizes
from data.preparation.options import PrepareOptions, SplitOptions
from dermsynth.errors import UserError
from dermsynth.files import free_space


def check_enough(
    table: pd.DataFrame, split: SplitOptions, words: tuple[str, str] = folds.WORDS
) -> None:
    """Raise UserError unless there are lesions enough, grouped as the ids alone group them.

    So it does for a group that would be a part by itself, which is looked for first: where a
    placeholder ties everything together, there are not too few lesions. `words`: what the targets 0
    and 1 mean.
    """
    table = table[table["target"].notna()].reset_index(drop=True)
    if len(table) == 0 or split.fold_column:
        return  # for prediction only, or split already
    group = folds.group_images(table, np.zeros((0, 2), np.int64))
    check_group_sizes(table, group, split, words)
    target = table["target"].to_numpy().astype(np.uint8)
    folds.check_enough(target, group, split.folds, split.test_fraction, words)


def check_space(need: int, options: PrepareOptions) -> None:
    """Raise UserError where `need` bytes of images cannot fit, before they are decoded."""
    free = free_space(options.out)
    if need > free:
        raise UserError(
            f"--out {options.out}: images of --size {options.pixels.size} need {need / 1e9:.1f} "
            f"GB, {free / 1e9:.1f} GB are free; free some space or choose another --out or --size"
        )


def bytes_needed(
    files: list[Encoded | None], preprocessing: Preprocessing, native: bool = False
) -> int:
    """What the pixels of `files` take, and with `native` the files themselves."""
    present = [file for file in files if file is not None]
    pixels = len(present) * preprocessing.size**2 * 3
    return pixels + (sum(map(_bytes, present)) if native else 0)


def _bytes(file: Encoded) -> int:
    try:
        return file.length or file.path.stat().st_size
    except OSError:  # told with the other unusable files
        return 0
