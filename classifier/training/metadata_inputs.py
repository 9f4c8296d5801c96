"""What the metadata head is given in training: age, sex and site, of synthetic images as well."""

import numpy as np

from classifier.model.fusion import COLUMNS, Fusion
from classifier.options import TrainOptions
from classifier.training.training_set import TrainingList
from data.metadata import MetadataEncoder
from data.store import Dataset
from dermsynth.errors import UserError
from dermsynth.seeds import generator


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
