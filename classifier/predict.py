"""Score images with a trained classifier: a prepared dataset or a folder of images, to a CSV.

The CSV has the form of Kaggle's submissions, `image_name,target`: a row an image, in the dataset's
order or by file name, and the probability that the lesion is malignant, 0 to 1. An image in a
folder takes the path that the training images took: the same crop, cleaning and size. A name that
begins with = + - @ ' or a tab has a ' in front, so that no spreadsheet takes it for a formula.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from dermsynth import cli
from dermsynth.files import check_free
from dermsynth.options import Between, ComputeOptions, check_bounds

if TYPE_CHECKING:
    import pandas as pd

Views = Annotated[int, Between(1, 100_000)]


# --out is a file and required, so that it is no OutputOptions
@dataclass(frozen=True)
class PredictOptions:
    """Options of `python -m classifier.predict`."""

    run: Path  # run folder of classifier.train
    data: Path  # prepared dataset, or a folder of images (.jpg, .png)
    out: Path  # CSV file to write
    tta: Views = 1  # views an image whose scores are averaged: 1, 8 (flips, turns) or more
    overwrite: bool = False  # replace the file in --out
    compute: ComputeOptions = field(default_factory=ComputeOptions)


def predict(options: PredictOptions) -> "pd.DataFrame":
    """Write the CSV; returns its rows: `image_name` str, `target` float64 in 0..1.

    Raises UserError for a run that is not finished or damaged, for no images, for images that
    cannot be read (all at once, and nothing is written), and for a file that exists already.
    """
    # imported here: --help does not wait for torch
    import numpy as np
    import pandas as pd
    import torch

    from classifier.evaluation.input_images import read_batches
    from classifier.scores import write_scores
    from classifier.trained import load_folds
    from classifier.tta import check_tta
    from dermsynth import device, progress

    check_bounds(options)
    check_free(options.out, options.overwrite)
    models = load_folds(options.run)
    check_tta(options.tta, models[0].augment)
    compute = device.resolve(options.compute.device, options.compute.precision)
    for trained in models:
        trained.model.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    names, batches = read_batches(options.data, models[0])
    spec, folds = models[0].model.spec, f" of {len(models)} folds" if len(models) > 1 else ""
    print(
        f"{options.run}: {spec.backbone}{folds}, {spec.size} px; {len(names):,} images; {compute}"
    )
    scores = []
    with progress.bar(len(names), "predicting", "img") as bar:
        for images, dataset, rows in batches:
            by_fold = [
                trained.scores(images, compute, options.tta, dataset, rows) for trained in models
            ]
            scores.append(np.mean(by_fold, axis=0))
            bar.update(len(images))
    table = pd.DataFrame({"image_name": names, "target": np.concatenate(scores)})
    write_scores(options.out, names, table["target"].to_numpy())
    print(f"{len(table):,} rows, mean {table['target'].mean():.3f}: {options.out}")
    cli.say_next(f"python -m classifier.blend --scores a={options.out} b=FILE --out OUT.csv")
    return table


if __name__ == "__main__":
    cli.run(PredictOptions, predict, "classifier.predict", __doc__)
