"""Score images with a trained classifier: a prepared dataset or a folder of images, to a CSV.

The CSV has the form of Kaggle's submissions, `image_name,target`: a row an image, in the dataset's
order or by file name, and the probability that the lesion is malignant, 0 to 1. An image in a
folder takes the path that the training images took: the same crop, cleaning and size.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from classifier.trained import Trained, load_folds
from classifier.tta import check_tta
from data.images.decoding import BadImage, decode_all, find_images
from data.store import MARKER, Dataset, load_dataset
from dermsynth import cli, device, progress
from dermsynth.device import DeviceName, PrecisionName
from dermsynth.errors import UserError, some
from dermsynth.files import write_bytes

Batch = tuple[np.ndarray, Dataset | None, np.ndarray | None]  # images, their dataset and rows


@dataclass(frozen=True)
class PredictOptions:
    """Options of `python -m classifier.predict`."""

    run: Path  # run folder of classifier.train
    data: Path  # prepared dataset, or a folder of images (.jpg, .png)
    out: Path  # CSV file to write
    tta: int = 1  # views an image whose scores are averaged: 1, 8 (flips, quarter turns) or more
    device: DeviceName = "auto"  # auto takes CUDA where there is one
    precision: PrecisionName = "auto"  # auto is bf16 on accelerators, fp32 on a CPU
    overwrite: bool = False  # replace the file in --out


def predict(options: PredictOptions) -> pd.DataFrame:
    """Write the CSV; returns its rows: `image_name` str, `target` float64 in 0..1.

    Raises UserError for a run that is not finished or damaged, for no images, for images that
    cannot be read (all at once, and nothing is written), and for a file that is there already.
    """
    if options.out.exists() and not options.overwrite:
        raise UserError(f"--out {options.out}: exists already; give another or --overwrite")
    trained = load_folds(options.run)
    first = trained[0]
    check_tta(options.tta, first.augment)
    compute = device.resolve(options.device, options.precision)
    for one in trained:
        one.model.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    names, batches = _batches(options.data, first)
    spec, of = first.model.spec, f" of {len(trained)} folds" if len(trained) > 1 else ""
    print(f"{options.run}: {spec.backbone}{of}, {spec.size} px; {len(names):,} images; {compute}")
    found = []
    with progress.bar(len(names), "predicting", "img") as bar:
        for images, dataset, part in batches:
            found.append(
                np.mean(
                    [one.scores(images, compute, options.tta, dataset, part) for one in trained],
                    axis=0,
                )
            )
            bar.update(len(images))
    rows = pd.DataFrame({"image_name": names, "target": np.concatenate(found)})
    text = io.StringIO()
    rows.to_csv(text, index=False)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(options.out, text.getvalue().encode())
    print(f"{len(rows):,} rows, mean {rows['target'].mean():.3f}: {options.out}")
    return rows


def _batches(data: Path, trained: Trained) -> tuple[list[str], Iterator[Batch]]:
    """Names, and images uint8 [n, s, s, 3] in their order with where they come from."""
    if (data / MARKER).exists():
        dataset = load_dataset(data, trained.model.spec.size)
        n, at_once = len(dataset.table), trained.model.spec.at_once
        rows = (np.arange(start, min(start + at_once, n)) for start in range(0, n, at_once))
        batches = ((np.asarray(dataset.images[r]), dataset, r) for r in rows)
        return dataset.table["image_id"].tolist(), batches
    if trained.fusion:
        raise UserError(
            f"--data {data}: the model looks at age, sex or site, which a folder of images does "
            "not tell; give a prepared dataset"
        )
    if not data.is_dir():
        raise UserError(f"--data {data}: no such folder; expected a dataset or a folder of images")
    files = find_images(data)
    if not files:
        raise UserError(f"--data {data}: no images there; expected .jpg, .jpeg or .png files")
    names = [file.relative_to(data).with_suffix("").as_posix() for file in files]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"--data {data}: several files of one name: {some(twice)}; rename them")
    return names, ((images, None, None) for images in _decoded(files, trained, data))


def _decoded(files: list[Path], trained: Trained, root: Path) -> Iterator[np.ndarray]:
    batch: list[np.ndarray] = []
    bad: list[BadImage] = []
    for image in decode_all(files, trained.look, root=root):
        if isinstance(image, BadImage):
            bad.append(image)
        elif not bad:  # after the first nothing is written: only the others are looked for
            batch.append(image.pixels)
        if len(batch) == trained.model.spec.at_once:
            yield np.stack(batch)
            batch = []
    if bad:
        lines = "".join(f"\n  {image.path}: {image.reason}" for image in bad[:10])
        raise UserError(
            f"{len(bad):,} of {len(files):,} images cannot be used; the first {len(bad[:10])}:"
            f"{lines}\nmend them or take them away"
        )
    if batch:
        yield np.stack(batch)


if __name__ == "__main__":
    cli.run(PredictOptions, predict, "classifier.predict", __doc__ or "")
