"""Reading a prepared dataset's folder for its card: nothing else is looked at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data import store
from data.card.counts import with_rows
from dermsynth.errors import UserError

PAIR_COLUMNS = ["image_id_1", "image_id_2", "kind", "across_lesions"]


@dataclass(frozen=True)
class CardData:
    """What a dataset's folder holds, as far as its card needs it."""

    path: Path
    table: pd.DataFrame  # data.store.COLUMNS; target float (NaN: no label), group int codes
    images: Any  # indexable by row: uint8 [size, size, 3]; None where the dataset has only tables
    info: dict[str, Any]  # dataset.json
    pairs: pd.DataFrame | None  # duplicates.parquet, with the rows of its images
    skipped: pd.DataFrame | None  # skipped.csv


def read_card_data(path: Path) -> CardData:
    """Everything in a prepared dataset's folder. Raises UserError naming what is damaged."""
    table, info = store.load_table(path)
    tables_only = info.get("options", {}).get("tables_only")
    images = None if tables_only else store.load_dataset(path).images
    for column in ("target", "age"):
        table[column] = table[column].to_numpy(float, na_value=np.nan)
    for column in ("width", "height"):
        table[column] = table[column].fillna(0).astype(int)
    for column in ("diagnosis", "patient_id", "lesion_id", "sex", "site", "source"):
        words = table[column].astype(object)
        table[column] = words.where(words.notna() & (words != ""), None)
    table["group"] = pd.factorize(table["group"])[0]
    pairs = _read(path / "duplicates.parquet", pd.read_parquet, PAIR_COLUMNS)
    skipped = _read(path / "skipped.csv", _read_csv, ["image_id", "where", "reason"])
    if pairs is not None:
        pairs = with_rows(table, pairs)
    return CardData(path, table, images, info, pairs, skipped)


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _read(path: Path, reader: Any, columns: list[str]) -> pd.DataFrame | None:
    if not path.exists():
        return None
    try:
        table = reader(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); prepare the dataset again") from None
    if lacking := [column for column in columns if column not in table]:
        raise UserError(f"{path}: no column {', '.join(lacking)}; prepare the dataset again")
    return table
