"""The frozen trunk, run fast and as seldom as possible.

With batch norm fixed, the frozen blocks are a pure function of the image. So every training image
gets a fixed number of augmented views, and the trunk's output for a view is computed once, in eval
mode, batch norm folded, in bf16 where the machine is faster so, and kept. Epochs, seeds, arms and
folds then train the tail alone. `--views 0` draws fresh augmentation instead and keeps nothing.
"""

import math
import os
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from classifier.augment import VERSION, Views, draw_views, load_batch
from classifier.model.classifier import Classifier
from classifier.options import AugmentationOptions
from classifier.training.kept_features import KeptFeatures, SharedFeatures
from data.on_device import SHARE, DeviceImages
from data.pool import Pool
from data.store import Dataset, ImageStore
from dermsynth.device import Compute
from dermsynth.seeds import generator
from dermsynth.tensors import free_bytes, to_device

PLAIN = -1  # the view that leaves an image as it is
HELD = 5  # collections of images on an accelerator: a run's own, two pools, two external sets
GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, lie far from one another


@dataclass(frozen=True)
class ImageSet:
    """Images under a name that changes when they change."""

    kind: str  # "real" or "synthetic": gives each its own views
    images: ImageStore | np.ndarray  # uint8 [n, s, s, 3]
    identity: Hashable

    @staticmethod
    def stored(kind: str, source: Dataset | Pool) -> "ImageSet":
        """The images of a dataset or pool: the same ones wherever it lies."""
        images = source.images
        return ImageSet(kind, images, (source.identity.id, images.shape))


@dataclass
class _Store:
    kept: KeptFeatures  # [n, views + 1, height, width, channels], the last view is PLAIN
    trial: int  # the last one that used it


class FeatureCache:
    """Trunk outputs that are kept. Give one to every `train` call of an experiment to share them.

    With a `folder` they lie in files there, which the processes of one machine share; without one
    in memory, that of the accelerator where half of what is free there is enough. Beside them it
    holds the images that are on the accelerator already.
    """

    def __init__(self, gib: float = 4.0, folder: Path | None = None) -> None:
        self.budget = int(gib * 2**30)
        self.folder = folder
        self.trial = 0
        self._stores: dict[Hashable, _Store] = {}
        self._images: dict[tuple[Hashable, tuple[Hashable, ...]], DeviceImages] = {}

    def images(self, sets: Sequence[ImageSet], size: int, device: torch.device) -> DeviceImages:
        """Images at one size, numbered through, on a device: sent there when first asked for.

        The latest HELD stay. What begins with these sets serves as well: their numbers are equal.
        """
        place, identities = (size, device), tuple(images.identity for images in sets)
        for key in self._images:
            if key[0] == place and key[1][: len(sets)] == identities:
                break
        else:
            key, stores = (place, identities), [images.images for images in sets]
            while len(self._images) >= HELD:
                del self._images[next(iter(self._images))]
            self._images[key] = DeviceImages(stores, size, device)
        self._images[key] = self._images.pop(key)  # the latest comes last
        return self._images[key]

    def store(
        self, key: Hashable, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> KeptFeatures | None:
        """Room for features [n, views + 1, height, width, channels], of earlier trials if need be.

        None where it would not fit beside what this trial uses already.
        """
        if key not in self._stores:
            size = math.prod(shape) * dtype.itemsize
            in_use = [store for store in self._stores.values() if store.trial == self.trial]
            if size + sum(store.kept.nbytes for store in in_use) > self.budget:
                return None
            for old in sorted(self._stores, key=lambda name: self._stores[name].trial):
                if size + sum(store.kept.nbytes for store in self._stores.values()) <= self.budget:
                    break
                del self._stores[old]
            self._stores[key] = _Store(self._make(key, shape, dtype, device), self.trial)
        self._stores[key].trial = self.trial
        return self._stores[key].kept

    def _make(
        self, key: Hashable, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> KeptFeatures:
        if self.folder is not None:
            try:
                return SharedFeatures(self.folder, repr(key), shape, dtype)
            except OSError as error:
                gib = math.prod(shape) * dtype.itemsize / 2**30
                print(
                    f"note: {self.folder}: no room for {gib:.1f} GiB of kept features "
                    f"({error.strerror}); this process keeps them for itself, in memory"
                )
        free = free_bytes(device)
        fits = free is not None and math.prod(shape) * dtype.itemsize <= SHARE * free
        return KeptFeatures(shape, dtype, device if fits else torch.device("cpu"))


class Trunk:
    """Features of image sets under one model, from memory where its trunk is pure."""

    def __init__(
        self,
        model: Classifier,
        compute: Compute,
        cache: FeatureCache,
        augmentation: AugmentationOptions,
    ) -> None:
        self.model, self.cache = model, cache
        self.views, self.augment = augmentation.n_views, augmentation.augment
        self.compute, self.device, self.size = compute, compute.device, model.spec.size
        self.batch = model.spec.at_once  # always full, so that no feature depends on neighbours
        self.pure = model.trunk_is_pure
        self._view_table: dict[tuple[str, int, int], Views | None] = {}
        if not self.pure:
            return
        self.dtype = torch.bfloat16 if compute.precision == "bf16" else torch.float32
        self._folded = model.folded()
        self._folded.backbone.net.to(self.dtype)
        drawn = (self.views, self.augment, VERSION)
        self._key = (model.trunk_sha256(), str(self.dtype), *drawn, self.device.type)
        # one image tells the shape; where XLA computes, the batch that it has to compile anyway
        count = self.batch if self.device.type == "xla" else 1
        empty = torch.zeros(count, 3, self.size, self.size, device=self.device)
        channels, *sides = self._forward(empty).shape[1:]
        self._shape = (self.views + 1, *sides, channels)
        self._stores: dict[Hashable, KeptFeatures | None] = {}
        cache.trial += 1

    def keeps(self, images: ImageSet) -> bool:
        """True where features of this set are kept: the trunk is pure and memory allows it."""
        return self._store(images) is not None

    def missing(self, images: ImageSet, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """The (row, view) pairs not computed yet: int64 [m, 2]."""
        store = self._store(images)
        if store is None:
            return np.empty((0, 2), np.int64)
        pairs = np.unique(np.stack([rows, views], 1), axis=0)
        return pairs[store.missing(*pairs.T)]

    def fill(self, images: ImageSet, pairs: np.ndarray) -> Iterator[int]:
        """Compute features of (row, view) pairs; yields, as they come, how many more are there.

        Processes that share them begin at different places, and leave out what others did.
        """
        store = self._store(images)
        assert store is not None
        pairs = np.roll(pairs, -_place(len(pairs)), axis=0)
        while len(pairs):
            part = pairs[: self.batch]
            rows, views = part[self.compute.filled(np.arange(len(part)), self.batch)].T
            features = self._compute(images, rows, views).permute(0, 2, 3, 1)
            store.put(rows, views, features)
            yield len(part)
            rest = pairs[self.batch :]
            pairs = rest[store.missing(*rest.T)]
            if by_others := len(rest) - len(pairs):
                yield by_others

    def features(self, images: ImageSet, rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
        """Trunk outputs, float32 [n, channels, height, width] on the device, channels last.

        `views` int64 [n] are numbers of fixed views, or PLAIN.
        """
        if not self.pure:
            return self.from_pixels(self._pixels(images, rows, views))
        return self.as_features(self.kept(images, rows, views))

    def kept(self, images: ImageSet, rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
        """The same of a pure trunk [n, height, width, channels], in the type and where it is kept;
        of a set that is not kept computed now.
        """
        if not self.keeps(images):
            return self._compute(images, rows, views).permute(0, 2, 3, 1)
        for _ in self.fill(images, self.missing(images, rows, views)):
            pass
        return self._store(images).take(rows, views)  # type: ignore[union-attr]

    def as_features(self, kept: torch.Tensor) -> torch.Tensor:
        """`kept` as `features`."""
        return to_device(kept, self.device).float().permute(0, 3, 1, 2)

    def from_pixels(self, x: torch.Tensor) -> torch.Tensor:
        """The same of images float [n, 3, size, size] in 0..1.

        Where the trunk is not pure, this runs it as it stands, with gradients if they are enabled.
        """
        return self._run(x).float() if self.pure else self.model.trunk(x)

    def _store(self, images: ImageSet) -> KeptFeatures | None:
        if not self.pure:
            return None
        if images.identity not in self._stores:
            key, shape = (self._key, images.identity), (len(images.images), *self._shape)
            self._stores[images.identity] = self.cache.store(key, shape, self.dtype, self.device)
        return self._stores[images.identity]

    def _compute(self, images: ImageSet, rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
        return self._run(self._pixels(images, rows, views))

    def _pixels(self, images: ImageSet, rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
        """Images in their fixed views, float32 [n, 3, size, size] on the device."""
        return load_batch(
            self.stored(images, rows), self.size, self._fixed_views(images, rows, views)
        )

    def stored(self, images: ImageSet, rows: np.ndarray) -> torch.Tensor:
        """Images as they are, uint8 [n, size, size, 3] on the device."""
        return self.cache.images([images], self.size, self.device).take(rows)

    def _fixed_views(self, images: ImageSet, rows: np.ndarray, views: np.ndarray) -> Views | None:
        """One an image; None where all stay as they are. Plain ones come with no others."""
        numbers, inverse = np.unique(views, return_inverse=True)
        if numbers[0] == PLAIN or self.augment == "none":
            return None
        tables = [self._views_of(images, int(view)) for view in numbers]
        order = np.argsort(inverse, kind="stable")
        parts = [table.take(rows[inverse == at]) for at, table in enumerate(tables) if table]
        return Views.joined(parts).take(np.argsort(order))

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._run_batch(part) for part in x.split(self.batch)])

    def _run_batch(self, x: torch.Tensor) -> torch.Tensor:
        count = len(x)
        if count < self.batch:
            x = torch.cat([x, x[:1].expand(self.batch - count, -1, -1, -1)])
        return self._forward(x)[:count]

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self._folded.trunk(x.contiguous(memory_format=torch.channels_last))

    def _views_of(self, images: ImageSet, view: int) -> Views | None:
        key = (images.kind, view, len(images.images))
        if key not in self._view_table:
            rng = generator("view", *key)
            self._view_table[key] = draw_views(rng, len(images.images), self.augment)
        return self._view_table[key]


def _place(count: int) -> int:
    """Where this process begins in work that others do too: 0 to count, no two alike."""
    return int(count * (os.getpid() * GOLDEN % 1))
