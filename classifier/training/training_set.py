"""What a run trains on: real images, extra malignant ones, their metadata, and their order."""

from dataclasses import dataclass

import numpy as np

from classifier.model.metadata_inputs import COLUMNS, MetadataInputs
from classifier.options import Share, Times, TrainOptions, parse_share
from classifier.targets import UNKNOWN, Target
from data.metadata import MetadataEncoder
from data.store import Dataset
from dermsynth.errors import UserError
from dermsynth.seeds import generator

REAL, MALIGNANT, BENIGN = 0, 1, 2  # where an image comes from: the dataset, or which pool


@dataclass(frozen=True)
class TrainingSet:
    """The final training set: the real images, then the extra ones."""

    rows: np.ndarray  # int64 [n]: row of the dataset, or of a pool
    source: np.ndarray  # int8 [n]: REAL, or the pool: MALIGNANT, BENIGN
    labels: np.ndarray  # int64 [n], classes of the target
    targets: np.ndarray  # bool [n], malignant
    n_real: int  # without the extra ones
    epoch: int  # images that count as an epoch: all real ones, also where some are left out

    @property
    def synthetic(self) -> np.ndarray:
        """bool [n]."""
        return self.source != REAL

    @property
    def needed(self) -> tuple[int, int]:
        """How many images of the malignant and of the benign pool."""
        return int((self.source == MALIGNANT).sum()), int((self.source == BENIGN).sum())

    def __len__(self) -> int:
        return len(self.rows)


def build_training_set(dataset: Dataset, target: Target, options: TrainOptions) -> TrainingSet:
    """The real images and what --synthetic or --oversample adds: the pool's first, or duplicates.

    Duplicates are spread evenly: no image comes twice more often than another. Synthetic images
    have the class that most real ones of their target have.
    """
    rows = real_rows(dataset, target, options)
    is_malignant, labels = dataset.targets(rows), target.labels(dataset.table.iloc[rows])
    shares, epoch = options.training_set, len(rows)
    both = shares.benign_pool is not None
    counts = needed_images(is_malignant, shares.synthetic, both)
    duplicates = extra_count(is_malignant, parse_share("--oversample", shares.oversample))
    extra, extra_labels, source = [np.arange(0)], [labels[:0]], [np.full(len(rows), REAL)]
    if duplicates:
        rng = generator(options.compute.seed, "oversample")
        malignant = np.unique(rows[is_malignant == 1])
        extra.append(np.resize(rng.permutation(malignant), duplicates))
        extra_labels.append(target.labels(dataset.table.iloc[extra[-1]]))
        source.append(np.full(duplicates, REAL))
    for count, pool, is_one in zip(counts, (MALIGNANT, BENIGN), (1, 0), strict=True):
        if count:
            usual = np.bincount(labels[is_malignant == is_one]).argmax()
            extra.append(np.arange(count))
            extra_labels.append(np.full(count, usual))
            source.append(np.full(count, pool))
    if shares.synthetic_only:
        rows, labels = rows[is_malignant == 0], labels[is_malignant == 0]
        source[0] = source[0][: len(rows)]
    labels = np.concatenate([labels, *extra_labels])
    return TrainingSet(
        rows=np.concatenate([rows, *extra]),
        source=np.concatenate(source).astype(np.int8),
        labels=labels,
        targets=np.array(target.malignant)[labels],
        n_real=len(rows),
        epoch=epoch,
    )


def needed_images(targets: np.ndarray, synthetic: str, both: bool = False) -> tuple[int, int]:
    """How many malignant and benign synthetic images `--synthetic` means.

    `targets` 0/1 [n] of the real images; `both`: classes grow alike, else malignant ones alone.
    """
    count = extra_count(targets, parse_share("--synthetic", synthetic))
    malignant = round(count * float((targets == 1).mean())) if both else count
    return malignant, count - malignant


def real_rows(dataset: Dataset, target: Target, options: TrainOptions) -> np.ndarray:
    """Rows of the fold's real training images whose class is known, int64 [n].

    `cap` keeps that many of a class, drawn at random (0: all); `upsample` then repeats those of
    smaller classes, none twice more often than another, until each has the share `upsample_to` of
    the largest; a class that has more than that keeps them.
    """
    cap, upsample = options.training_set.cap, options.training_set.upsample
    rows = dataset.rows("train", options.task.fold)  # type: ignore[arg-type] - a number by now
    labels = target.labels(dataset.table.iloc[rows])
    if not cap and not upsample:
        return rows[labels != UNKNOWN]
    rows_by_class = []
    for label in np.unique(labels[labels != UNKNOWN]):
        rng = generator(options.compute.seed, "sample", int(label))
        rows_by_class.append(rng.permutation(rows[labels == label])[: cap or None])
    if upsample:
        least = round(options.training_set.upsample_to * max(map(len, rows_by_class)))
        rows_by_class = [np.resize(drawn, max(least, len(drawn))) for drawn in rows_by_class]
    return np.sort(np.concatenate(rows_by_class))


def extra_count(targets: np.ndarray, share: Share) -> int:
    """How many extra malignant images a share of the final training set means.

    A share s of the final set means n_extra = s / (1 - s) * n_real, of which none is ever dropped;
    `balanced` evens the classes, `2x` is twice the malignant ones. `targets` 0/1 [n], whether the
    real images are malignant.
    """
    if isinstance(share, Times):
        return round(share.factor * int((targets == 1).sum()))
    if share == "balanced":
        return max(0, int((targets == 0).sum()) - int((targets == 1).sum()))
    return round(share / (1 - share) * len(targets))


def fit_metadata(options: TrainOptions, dataset: Dataset, training: TrainingSet) -> MetadataInputs:
    """Age, sex and site as numbers, by the real training images.

    A synthetic image has the columns of a real one of its target: an average age of its own would
    give it away. Raises UserError where a column asked for has no value in any training image.
    """
    chosen = [name.strip() for name in options.model.metadata.split(",")]
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
    rows = training.rows.copy()
    rng = generator(options.compute.seed, "metadata")
    for pool, is_one in ((MALIGNANT, True), (BENIGN, False)):
        alike = np.flatnonzero(training.targets[: training.n_real] == is_one)
        added = training.source == pool
        if added.any():
            rows[added] = training.rows[rng.choice(alike, added.sum())]
    return MetadataInputs(fitted, MetadataEncoder().fit(fitted), rows)


class DataOrder:
    """An endless stream of permutations of n images, cut into batches; any step at any time.

    Arms with lists of the same length and the same seed see the same positions at each step.
    With `classes`, int64 [n], each round draws n images with replacement instead, all classes
    equally often on average.
    """

    def __init__(self, seed: int, n: int, batch: int, classes: np.ndarray | None = None) -> None:
        self.seed, self.n, self.batch = seed, n, batch
        self._chance = None
        if classes is not None:
            counts = np.bincount(classes)
            self._chance = 1 / (counts[classes] * np.count_nonzero(counts))
        self._permutation: dict[int, np.ndarray] = {}

    def positions(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the set and how often the set has been gone through, int64 [batch]."""
        number = np.arange(step * self.batch, (step + 1) * self.batch)
        rounds, within = number // self.n, number % self.n
        positions = np.empty_like(number)
        for round_ in np.unique(rounds):
            chosen = rounds == round_
            positions[chosen] = self._round(int(round_))[within[chosen]]
        return positions, rounds

    def _round(self, number: int) -> np.ndarray:
        if number not in self._permutation:
            self._permutation = {k: v for k, v in self._permutation.items() if k == number - 1}
            rng = generator(self.seed, "order", number)
            if self._chance is None:
                self._permutation[number] = rng.permutation(self.n)
            else:
                self._permutation[number] = rng.choice(self.n, self.n, p=self._chance)
        return self._permutation[number]
