"""The training loop: steps, epochs, checkpoints, the best model."""

import math
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from classifier.augment import draw_views, load_batch
from classifier.model.classifier import Classifier
from classifier.run_folder import prediction_rows
from classifier.targets import UNKNOWN
from classifier.training.ema import Average
from classifier.training.losses import Loss, class_weights
from classifier.training.mixup import mix_batch
from classifier.training.schedule import best_epoch, learning_rate
from classifier.training.setup import Job
from classifier.training.training_set import DataOrder
from classifier.training.trunk_cache import PLAIN, FeatureCache, ImageSet, Trunk
from classifier.tta import probabilities
from data.store import Dataset
from dermsynth import checkpoint, device, interrupts, progress
from dermsynth.errors import UserError
from dermsynth.files import write_json
from dermsynth.seeds import generator, seed_torch
from dermsynth.tracking import Tracker

SMOKE_STEPS = 2


class Loop:
    """The training and its state: what a checkpoint holds."""

    def __init__(
        self, job: Job, model: Classifier, compute: device.Compute, cache: FeatureCache
    ) -> None:
        self.job, self.compute = job, compute
        self.model = model.to(compute.device)
        self.options = options = job.options
        training, pool = job.training, job.pool
        self.per_epoch = math.ceil(training.n_real / options.batch)
        if options.smoke:
            self.per_epoch = min(self.per_epoch, SMOKE_STEPS)
        self.total = options.epochs * self.per_epoch
        balanced = training.labels if options.sampler == "balanced" else None
        self.order = DataOrder(options.seed, len(training), options.batch, balanced)
        trunk_compute = device.resolve(options.device, options.precision, cpu_auto="bf16")
        self.n_views = 1 if options.augment == "none" else max(options.views, 1)
        self.trunk = Trunk(self.model, trunk_compute, cache, self.n_views, options.augment)
        self.mixes = options.cutmix + options.mixup > 0
        self.keeps = self.trunk.pure and options.views > 0 and not self.mixes
        self.real = ImageSet.of("real", job.dataset.path, job.dataset.images)
        self.pool = ImageSet.of("synthetic", pool.path, pool.images) if pool else None
        # Each image starts at its own view and takes the next one each time it comes round.
        rng = generator(options.seed, "views")
        self.first_view = rng.integers(self.n_views, size=len(training))
        self.targets = torch.from_numpy(job.target.matrix(training.labels)).to(compute.device)
        fusion = job.fusion
        numbers = fusion.of(job.dataset, fusion.training) if fusion else None
        self.metadata = None if numbers is None else torch.from_numpy(numbers).to(compute.device)
        self.loss, self.plain_loss = _loss(job), Loss(job.target)
        self.optimizer = self._optimizer()
        self.average = Average(self.model, options.ema) if options.ema else None
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}  # the state of the best model
        self.loss_sum = 0.0  # over the steps of this epoch so far
        self.seconds = 0.0  # before this start

    def run(self, start: int, tracker: Tracker) -> None:
        """Train from step `start` to the end, or until early stopping or Ctrl-C."""
        self._say_how()
        step, self.started = start, time.monotonic()
        bar = progress.bar(self.total * self.options.batch, "training", "img", smoothing=0.05)
        bar.update(step * self.options.batch)
        with interrupts.stop_request() as stop:
            while step < self.total and not self._out_of_patience():
                if step % self.per_epoch == 0:
                    self.loss_sum = 0.0
                if step == start or step % self.per_epoch == 0:
                    self._fill(step, stop)
                if stop.requested:
                    self._save(step)
                    raise KeyboardInterrupt(
                        f"stopped at step {step} of {self.total}; to go on, give the same command "
                        f"with --out {self.job.out} --resume"
                    )
                self.loss_sum += self._step(step)
                step += 1
                bar.update(self.options.batch)
                if step % self.per_epoch == 0:
                    self._end_epoch(step, tracker)
                    bar.set_postfix(epoch=len(self.history), auc=self.history[-1]["val_auc"])
                    self._save(step)
        bar.close()
        self.seconds += time.monotonic() - self.started

    def predictions(self) -> pd.DataFrame:
        """Rows of predictions.parquet: the best model's scores on every part."""
        job = self.job
        self.model.load_state_dict(self.best)
        parts: list[tuple[str, Dataset, np.ndarray]] = [
            ("val", job.dataset, job.dataset.rows("val", job.fold)),
            ("test", job.dataset, job.dataset.rows("test", job.fold)),
        ]
        for name, external in job.externals.items():
            parts.append((f"external/{name}", external, external.labelled()))
        found = []
        for part, dataset, rows in parts:
            scores = self._scores(dataset, rows)
            found.append(prediction_rows(dataset, rows, part, scores, job.target))
        return pd.concat(found, ignore_index=True)

    def restore(self, saved: dict[str, Any]) -> int:
        """Take up a checkpoint; returns the step to go on with."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.history, self.best = saved["history"], saved["best"]
        self.loss_sum, self.seconds = saved["loss_sum"], saved["seconds"]
        if self.average:
            self.average.restore(saved["average"], saved["step"])
        return saved["step"]

    def largest_batch(self) -> int:
        """The largest half, quarter ... of the batch whose step fits into memory; 0: none."""
        size = self.options.batch // self.options.accumulate
        while (size := size // 2) >= 2:
            try:
                self._backward(0, *(each[:size] for each in self.order.positions(0)), 0)
                return size
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            finally:
                self.optimizer.zero_grad(set_to_none=True)
        return 0

    def _scores(self, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
        """Probabilities of the classes, float64 [n, classes], over `--tta` views."""
        options, job = self.options, self.job
        images = ImageSet.of("real", dataset.path, dataset.images)
        if options.tta == 1:
            return job.target.probabilities(self._logits(images, dataset, rows))
        found = [np.empty((0, len(job.target.classes)))]
        for start in range(0, len(rows), job.spec.at_once):
            part = rows[start : start + job.spec.at_once]
            found.append(
                probabilities(
                    *(self.model, job.target, dataset.images[part], self.compute),
                    *(options.tta, options.augment),
                    job.fusion.of(dataset, part) if job.fusion else None,
                )
            )
        return np.concatenate(found)

    @torch.no_grad()
    def _logits(self, images: ImageSet, dataset: Dataset, rows: np.ndarray) -> torch.Tensor:
        """Float32 [len(rows), outputs] on the CPU, for images as they are."""
        self.model.eval()
        job = self.job
        found = [torch.empty(0, job.target.outputs)]
        for start in range(0, len(rows), job.spec.at_once):
            part = rows[start : start + job.spec.at_once]
            metadata = None
            if job.fusion:
                metadata = torch.from_numpy(job.fusion.of(dataset, part)).to(self.compute.device)
            with self.compute.autocast():
                features = self.trunk.features(images, part, np.full(len(part), PLAIN))
                found.append(self.model.tail(features, metadata).float().cpu())
        return torch.cat(found)

    def _step(self, step: int) -> float:
        """One optimizer step; its loss. Raises UserError where that is not finite."""
        options = self.options
        positions, rounds = self.order.positions(step)
        self.model.head_only = step < options.head_epochs * self.per_epoch
        self.model.train()
        seed_torch(options.seed, "step", step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(options, step, self.per_epoch, self.history)
        value = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        parts = np.array_split(np.arange(len(positions)), options.accumulate)
        for number, part in enumerate(parts):
            value += self._backward(step, positions[part], rounds[part], number)
        if not math.isfinite(value):
            self._give_up(step, positions, value)
        if options.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.clip)
        self.optimizer.step()
        if self.average:
            self.average.update()
        self.compute.step()
        return value

    def _backward(self, step: int, positions: np.ndarray, rounds: np.ndarray, number: int) -> float:
        """Gradients of a part of a batch, weighted by its share of it; its share of the loss."""
        targets = self.targets[torch.from_numpy(positions).to(self.targets.device)]
        if self.keeps:
            features = self._kept_features(positions, rounds)
        else:
            x = self._fresh_pixels(positions, generator(self.options.seed, "augment", step, number))
            if self.mixes:
                rng = generator(self.options.seed, "mix", step, number)
                x, targets = mix_batch(x, targets, rng, self.options.cutmix, self.options.mixup)
            with self.compute.autocast():
                features = self.trunk.of_pixels(x)
        metadata = None
        if self.metadata is not None:
            metadata = self.metadata[torch.from_numpy(positions).to(self.metadata.device)]
        with self.compute.autocast():
            logits = self.model.tail(features, metadata).float()
        loss = self.loss(logits, targets) * (len(positions) / self.options.batch)
        loss.backward()
        return loss.item()

    def _kept_features(self, positions: np.ndarray, rounds: np.ndarray) -> torch.Tensor:
        """Trunk outputs of training images in their fixed views, in the order of `positions`."""
        views = self._fixed_views(positions, rounds)
        parts, places = [], []
        for images, chosen in self._by_set(positions):
            rows = self.job.training.rows[positions[chosen]]
            with self.compute.autocast():
                parts.append(self.trunk.features(images, rows, views[chosen]))
            places.append(chosen)
        if len(parts) == 1:
            return parts[0]
        back = torch.from_numpy(np.argsort(np.concatenate(places))).to(self.compute.device)
        return torch.cat(parts)[back].contiguous(memory_format=torch.channels_last)

    def _fresh_pixels(self, positions: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Training images in views drawn anew, float32 [n, 3, size, size] in 0..1."""
        size = self.options.size
        drawn = draw_views(rng, len(positions), self.options.augment)
        x = torch.empty(len(positions), 3, size, size).to(memory_format=torch.channels_last)
        for images, chosen in self._by_set(positions):
            rows = self.job.training.rows[positions[chosen]]
            views = drawn.take(chosen) if drawn else None
            x[chosen] = load_batch(images.images[rows], size, views)
        return x.to(self.compute.device)

    def _by_set(self, positions: np.ndarray) -> list[tuple[ImageSet, np.ndarray]]:
        """The image sets of a batch, each with the places in the batch that it fills."""
        synthetic = self.job.training.synthetic[positions]
        sets = [(self.real, np.flatnonzero(~synthetic)), (self.pool, np.flatnonzero(synthetic))]
        return [(images, chosen) for images, chosen in sets if images is not None and len(chosen)]

    def _fixed_views(self, positions: np.ndarray, rounds: np.ndarray) -> np.ndarray:
        return (self.first_view[positions] + rounds) % self.n_views

    def _fill(self, step: int, stop: interrupts.StopRequest) -> None:
        """Compute the features that the rest of this epoch needs and that nobody has yet."""
        if not self.keeps:
            return
        last = step - step % self.per_epoch + self.per_epoch
        drawn = [self.order.positions(number) for number in range(step, last)]
        positions, rounds = (np.concatenate(each) for each in zip(*drawn, strict=True))
        views = self._fixed_views(positions, rounds)
        for images, chosen in self._by_set(positions):
            if not self.trunk.keeps(images):
                continue
            rows = self.job.training.rows[positions[chosen]]
            pairs = self.trunk.missing(images, rows, views[chosen])
            with progress.bar(len(pairs), f"trunk, {images.kind}", "img") as bar:
                bar.leave = False
                for count in self.trunk.fill(images, pairs):
                    bar.update(count)
                    if stop.requested:
                        return

    def _end_epoch(self, step: int, tracker: Tracker) -> None:
        """Validate, log, and keep the model if it is the best so far."""
        lr = learning_rate(self.options, step - 1, self.per_epoch, self.history)
        if self.average:
            with self.average.applied():
                self._validate()
        else:
            self._validate()
        row = {name: value for name, value in self.history[-1].items() if value is not None}
        tracker.log(step, **row, lr=lr)

    def _validate(self) -> None:
        job = self.job
        rows = job.dataset.rows("val", job.fold)
        logits = self._logits(self.real, job.dataset, rows)
        if not torch.isfinite(logits).all():
            raise UserError(
                f"the model's scores are not finite after epoch {len(self.history) + 1}; lower "
                f"--lr ({self.options.lr}). {job.out}/checkpoint keeps the epoch before"
            )
        labels = job.target.labels(job.dataset.table.iloc[rows])
        found = job.target.probabilities(logits)
        known = labels != UNKNOWN
        matrix = torch.from_numpy(job.target.matrix(labels[known]))
        row = {
            "epoch": len(self.history) + 1,
            "train_loss": self.loss_sum / self.per_epoch,
            "val_loss": self.plain_loss(logits[known], matrix).item(),
            "val_auc": _auc(job.dataset.targets(rows), job.target.scores(found)),
        }
        if job.target.name == "diagnosis":
            guessed = found[known].argmax(1)
            row["val_balanced_accuracy"] = float(balanced_accuracy_score(labels[known], guessed))
        self.history.append(row)
        if best_epoch(self.history, self.options.monitor) == row["epoch"]:
            state = self.model.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in state.items()}

    def _out_of_patience(self) -> bool:
        options = self.options
        waited = len(self.history) - best_epoch(self.history, options.monitor, options.min_delta)
        return 0 < options.patience <= waited

    def _give_up(self, step: int, positions: np.ndarray, value: float) -> None:
        """Write down which images gave a loss that is not finite."""
        training, path = self.job.training, self.job.out / "bad_batch.json"
        rows, synthetic = training.rows[positions], training.synthetic[positions]
        ids = self.job.dataset.table["image_id"].to_numpy()
        images = {"real": ids[rows[~synthetic]].tolist(), "synthetic": rows[synthetic].tolist()}
        write_json(path, {"step": step + 1, "loss": str(value), "images": images})
        raise UserError(
            f"the loss became {value} at step {step + 1} of {self.total}; lower --lr "
            f"({self.options.lr}) or set --clip 1. The batch's images are in {path}; "
            f"{self.job.out}/checkpoint keeps the state after epoch {len(self.history)}"
        )

    def _save(self, step: int) -> None:
        state = {
            "step": step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
            "average": self.average.state if self.average else {},
            "loss_sum": self.loss_sum,
            "seconds": self.seconds + time.monotonic() - self.started,
        }
        checkpoint.save(self.job.out / "checkpoint", state)

    def _optimizer(self) -> torch.optim.AdamW:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        fused = self.compute.device.type in ("cpu", "cuda")
        return torch.optim.AdamW(
            groups, lr=self.options.lr, weight_decay=self.options.weight_decay, fused=fused
        )

    def _say_how(self) -> None:
        options, every = self.options, "trunk      runs in every step"
        if self.keeps:
            if all(self.trunk.keeps(each) for each in (self.real, self.pool) if each):
                print(f"trunk      runs once for each of {self.n_views} views an image")
            else:
                print(f"{every}: --cache-gib {options.cache_gib} is too little")
        elif self.trunk.pure:
            print(f"{every}, on {'mixed batches' if self.mixes else 'fresh views (--views 0)'}")
        else:
            why = "nothing is frozen" if options.frozen == 0 else "batch norm adapts"
            why = why if self.model.backbone.splits else "a timm model is not split"
            print(f"{every} ({why})")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the device's, or the machine's, memory is too small."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _auc(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """None, never 0 or 0.5, where one class leaves it undefined."""
    return float(roc_auc_score(targets, scores)) if len(np.unique(targets)) == 2 else None


def _loss(job: Job) -> Loss:
    options = job.options
    balanced = options.class_weights == "balanced"
    weights = class_weights(job.training.labels, job.target, balanced, options.positive_weight)
    return Loss(
        job.target,
        options.loss,
        options.gamma,
        options.alpha,
        options.label_smoothing,
        weights,
        options.miss_cost,
    )
