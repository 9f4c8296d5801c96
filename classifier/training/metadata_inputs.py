"""Age, sex and site beside the image: what the metadata head is given."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from classifier.options import TrainOptions
from classifier.training.training_set import TrainingList
from data.metadata import MetadataEncoder
from data.store import Dataset
from dermsynth.errors import UserError
from dermsynth.files import write_bytes
from dermsynth.seeds import generator

COLUMNS = ("age", "sex", "site")
FILE = "metadata.parquet"  # the training images' columns: whoever reads them can fit the same again


@dataclass(frozen=True)
class Fusion:
    """An encoder fitted on the training images."""

    fitted: pd.DataFrame  # image_id and COLUMNS of the real training images, missing if not used
    encoder: MetadataEncoder
    training: np.ndarray  # int64 [length of the training list]: the row whose columns each one has

    @property
    def width(self) -> int:
        """Numbers an image."""
        return len(self.encoder.feature_names)

    def of(self, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
        """float32 [len(rows), width] of any dataset's images."""
        table = dataset.table[["image_id", *COLUMNS]].iloc[rows]
        unused = [name for name in COLUMNS if self.fitted[name].isna().all()]
        return self.encoder.transform(table.assign(**dict.fromkeys(unused)))

    def save(self, folder: Path) -> None:
        """Write what `load_fusion` needs."""
        content = io.BytesIO()
        self.fitted.to_parquet(content, index=False)
        write_bytes(folder / FILE, content.getvalue())


def fit_fusion(options: TrainOptions, dataset: Dataset, training: TrainingList) -> Fusion:
    """Fit on the real training images. A synthetic one has the columns of a malignant real one.

    (An average age of its own would give it away.) Raises UserError where a column asked for has no
    value in any training image.
    """
    chosen = [name.strip() for name in options.metadata.split(",")]
    if unknown := [name for name in chosen if name not in COLUMNS]:
        raise UserError(f"--metadata {unknown[0]}: expected some of {', '.join(COLUMNS)}")
    real = np.unique(training.rows[~training.synthetic])
    fitted = dataset.table[["image_id", *COLUMNS]].iloc[real].copy()
    for name in COLUMNS:
        if name not in chosen:
            fitted[name] = None
        elif fitted[name].isna().all():
            raise UserError(
                f"--head metadata: no training image of {dataset.path} has a value of {name}; "
                f"leave it out of --metadata, or use another --head"
            )
    encoder = MetadataEncoder().fit(fitted)
    rows = training.rows.copy()
    malignant = np.flatnonzero(training.targets[: training.n_real])
    donors = generator(options.seed, "metadata").choice(malignant, training.synthetic.sum())
    rows[training.synthetic] = training.rows[donors]
    return Fusion(fitted, encoder, rows)


def load_fusion(folder: Path) -> Fusion:
    """That of a finished run. Raises UserError where its file is missing or damaged."""
    try:
        fitted = pd.read_parquet(folder / FILE)
        return Fusion(fitted, MetadataEncoder().fit(fitted), np.empty(0, np.int64))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder / FILE}: missing or damaged ({error}); train it again") from None
