"""Reading a prepared dataset's folder for its card: nothing else is looked at."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data import store
from data.card.counts import with_rows
from data.store import DatasetRecord
from dermsynth.manifest import Sealed

PAIRS, SKIPPED, CLEANING = "duplicates.parquet", "skipped.csv", "cleaning-"
PAIR_COLUMNS = ["image_id_1", "image_id_2", "kind", "across_lesions"]


@dataclass(frozen=True)
class CardData:
    """What a dataset's folder holds, as far as its card needs it."""

    path: Path
    table: pd.DataFrame  # data.store.COLUMNS; target float (NaN: no label), group int codes
    images: Any  # indexable by row: uint8 [size, size, 3]; None where the dataset has only tables
    info: DatasetRecord
    pairs: pd.DataFrame | None  # duplicates.parquet, with the rows of its images
    skipped: pd.DataFrame | None  # skipped.csv
    cleaning: dict[str, bytes]  # PNG of each cleaner, before and after, by its name


def read_card_data(path: Path) -> CardData:
    """Everything in a prepared dataset's folder. Raises UserError naming what is damaged."""
    sealed = store.open_dataset_folder(path)
    table, info, _ = store.load_table(path)
    images = None if info.options.get("tables_only") else store.load_dataset(path).images
    for column in ("target", "age"):
        table[column] = table[column].to_numpy(float, na_value=np.nan)
    for column in ("width", "height"):
        table[column] = table[column].fillna(0).astype(int)
    for column in ("diagnosis", "patient_id", "lesion_id", "sex", "site", "source"):
        words = table[column].astype(object)
        table[column] = words.where(words.notna() & (words != ""), None)
    table["group"] = pd.factorize(table["group"])[0]
    pairs = None
    if sealed.has(PAIRS):
        pairs = with_rows(table, sealed.table(PAIRS, PAIR_COLUMNS))
    pictures = {
        name.removeprefix(CLEANING).removesuffix(".png"): sealed.bytes(name)
        for name in sorted(sealed.manifest.files)
        if name.startswith(CLEANING) and name.endswith(".png")
    }
    return CardData(path, table, images, info, pairs, _read_skipped(sealed), pictures)


def _read_skipped(sealed: Sealed) -> pd.DataFrame | None:
    if not sealed.has(SKIPPED):
        return None
    content = io.BytesIO(sealed.bytes(SKIPPED))  # as it was written: nothing else can be in it
    return pd.read_csv(content, dtype=str, keep_default_na=False)
