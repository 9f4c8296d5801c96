"""Score images with a trained classifier: a prepared dataset or a folder of images, to a CSV.

The CSV has the form of Kaggle's submissions, `image_name,target`: a row an image, in the dataset's
order or by file name, and the probability that the lesion is malignant, 0 to 1. An image in a
folder takes the path that the training images took: the same crop, cleaning and size.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open

from classifier.augment import load_batch, turn
from classifier.backbones import Classifier
from classifier.outputs import METRICS, MODEL
from data.images import BadImage, Look, decode_all, find_images
from data.store import MARKER, load_dataset, load_table
from runtime import cli, device, progress
from runtime.cli import read_yaml
from runtime.device import Compute, DeviceName, PrecisionName
from runtime.errors import UserError, some
from runtime.files import write_bytes
from runtime.runs import CONFIG

BATCH = 128  # images at a time
TURNS = (1, 8)  # views that can be averaged


@dataclass(frozen=True)
class PredictOptions:
    """Options of `python -m classifier.predict`."""

    run: Path  # run folder of classifier.train
    data: Path  # prepared dataset, or a folder of images (.jpg, .png)
    out: Path  # CSV file to write
    tta: int = 1  # views an image whose probabilities are averaged: 1, or 8 (flips, quarter turns)
    device: DeviceName = "auto"  # auto takes CUDA where there is one
    precision: PrecisionName = "auto"  # auto is bf16 on accelerators, fp32 on a CPU
    overwrite: bool = False  # replace the file in --out


def predict(options: PredictOptions) -> pd.DataFrame:
    """Write the CSV; returns its rows: `image_name` str, `target` float64 in 0..1.

    Raises UserError for a run that is not finished or damaged, for no images, for images that
    cannot be read (all at once, and nothing is written), and for a file that is there already.
    """
    if options.tta not in TURNS:
        raise UserError(f"--tta {options.tta}: expected 1 or 8")
    if options.out.exists() and not options.overwrite:
        raise UserError(f"--out {options.out}: exists already; give another or --overwrite")
    model, look = load_run(options.run)
    compute = device.resolve(options.device, options.precision)
    model = model.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    names, batches = _images(options.data, look, model.size)
    print(f"{options.run}: {model.backbone}, {model.size} px; {len(names):,} images; {compute}")
    found = []
    with progress.bar(len(names), "predicting", "img") as bar:
        for images in batches:
            found.append(probabilities(model, images, options.tta, compute))
            bar.update(len(images))
    rows = pd.DataFrame({"image_name": names, "target": np.concatenate(found)})
    text = io.StringIO()
    rows.to_csv(text, index=False)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(options.out, text.getvalue().encode())
    print(f"{len(rows):,} rows, mean {rows['target'].mean():.3f}: {options.out}")
    return rows


def load_run(run: Path) -> tuple[Classifier, Look]:
    """A finished run's best model, in eval mode, and how its training images were made.

    Raises UserError where the run is not finished or its model damaged.
    """
    if not (run / METRICS).exists():
        raise UserError(
            f"--run {run}: no finished run of classifier.train there (no {METRICS}); train one, or "
            f"go on with `python -m classifier.train --out {run} --resume`"
        )
    try:
        with safe_open(run / MODEL, "pt") as file:
            about = json.loads((file.metadata() or {})["classifier"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = Classifier(about["backbone"], about["size"], about["frozen"], "fixed", 0.0)
        model.net.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{run / MODEL}: missing or damaged ({reason}); train it again") from None
    if about["leaky"]:
        print(f"warning: {run} was trained with a leak ({about['leaky']})")
    return model.eval(), _look(run, about["size"])


@torch.inference_mode()
def probabilities(model: Classifier, images: np.ndarray, tta: int, compute: Compute) -> np.ndarray:
    """float64 [n] of uint8 [n, s, s, 3] RGB: the mean over `tta` symmetries of the square."""
    pixels = load_batch(images, model.size, None).permute(0, 2, 3, 1)
    total = np.zeros(len(images))
    for number in range(tta):
        batch = turn(pixels, np.full(len(images), number)).permute(0, 3, 1, 2)
        with compute.autocast():
            logits = model(batch.to(compute.device))
        total += torch.sigmoid(logits.double()).cpu().numpy()
    return total / tta


def _look(run: Path, size: int) -> Look:
    """The training images' crop, cleaning and size; the usual ones where their dataset is gone."""
    data = Path(read_yaml(run / CONFIG)["data"])
    if not (data / MARKER).exists():
        print(f"warning: {data} is gone; images are cropped to their centre and not cleaned")
        return Look(size)
    made = load_table(data)[1].get("look")
    if made is None:
        return Look(size)
    stored = size if (data / "shards").exists() else made["size"]
    return Look(stored, made["fit"], tuple(made["clean"]))


def _images(data: Path, look: Look, size: int) -> tuple[list[str], Iterator[np.ndarray]]:
    """Names, and batches of images uint8 [n, s, s, 3] in their order."""
    if (data / MARKER).exists():
        dataset = load_dataset(data, size)
        starts = range(0, len(dataset.table), BATCH)
        rows = (np.arange(s, min(s + BATCH, len(dataset.table))) for s in starts)
        return dataset.table["image_id"].tolist(), (np.asarray(dataset.images[r]) for r in rows)
    if not data.is_dir():
        raise UserError(f"--data {data}: no such folder; expected a dataset or a folder of images")
    files = find_images(data)
    if not files:
        raise UserError(f"--data {data}: no images there; expected .jpg, .jpeg or .png files")
    names = [file.relative_to(data).with_suffix("").as_posix() for file in files]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"--data {data}: several files of one name: {some(twice)}; rename them")
    return names, _decoded(files, look, data)


def _decoded(files: list[Path], look: Look, root: Path) -> Iterator[np.ndarray]:
    batch: list[np.ndarray] = []
    bad: list[BadImage] = []
    for image in decode_all(files, look, root=root):
        if isinstance(image, BadImage):
            bad.append(image)
        elif not bad:  # after the first nothing is written: only the others are looked for
            batch.append(image.pixels)
        if len(batch) == BATCH:
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
