"""The images of each step: which ones, in which views, mixed or not, or their kept features."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from classifier.augment import draw_views, load_batch
from classifier.training.mixstyle import Styles, draw_styles
from classifier.training.mixup import mix_batch
from classifier.training.setup import TrainingSetup
from classifier.training.training_set import BENIGN, MALIGNANT, REAL, DataOrder
from classifier.training.trunk_cache import ImageSet, Trunk
from data.on_device import DeviceImages
from dermsynth import interrupts, progress
from dermsynth.device import Compute
from dermsynth.distributed import Processes
from dermsynth.seeds import generator
from dermsynth.tensors import send, to_device


@dataclass(frozen=True)
class Batch:
    """This process's share of a step's images, or of a part of --accumulate, on the device."""

    inputs: torch.Tensor  # float32: pixels [n, 3, size, size] in 0..1, or kept trunk features
    metadata: torch.Tensor | None  # float32 [n, columns]
    targets: torch.Tensor  # float32 [n, outputs]
    share: float  # of the step's images, over all processes
    styles: Styles | None = None  # for --mixstyle


class Batches:
    """The training images, from the first step to the last; any step at any time.

    Of several processes each draws the dice of the whole batch and takes its share of the images,
    so that they are those of one process.
    """

    def __init__(
        self, setup: TrainingSetup, trunk: Trunk, compute: Compute, processes: Processes
    ) -> None:
        self.processes = processes
        options, training, pool = setup.options, setup.training, setup.pool
        self.options, self.training, self.trunk, self.compute = options, training, trunk, compute
        self.seed = options.compute.seed
        balanced = training.labels if options.training_set.sampler == "balanced" else None
        self.order = DataOrder(self.seed, len(training), options.steps.batch, balanced)
        augmentation = options.augmentation
        self.keeps = trunk.pure and augmentation.views > 0 and not augmentation.mixes
        self.real = ImageSet.stored("real", setup.dataset)
        self.pool = ImageSet.stored("synthetic", pool) if pool else None
        benign = setup.benign_pool
        self.benign_pool = ImageSet.stored("synthetic benign", benign) if benign else None
        # Each image starts at its own view and takes the next one each time it comes round.
        rng = generator(self.seed, "views")
        self._first_view = rng.integers(augmentation.n_views, size=len(training))
        # all images of the training set, numbered through from set to set
        sets = [images for images in self._sets if images is not None]
        self._pixels: DeviceImages | None = None
        if not self.keeps:
            self._pixels = trunk.cache.images(sets, options.model.size, compute.device)
        starts = np.cumsum([0, *(len(images.images) if images else 0 for images in self._sets)])
        self._number = training.rows + starts[training.source]
        self._targets = send(setup.target.matrix(training.labels), compute.device)
        self._metadata = setup.numbers(setup.dataset, compute.device)

    def parts(self, step: int) -> Iterator[Batch]:
        """A step's images in the parts of --accumulate."""
        cuts = self._cut(step)
        for number, (positions, rounds) in enumerate(cuts):
            yield self.load((step, number), positions, rounds)
            if self._pixels is not None:
                following = cuts[number + 1 :]
                self._pixels.expect(
                    lambda rest=following: self._number[
                        self._looked_at((rest or self._cut(step + 1))[0][0])
                    ]
                )

    def _cut(self, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions and rounds of a step's parts, over all processes."""
        parts = self.options.steps.accumulate
        positions, rounds = (np.array_split(drawn, parts) for drawn in self.order.positions(step))
        return list(zip(positions, rounds, strict=True))

    def load(self, key: tuple[int, int], positions: np.ndarray, rounds: np.ndarray) -> Batch:
        """One part.

        Parameters
        ----------
        key : the step and the part's number in it: where the dice of views and mixing begin
        positions : int64 [n], of the training set, over all processes
        rounds : int64 [n], how often the training set has been gone through
        """
        mine, device = self.processes.share(len(positions)), self.compute.device
        targets = self._targets[send(self._looked_at(positions), device)]
        if self.keeps:
            inputs = self._kept_features(positions[mine], rounds[mine])
        else:
            inputs = self._fresh_pixels(positions, generator(self.seed, "augment", *key))
            if self.options.augmentation.mixes:
                rng = generator(self.seed, "mix", *key)
                mixed = mix_batch(inputs, targets, rng, self.options.augmentation)
                inputs, targets = (each[mine] for each in mixed)
        metadata = None
        if self._metadata is not None:
            metadata = self._metadata[send(positions[mine], device)]
        styles = None
        if mixstyle := self.options.augmentation.mixstyle:
            rng = generator(self.seed, "mixstyle", *key)
            styles = draw_styles(rng, len(positions), mixstyle, mine, device)
        share = len(positions) / self.options.steps.batch
        return Batch(inputs, metadata, targets, share, styles)

    def _looked_at(self, positions: np.ndarray) -> np.ndarray:
        """Those of a part that this process reads: an image that is mixed may take any partner."""
        if self.options.augmentation.mixes:
            return positions
        return positions[self.processes.share(len(positions))]

    def fill(self, steps: range, stop: interrupts.StopRequest) -> None:
        """Compute the features that these steps need and that nobody has yet."""
        if not self.keeps:
            return
        parts = (part for step in steps for part in self._cut(step))
        drawn = [[drawn[self.processes.share(len(drawn))] for drawn in part] for part in parts]
        positions, rounds = (np.concatenate(column) for column in zip(*drawn, strict=True))
        views = self._fixed_views(positions, rounds)
        for images, chosen in self._by_set(positions):
            if not self.trunk.keeps(images):
                continue
            rows = self.training.rows[positions[chosen]]
            pairs = self.trunk.missing(images, rows, views[chosen])
            with progress.bar(len(pairs), f"trunk, {images.kind}", "img") as bar:
                bar.leave = False
                for count in self.trunk.fill(images, pairs):
                    bar.update(count)
                    if stop.requested:
                        return

    def describe(self) -> str:
        """How often the trunk runs, and why, as a line for the screen."""
        options, every = self.options, "trunk      runs in every step"
        if self.keeps:
            if all(self.trunk.keeps(images) for images in self._sets if images):
                return f"trunk      runs once for each of {self.trunk.views} views an image"
            return f"{every}: --cache-gib {options.compute.cache_gib} is too little"
        if self.trunk.pure:
            mixes = options.augmentation.mixes
            return f"{every}, on {'mixed batches' if mixes else 'fresh views (--views 0)'}"
        why = "nothing is frozen" if options.model.frozen == 0 else "batch norm adapts"
        splits = self.trunk.model.backbone.splits
        return f"{every} ({why if splits else 'a timm model is not split'})"

    def _kept_features(self, positions: np.ndarray, rounds: np.ndarray) -> torch.Tensor:
        """Trunk outputs of training images in their fixed views, in the order of `positions`."""
        views = self._fixed_views(positions, rounds)
        parts, places = [], []
        for images, chosen in self._by_set(positions):
            rows = self.training.rows[positions[chosen]]
            with self.compute.autocast():
                parts.append(self.trunk.kept(images, rows, views[chosen]))
            places.append(chosen)
        if len(parts) > 1 and len({part.device for part in parts}) > 1:
            parts = [to_device(part, self.compute.device) for part in parts]
        kept = torch.cat(parts)
        if len(parts) > 1:
            kept = kept[send(np.argsort(np.concatenate(places)), kept.device)]
        return self.trunk.as_features(kept)

    def _fresh_pixels(self, positions: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Training images in views drawn anew, float32 [n, 3, size, size] in 0..1.

        Of `positions` those that are `_looked_at`.
        """
        assert self._pixels is not None
        places = self._looked_at(np.arange(len(positions)))
        drawn = draw_views(rng, len(positions), self.options.augmentation.augment)
        if drawn is not None and len(places) < len(positions):
            drawn = drawn.take(places)
        pixels = self._pixels.take(self._number[positions[places]])
        return load_batch(pixels, self.options.model.size, drawn)

    def _by_set(self, positions: np.ndarray) -> list[tuple[ImageSet, np.ndarray]]:
        """The image sets of a batch, each with the places in the batch that it fills."""
        source = self.training.source[positions]
        places = [np.flatnonzero(source == number) for number in (REAL, MALIGNANT, BENIGN)]
        sets = zip(self._sets, places, strict=True)
        return [(images, chosen) for images, chosen in sets if images is not None and len(chosen)]

    @property
    def _sets(self) -> tuple[ImageSet | None, ...]:
        """In the order of the numbers of TrainingSet.source."""
        return self.real, self.pool, self.benign_pool

    def _fixed_views(self, positions: np.ndarray, rounds: np.ndarray) -> np.ndarray:
        return (self._first_view[positions] + rounds) % self.trunk.views
