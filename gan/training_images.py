"""The real images that a GAN learns from: which rows, of which classes, in which order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.on_device import DeviceImages
from data.prepare import default_dataset
from data.provenance import ClassRecord
from data.store import Dataset, load_dataset
from dermsynth.errors import UserError, counted, some
from dermsynth.row_hashes import CheckedRows
from dermsynth.seeds import generator
from dermsynth.symmetries import turn_each
from dermsynth.tensors import send
from gan.options import ClassesName

LEAST_IMAGES, FEW_IMAGES = 8, 50
LEAST_HELD_OUT = 8  # images that a comparison needs


@dataclass(frozen=True)
class TrainingPart:
    """Images that a GAN learns from; without classes the malignant ones alone."""

    rows: np.ndarray  # int64 [n], ascending row numbers of the dataset
    labels: np.ndarray  # int64 [n], 0 where there are no classes
    classes: list[ClassRecord]  # [] for none


def open_dataset(path: Path | None) -> Dataset:
    """The dataset at `path`; without one the phantom, prepared if it is not there yet."""
    return load_dataset(path or default_dataset())


def training_rows(dataset: Dataset, fold: int, target: int = 1) -> np.ndarray:
    """Row numbers of the malignant (target 1) or benign images in the training part of `fold`.

    Raises UserError with fewer than 8; warns with fewer than 50.
    """
    rows = dataset.rows("train", fold)
    rows, named = rows[dataset.targets(rows) == target], dataset.info.target.words[target]
    if len(rows) < LEAST_IMAGES:
        raise UserError(
            f"{dataset.path}: {counted(len(rows), f'{named} image')} in the training part of fold "
            f"{fold}; a GAN needs {LEAST_IMAGES} at the very least, some hundreds to be of use"
        )
    if len(rows) < FEW_IMAGES:
        print(f"warning: only {len(rows)} {named} images to learn from: expect copies of them")
    return rows


def held_out_rows(dataset: Dataset, fold: int, target: int = 1) -> np.ndarray:
    """Row numbers of the malignant (target 1) or benign images in the validation part of `fold`."""
    rows = dataset.rows("val", fold)
    return rows[dataset.targets(rows) == target]


def training_part(dataset: Dataset, fold: int, classes: ClassesName) -> TrainingPart:
    """The training part of `fold`: malignant images alone, or all by target or by diagnosis.

    Classes with fewer than 8 images are left out, and said. Raises UserError with fewer than 8
    malignant images, or where no two classes are left.
    """
    malignant = training_rows(dataset, fold)
    if classes == "none":
        return TrainingPart(malignant, np.zeros(len(malignant), np.int64), [])
    rows = dataset.rows("train", fold)
    targets = dataset.targets(rows)
    if classes == "target":
        names = np.where(targets == 1, "malignant", "benign")
    else:
        names = dataset.table["diagnosis"].iloc[rows].fillna("").to_numpy(str)
    known, counts = np.unique(names, return_counts=True)
    kept = [str(n) for n, c in zip(known, counts, strict=True) if n and c >= LEAST_IMAGES]
    rare = [str(name) for name in known if name and str(name) not in kept]
    if rare:
        print(f"warning: fewer than {LEAST_IMAGES} images of {some(rare)}: left out")
    if len(kept) < 2:
        raise UserError(
            f"--classes {classes}: {dataset.path} has {len(kept)} class with {LEAST_IMAGES} images "
            f"or more in the training part of fold {fold}; use --classes none"
        )
    chosen = np.isin(names, kept)
    rows, targets, names = rows[chosen], targets[chosen], names[chosen]
    described = [
        ClassRecord(
            name=name,
            target=int(targets[names == name].mean() > 0.5),
            count=int((names == name).sum()),
        )
        for name in kept
    ]
    return TrainingPart(rows, np.searchsorted(kept, names).astype(np.int64), described)


class TrainingImages:
    """Batches of real images: each image of a class once an epoch, each time flipped or turned.

    Classes take turns, so that a rare one is seen as often as a frequent one. What a step gets
    depends on the seed and the step's number alone.
    """

    def __init__(
        self, dataset: Dataset, part: TrainingPart, seed: int, device: str | torch.device = "cpu"
    ) -> None:
        # on a CPU a memory map is read as it is needed; encoded files are decoded once
        device = torch.device(device)
        mapped = device.type == "cpu" and isinstance(dataset.images, CheckedRows)
        self.images = dataset.images if mapped else dataset.images[part.rows]
        self.rows = part.rows if mapped else np.arange(len(part.rows))
        self._stored = DeviceImages([self.images], dataset.size, device)
        self.labels, self.seed = part.labels, seed
        classes = range(max(len(part.classes), 1))
        self.members = [np.flatnonzero(self.labels == number) for number in classes]

    def first(self, count: int) -> np.ndarray:
        """Images as they are, classes in turn: uint8 [count or fewer, size, size, 3]."""
        turns = len(self.members)
        places = range(min(count, len(self.labels)))
        numbers = [
            self.members[i % turns][i // turns % len(self.members[i % turns])] for i in places
        ]
        return np.asarray(self.images[self.rows[numbers]])

    def batch(
        self, step: int, count: int, rank: int = 0, processes: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [n, size, size, 3], labels int64 [n]: the share of `rank` in a step's `count`."""
        mine = slice(rank * count // processes, (rank + 1) * count // processes)
        numbers = self._stream(np.arange(step * count, (step + 1) * count)[mine])
        draws = generator(self.seed, "gan/symmetry", step).integers(0, 8, count)[mine]
        pictures = turn_each(self._stored.take(self.rows[numbers]), draws)
        return pictures, send(self.labels[numbers], pictures.device)

    def _stream(self, places: np.ndarray) -> np.ndarray:
        """Which images stand at these places of the run's endless stream."""
        orders: dict[tuple[int, int], np.ndarray] = {}
        numbers = []
        for place in places:
            number, label = divmod(int(place), len(self.members))
            epoch, at = divmod(number, len(self.members[label]))
            if (label, epoch) not in orders:
                words = ("gan/order", epoch, *([label] if len(self.members) > 1 else []))
                order = generator(self.seed, *words).permutation(len(self.members[label]))
                orders[label, epoch] = order
            numbers.append(self.members[label][orders[label, epoch][at]])
        return np.array(numbers)
