"""What is evaluated: synthetic images, the real ones beside them, and where both come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.pool import load_pool
from data.store import Dataset
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.seeds import generator as random_generator
from gan.networks import ARCHITECTURES
from gan.options import LEAST_SYNTHETIC, EvaluateOptions
from gan.sampling import draw_labels, sample
from gan.training_images import LEAST_HELD_OUT, held_out_rows, open_dataset, training_rows
from gan.weights import load_generator, read_description


@dataclass(frozen=True)
class Images:
    """All uint8 [n, size, size, 3], RGB; the real ones are malignant."""

    synthetic: np.ndarray
    training: np.ndarray  # of the fold's training part
    held_out: np.ndarray  # of its validation part
    groups: np.ndarray  # of training and then of held-out images

    def some(self, kind: str, limit: int, seed: int) -> np.ndarray:
        """Row numbers, ascending, of at most `limit` images of a kind: a random choice."""
        images = getattr(self, kind)
        order = random_generator(seed, "gan/evaluate", kind).permutation(len(images))
        return np.sort(order[:limit])


@dataclass(frozen=True)
class Subject:
    """A generator or a pool beside the dataset and fold that it is compared with."""

    path: Path  # the run or the pool
    is_generator: bool
    provenance: dict[str, Any]  # a pool's; of a generator {"kind": "generator", "generator": ...}
    dataset: Dataset
    fold: int
    images: Images

    @property
    def description(self) -> dict[str, Any]:
        """`generator.json` of what made the images; {} where that is not known."""
        return _description(self.provenance)

    @property
    def discriminator_sees(self) -> str | None:
        """Name of the pretrained features that the images were judged by in training; "" for none.

        None where it is not known what made the images.
        """
        name = self.description.get("architecture", {}).get("name")
        if name not in ARCHITECTURES:
            return None
        return getattr(ARCHITECTURES[name].discriminator, "sees", "")


def open_subject(options: EvaluateOptions, compute: Compute) -> Subject:
    """Open everything, check that it belongs together, and only then make the images.

    Raises UserError for what is missing or damaged, too few images, another image size, and a
    generator that has seen what is held out.
    """
    path, is_generator = options.generator or options.pool, options.generator is not None
    provenance = (
        {"kind": "generator", "generator": read_description(path)}
        if is_generator
        else load_pool(path).info.get("provenance") or {}
    )
    description = _description(provenance)
    known = description.get("dataset")
    dataset = open_dataset(options.data or (Path(known) if known else None))
    fold = options.fold if options.fold is not None else description.get("fold", 0)
    training, held_out = training_rows(dataset, fold), held_out_rows(dataset, fold)
    if len(held_out) < LEAST_HELD_OUT:
        raise UserError(
            f"{dataset.path}: {len(held_out)} malignant images in the validation part of fold "
            f"{fold}; a comparison needs {LEAST_HELD_OUT} at the very least"
        )
    _check_unseen(description, dataset, held_out, fold)
    synthetic = _synthetic(options, compute)
    if synthetic.shape[1] != dataset.size or len(synthetic) < LEAST_SYNTHETIC:
        raise UserError(
            f"{len(synthetic)} synthetic images of {synthetic.shape[1]} px against real ones of "
            f"{dataset.size} px in {dataset.path}: expected {LEAST_SYNTHETIC} or more of the same "
            "size"
        )
    groups = dataset.table["group"].to_numpy()[np.concatenate([training, held_out])]
    real = (np.asarray(dataset.images[rows]) for rows in (training, held_out))
    return Subject(path, is_generator, provenance, dataset, fold, Images(synthetic, *real, groups))


def _description(provenance: dict[str, Any]) -> dict[str, Any]:
    description = provenance.get("generator")
    return description if isinstance(description, dict) else {}


def _synthetic(options: EvaluateOptions, compute: Compute) -> np.ndarray:
    if options.generator is None:
        return np.array(load_pool(options.pool).images[: options.count])
    network, description = load_generator(options.generator)
    labels = draw_labels(description, "malignant", options.count, options.seed)
    return sample(network, options.count, options.seed, compute, labels)


def _check_unseen(
    description: dict[str, Any], dataset: Dataset, held_out: np.ndarray, fold: int
) -> None:
    seen = set(description.get("training_ids", []))
    met = [i for i in dataset.table["image_id"].to_numpy()[held_out] if i in seen]
    if met:
        raise UserError(
            f"the generator was trained on {len(met)} images that fold {fold} of {dataset.path} "
            f"holds out, {met[0]} for one; evaluate on its own dataset and fold"
        )
