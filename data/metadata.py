"""Age, sex and site as numbers for a model; what is missing is filled from training rows only."""

from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from dermsynth.seeds import derive

CATEGORIES = ("sex", "site")


class MetadataEncoder:
    """Features of a table's rows by what was seen in the rows it was fitted on, and nothing else.

    Fit it on a fold's training rows. Columns read: `image_id`, `age` (years), `sex`, `site`. A
    missing age becomes the mean age; a missing category is drawn by its frequency, from (seed,
    image_id) alone, so that neither row order nor batch matters. Ages are then standardised and
    categories one-hot; a category never fitted is all zeros, a column without any value in the
    fitted rows says nothing (age 0, no feature of a category).
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, table: pd.DataFrame) -> Self:
        """Learn from training rows, at least one."""
        self._age: Pipeline = make_pipeline(
            SimpleImputer(keep_empty_features=True), StandardScaler()
        ).fit(_ages(table))
        self._aged = bool(np.isfinite(_ages(table)).any())
        self._shares = {
            name: table[name].dropna().astype(str).value_counts(normalize=True).sort_index()
            for name in CATEGORIES
        }
        self._shares = {name: shares for name, shares in self._shares.items() if len(shares)}
        self._one_hot = OneHotEncoder(
            categories=[shares.index.to_numpy(object) for shares in self._shares.values()],
            handle_unknown="ignore",
            sparse_output=False,
        )
        if self._shares:
            self._one_hot.fit(self._filled(table))
        return self

    @property
    def feature_names(self) -> list[str]:
        """`age`, then `sex=...` and `site=...` of the fitted rows, in the order of the features."""
        return [feature["name"] for feature in self.describe()]

    def describe(self) -> list[dict[str, Any]]:
        """How each feature is made, in their order, for programs that have to make them.

        `age`: (age - mean) / deviation, 0 where it is missing; `always` 0 where no fitted row had
        one. A category: 1 where the column has the value, else 0; `share` is the probability with
        which a missing value is replaced by this one.
        """
        scaler = self._age[-1]
        age: dict[str, Any] = {"mean": float(scaler.mean_[0]), "deviation": float(scaler.scale_[0])}
        features: list[dict[str, Any]] = [{"name": "age", **(age if self._aged else {"always": 0})}]
        for name, shares in self._shares.items():
            features += [
                {"name": f"{name}={value}", "column": name, "value": value, "share": float(share)}
                for value, share in shares.items()
            ]
        return features

    def transform(self, table: pd.DataFrame) -> np.ndarray:
        """Features of any rows, float32 [len(table), len(feature_names)], all finite."""
        blocks = [self._age.transform(_ages(table))]
        if self._shares:
            blocks.append(self._one_hot.transform(self._filled(table)))
        return np.hstack(blocks).astype(np.float32)

    def _filled(self, table: pd.DataFrame) -> np.ndarray:
        """Categories without gaps, object [n, categories that were fitted]."""
        columns = []
        for name, shares in self._shares.items():
            column = table[name].astype(object).to_numpy(copy=True)
            rows = np.flatnonzero(table[name].isna())
            seeds = [derive(self.seed, name, key) for key in table["image_id"].iloc[rows]]
            drawn = np.searchsorted(shares.cumsum(), np.array(seeds) / 2**63, side="right")
            column[rows] = shares.index.to_numpy(object)[np.minimum(drawn, len(shares) - 1)]
            columns.append(column.astype(str).astype(object))
        return np.column_stack(columns)


def _ages(table: pd.DataFrame) -> np.ndarray:
    return table[["age"]].astype("Float64").to_numpy(np.float64, na_value=np.nan)
