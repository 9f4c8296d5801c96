"""What is evaluated: synthetic images, the real ones beside them, and where both come from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.pool import Pool, is_malignant, load_pool
from data.provenance import GeneratorRecord, Provenance
from data.store import Dataset, load_dataset
from data.view import view
from dermsynth.device import Compute
from dermsynth.errors import UserError, counted
from dermsynth.manifest import Input, Sealed, check_same
from dermsynth.seeds import generator as random_generator
from gan.networks import ARCHITECTURES
from gan.options import LEAST_SYNTHETIC, EvaluateOptions, LabelName
from gan.sampling import draw_labels, sample
from gan.training_images import (
    LEAST_HELD_OUT,
    held_out_rows,
    open_dataset,
    training_rows,
)
from gan.weights import DESCRIPTION, load_generator, open_generator

TARGETS: dict[LabelName, int] = {"benign": 0, "malignant": 1}


@dataclass(frozen=True)
class Images:
    """All uint8 [n, size, size, 3], RGB, of one target."""

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
class Source:
    """What makes or holds the synthetic images, as it was opened."""

    path: Path  # the run or the pool
    opened: Sealed | Pool
    provenance: Provenance  # a pool's, or what a pool of the generator's would say

    @property
    def is_generator(self) -> bool:
        """Whether it is a run of gan.train, not a pool."""
        return isinstance(self.opened, Sealed)

    @property
    def as_input(self) -> Input:
        """Its identity, as an input of the evaluation."""
        return self.opened.as_input


@dataclass(frozen=True)
class Subject:
    """A generator or a pool beside the dataset and fold that it is compared with."""

    path: Path  # the run or the pool
    is_generator: bool
    provenance: Provenance
    dataset: Dataset
    fold: int
    label: LabelName  # what all images are
    images: Images

    @property
    def meant(self) -> str:
        """What all images are, in the dataset's words."""
        return self.dataset.info.target.words[TARGETS[self.label]]

    @property
    def generator(self) -> GeneratorRecord | None:
        """What made the images; None where that is not known."""
        return self.provenance.generator

    @property
    def discriminator_sees(self) -> str | None:
        """Name of the pretrained features that the images were judged by in training; "" for none.

        None where it is not known what made the images.
        """
        name = self.generator.architecture.name if self.generator else None
        if name not in ARCHITECTURES:
            return None
        return getattr(ARCHITECTURES[name].discriminator, "sees", "")


def open_source(options: EvaluateOptions) -> Source:
    """The run or the pool. Raises UserError where it is missing or damaged."""
    if options.generator is None:
        assert options.pool is not None
        pool = load_pool(options.pool)
        return Source(options.pool, pool, pool.info.provenance)
    sealed = open_generator(options.generator)
    record = sealed.record(DESCRIPTION, GeneratorRecord)
    provenance = Provenance(kind="generator", generator=record, generator_id=sealed.identity.id)
    return Source(options.generator, sealed, provenance)


def open_subject(options: EvaluateOptions, source: Source, compute: Compute) -> Subject:
    """Open everything, check that it belongs together, and only then make the images.

    Raises UserError for what is missing or damaged, too few images, another image size, another
    dataset than the generator was trained on, one that has seen what is held out, and images that
    are neither malignant nor benign.
    """
    record = source.provenance.generator
    whole = _dataset(options, source)
    label = _label(options, source, whole)
    fold = options.fold if options.fold is not None else record.fold if record else 0
    tested = record.test_fold if record and options.test_fold is None else options.test_fold
    dataset = view(whole, fold, tested)
    learnt_from = view(whole, fold, tested, record.malignant_share if record else 1.0)
    target = TARGETS[label]
    training, held_out = (
        training_rows(learnt_from, fold, target),
        held_out_rows(dataset, fold, target),
    )
    if len(held_out) < LEAST_HELD_OUT:
        named = dataset.info.target.words[target]
        raise UserError(
            f"{dataset.path}: {counted(len(held_out), f'{named} image')} in the validation part of "
            f"fold {fold}; a comparison needs {LEAST_HELD_OUT} at the very least"
        )
    if record is not None:
        _check_unseen(record, dataset, held_out, fold)
    synthetic = _synthetic(options, source, label, compute)
    if synthetic.shape[1] != dataset.size or len(synthetic) < LEAST_SYNTHETIC:
        raise UserError(
            f"{len(synthetic)} synthetic images of {synthetic.shape[1]} px against real ones of "
            f"{dataset.size} px in {dataset.path}: expected {LEAST_SYNTHETIC} or more of the same "
            "size"
        )
    groups = dataset.table["group"].to_numpy()[np.concatenate([training, held_out])]
    real = (np.asarray(dataset.images[rows]) for rows in (training, held_out))
    images = Images(synthetic, *real, groups)
    return Subject(
        source.path, source.is_generator, source.provenance, dataset, fold, label, images
    )


def _dataset(options: EvaluateOptions, source: Source) -> Dataset:
    """The dataset that is given, or that the generator was trained on, wherever it lies now."""
    record = source.provenance.generator
    if record is None:
        return open_dataset(options.data)
    path = options.data or Path(record.dataset)
    mend = "give --data with the dataset that the generator was trained on, wherever it lies now"
    if options.data is None and not path.exists():
        raise UserError(f"{source.path}: its dataset is not at {path} any more; {mend}")
    dataset = load_dataset(path)
    before, now = {"dataset": record.dataset_identity}, {"dataset": dataset.identity}
    check_same(before, now, f"{source.path} and {path}", mend)
    return dataset


def _synthetic(
    options: EvaluateOptions, source: Source, label: LabelName, compute: Compute
) -> np.ndarray:
    if isinstance(source.opened, Pool):
        return source.opened.images[: options.count]
    network, record = load_generator(source.opened)
    labels = draw_labels(record.classes, label, options.count, options.seed)
    return sample(network, options.count, options.seed, compute, labels)


def _label(options: EvaluateOptions, source: Source, dataset: Dataset) -> LabelName:
    """What the images are."""
    generator = source.provenance.generator
    if source.is_generator and generator is not None:
        label = options.label or "malignant"
        draw_labels(generator.classes, label, 1, 0)  # whether it makes such images
        return label
    said = source.provenance.label
    label = "malignant" if is_malignant(source.provenance, dataset) else "benign"
    if label == "benign" and said != label:
        raise UserError(
            f"{source.path}: its images are {said}, and would be compared with all benign ones; "
            "make a pool with --label benign or malignant, or evaluate the generator's run"
        )
    if options.label not in (None, label):
        raise UserError(
            f"--label {options.label}: the images of {source.path} are {said}; leave it out, a "
            "pool is scored as what it is"
        )
    return label


def _check_unseen(
    record: GeneratorRecord, dataset: Dataset, held_out: np.ndarray, fold: int
) -> None:
    seen = set(record.training_ids)
    met = [i for i in dataset.table["image_id"].to_numpy()[held_out] if i in seen]
    if met:
        raise UserError(
            f"the generator was trained on {counted(len(met), 'image')} that fold {fold} of "
            f"{dataset.path} holds out, {met[0]} for one; evaluate on its own dataset and fold"
        )
