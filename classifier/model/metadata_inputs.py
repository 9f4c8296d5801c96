"""Age, sex and site as numbers beside the image: what the metadata head is given."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.metadata import MetadataEncoder
from data.store import Dataset
from dermsynth.errors import UserError
from dermsynth.files import write_bytes
from dermsynth.manifest import Sealed

COLUMNS = ("age", "sex", "site")
FILE = "metadata.parquet"  # the training images' columns: whoever reads them can fit the same again


@dataclass(frozen=True)
class MetadataInputs:
    """An encoder fitted on the training images."""

    fitted: pd.DataFrame  # image_id and COLUMNS of the real training images, missing if not used
    encoder: MetadataEncoder
    training: np.ndarray  # int64 [length of the training set]: the row whose columns each one has

    @property
    def width(self) -> int:
        """Numbers an image."""
        return len(self.encoder.feature_names)

    def numbers(self, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
        """float32 [len(rows), width] of any dataset's images."""
        table = dataset.table[["image_id", *COLUMNS]].iloc[rows]
        unused = [name for name in COLUMNS if self.fitted[name].isna().all()]
        return self.encoder.transform(table.assign(**dict.fromkeys(unused)))

    def save(self, folder: Path) -> None:
        """Write what `load_metadata_inputs` needs."""
        content = io.BytesIO()
        self.fitted.to_parquet(content, index=False)
        write_bytes(folder / FILE, content.getvalue())


def load_metadata_inputs(sealed: Sealed) -> MetadataInputs:
    """Those of a finished run. Raises UserError where its file is missing or damaged."""
    fitted = sealed.table(FILE, ("image_id", *COLUMNS))
    try:
        return MetadataInputs(fitted, MetadataEncoder().fit(fitted), np.empty(0, np.int64))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{sealed.path / FILE}: holds no age, sex and site that can be used "
            f"({str(error).splitlines()[0]}); {sealed.mend}"
        ) from None
