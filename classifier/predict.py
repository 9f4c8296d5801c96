"""Score images with a trained classifier: a prepared dataset, a folder, or one image, to a CSV.

The CSV has the form of Kaggle's submissions, `image_name,target`: a row an image, in the dataset's
order or by file name, and the probability that the lesion is malignant, 0 to 1. OUT.calls.csv
beside it has the calibrated probability and the call at a threshold; both were chosen on validation
images, and hold for images like those: OUT.likeness.csv says how far each is from the training
images, OUT.likeness.json how many look unlike them. An image in a folder takes the path that the
training images took: the same crop, cleaning and size. Masks, superpixels and thumbnails that lie
beside the images are counted and not scored. A name that begins with = + - @ ' or a tab has a ' in
front, so that no spreadsheet takes it for a formula.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from classifier.options import ScoredViews
from dermsynth import cli
from dermsynth.errors import counted
from dermsynth.files import check_free, write_text
from dermsynth.options import ComputeOptions, TrackingMode, check_bounds

if TYPE_CHECKING:
    import pandas as pd

Operating = Literal["youden", "sensitivity_95", "specificity_95"]


# --out is a file and required, so that it is no OutputOptions
@dataclass(frozen=True)
class PredictOptions:
    """Options of `python -m classifier.predict`."""

    run: Path  # run folder of classifier.train
    data: Path  # prepared dataset, a folder of images, or an image file
    out: Path  # CSV file to write
    tta: ScoredViews = "tested"  # views an image, averaged: 1, 8 (flips, turns),
    # more, clinics (8 others), or as the run was tested
    at: Operating = "youden"  # the threshold of the calls, as chosen on validation
    on_error: Literal["fail", "skip"] = "fail"  # images that cannot be read: stop, or list them
    overwrite: bool = False  # replace the file in --out
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline
    compute: ComputeOptions = field(default_factory=ComputeOptions)


def predict(options: PredictOptions) -> "pd.DataFrame":
    """Write the CSV; returns its rows: `image_name` str, `target` float64 in 0..1.

    OUT.calls.csv has `image_name`, `probability` (after temperature scaling, the mean over folds)
    and `call`: target 1 in words where at least half of the folds' scores reach their thresholds.
    A model whose validation part had one class has neither temperature nor thresholds: no calls.

    OUT.likeness.csv has `image_name` and four distances from the training images, 1 being what 95%
    of held-out images reach (classifier.evaluation.likeness); OUT.likeness.json the figures of all.

    With `--on-error skip` the images of a folder that cannot be read go to OUT.skipped.csv
    (`image,reason`), beside OUT.csv.

    Raises UserError for a run that is not finished or damaged, for no images, for images that
    cannot be read (all at once, and nothing is written), and for a file that exists already.
    """
    # imported here: --help does not wait for torch
    import numpy as np
    import pandas as pd
    import torch

    from classifier.evaluation.calls import call
    from classifier.evaluation.comparison import (
        Comparison,
        load_references,
        paths_beside,
        write_comparison,
    )
    from classifier.evaluation.input_images import read_batches, what_is_wrong
    from classifier.evaluation.tracked import track_predictions
    from classifier.scores import guard, write_scores
    from classifier.trained import load_folds
    from classifier.tta import check_tta
    from data.images.files import escaped
    from dermsynth import device, progress

    check_bounds(options)
    check_free(options.out, options.overwrite)
    list_of_skipped = options.out.with_suffix(".skipped.csv")
    calls = options.out.with_suffix(".calls.csv")
    for path in (calls, *paths_beside(options.out)):
        check_free(path, options.overwrite)
    if options.on_error == "skip":
        check_free(list_of_skipped, options.overwrite)
    models = load_folds(options.run)
    networks = [network for model in models for network in model.networks]
    for trained in networks:
        tta = trained.tested if options.tta == "tested" else options.tta
        check_tta(tta, trained.augment)
    compute = device.resolve(options.compute.device, options.compute.precision)
    for trained in networks:
        trained.model.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = read_batches(options.data, networks[0], options.on_error)
    spec = networks[0].model.spec
    folds = f" of {len(models)} folds" if len(models) > 1 else ""
    folds += ", two networks" if len(networks) > len(models) else ""
    print(
        f"{options.run}: {spec.backbone}{folds}, {spec.size} px; "
        f"{counted(inputs.count, 'image')}; {compute}"
    )
    names: list[str] = []
    scores: list[np.ndarray] = []  # of every batch, float64 [folds, n]
    references = load_references(options.run)
    comparison = Comparison(references, [trained.model for trained in networks])
    with progress.bar(inputs.count, "predicting", "img") as bar:
        for some_names, images, dataset, rows, sides in inputs.batches:
            with comparison.batch(images, sides):
                by_fold = [
                    model.scores(images, compute, options.tta, dataset, rows) for model in models
                ]
            scores.append(np.stack(by_fold))
            names += some_names
            bar.update(len(images))
    every = np.concatenate(scores, axis=1)
    table = pd.DataFrame({"image_name": names, "target": every.mean(axis=0)})
    write_scores(options.out, names, table["target"].to_numpy())
    called = call(every, models, options.at)
    calls.unlink(missing_ok=True)  # of another run
    if called is not None:
        called.insert(0, "image_name", [guard(name) for name in names])
        write_text(calls, called.to_csv(index=False))
    likeness = write_comparison(comparison, names, options.out)
    if options.on_error == "skip":
        list_of_skipped.unlink(missing_ok=True)  # of another --data
    if inputs.skipped:
        bad = [(escaped(image.path), image.reason) for image in inputs.skipped]
        lines = pd.DataFrame(bad, columns=["image", "reason"]).to_csv(index=False)
        write_text(list_of_skipped, lines)
        print(f"warning: {what_is_wrong(inputs)}\nall of them, without a score: {list_of_skipped}")
    print(f"{counted(len(table), 'row')}, mean {table['target'].mean():.3f}: {options.out}")
    if called is not None:
        one = networks[0].target.meaning.one
        n = int((called["call"] == one).sum())
        print(f"{n:,} called {one} at the threshold of {options.at}: {calls}")
    print(likeness)
    track_predictions(options, table, len(inputs.skipped))
    cli.say_next(f"python -m classifier.blend --scores a={options.out} b=FILE --out OUT.csv")
    return table


if __name__ == "__main__":
    cli.run(PredictOptions, predict, "classifier.predict", __doc__)
