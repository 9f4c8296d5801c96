"""Fine-tune an EfficientNet on real and synthetic lesions, and test it on real ones.

Writes config.yaml, metrics.jsonl, metrics.json, predictions.parquet, model.safetensors and plots
to the run's folder. The checkpoint with the best validation AUC is the one that is tested, once.
"""

import math
import shutil
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from classifier.augment import draw_views
from classifier.backbones import Classifier
from classifier.features import PLAIN, FeatureCache, ImageSet, Trunk
from classifier.job import Job, TrainOptions, build_model, resolve
from classifier.metrics import Metrics
from classifier.mix import DataOrder
from classifier.outputs import (
    METRICS,
    describe,
    metrics_table,
    options_dict,
    prediction_rows,
    write_outputs,
)
from classifier.weights import file_sha256
from data.store import Dataset
from runtime import checkpoint, cli, device, interrupts, progress, runs
from runtime.errors import UserError
from runtime.files import read_json
from runtime.seeds import generator, seed_torch
from runtime.tracking import Tracker

EVAL_BATCH = 256


def train(options: TrainOptions, cache: FeatureCache | None = None) -> dict[str, Metrics]:
    """Train, test, write the run's folder; returns what metrics.json holds.

    `cache` shares trunk features between the runs of one process. Raises UserError for bad input
    and KeyboardInterrupt, after a checkpoint, where the user stopped it.
    """
    if options.resume and options.out and (options.out / METRICS).exists():
        print(f"{options.out} is finished already")
        return read_json(options.out / METRICS)
    compute = device.resolve(options.device, options.precision)
    job = resolve(options)
    model, words = build_model(job.options)
    saved = checkpoint.load(job.out / "checkpoint") if options.resume else None
    runs.open_run(
        job.out, job.options, options.resume, options.overwrite, ("tracking", "cache_gib")
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(describe(job))
    print(f"model      {options.backbone}, {words}; {trained / 1e6:.2f} M parameters train")
    print(f"computes   {compute}; writes {job.out}")
    loop = _Loop(job, model, compute, cache or FeatureCache(options.cache_gib))
    step = loop.restore(saved) if saved else 0
    group = f"{job.dataset.path.name}-{options.backbone}"
    with Tracker(
        job.out, options.tracking, options_dict(job), group, resume_step=step if saved else None
    ) as tracker:
        loop.run(step, tracker)
        metrics = loop.finish()
        found = {
            f"{part}/{key}": value for part, of in metrics.items() for key, value in of.items()
        }
        tracker.log(loop.total, **{key: value for key, value in found.items() if value is not None})
        for name in ("curves", "roc", "pr"):
            tracker.image(loop.total, name, job.out / "plots" / f"{name}.png")
    runs.finish_run(job.out)
    shutil.rmtree(job.out / "checkpoint")  # three times the model, and of no more use
    print(metrics_table(metrics, job))
    return metrics


def learning_rate(options: TrainOptions, step: int, per_epoch: int) -> float:
    """One-cycle: cosine from lr/25 up to lr in 25% of the steps, then down to 0 (Smith 2018).

    Warm-up: linear over the first epoch, then constant.
    """
    if options.schedule == "warm-up":
        return options.lr * min(1.0, (step + 1) / per_epoch)
    done = step / max(1, options.epochs * per_epoch - 1)
    if done < 0.25:
        return options.lr * (0.04 + 0.96 * (1 - math.cos(math.pi * done / 0.25)) / 2)
    return options.lr * (1 + math.cos(math.pi * (done - 0.25) / 0.75)) / 2


class _Loop:
    """The training loop and its state: what a checkpoint holds."""

    def __init__(
        self, job: Job, model: Classifier, compute: device.Compute, cache: FeatureCache
    ) -> None:
        self.job, self.compute = job, compute
        self.model = model.to(compute.device)
        self.options = options = job.options
        self.per_epoch = math.ceil(job.training.n_real / options.batch)
        self.total = options.epochs * self.per_epoch
        self.order = DataOrder(options.seed, len(job.training), options.batch)
        trunk_compute = device.resolve(options.device, options.precision, cpu_auto="bf16")
        self.trunk = Trunk(self.model, trunk_compute, cache, options.views)
        self.real = ImageSet.of("real", job.dataset.path, job.dataset.images)
        pool = job.pool
        self.pool = ImageSet.of("synthetic", pool.path, pool.images) if pool else None
        # Each image starts at its own view and takes the next one each time it comes round.
        n_views = max(options.views, 1)
        self.first_view = generator(options.seed, "views").integers(n_views, size=len(job.training))
        self.optimizer = self._optimizer()
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"epoch": 0, "auc": -1.0, "model": {}}
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

    def finish(self) -> dict[str, Metrics]:
        """Test the best checkpoint on every part and write the outputs."""
        job, fold = self.job, self.options.fold
        self.model.net.load_state_dict(self.best["model"])
        parts: list[tuple[str, Dataset, np.ndarray]] = [
            ("val", job.dataset, job.dataset.rows("val", fold)),
            ("test", job.dataset, job.dataset.rows("test", fold)),
        ]
        for name, external in job.externals.items():
            parts.append((f"external/{name}", external, external.labelled()))
        rows = []
        for part, dataset, numbers in parts:
            images = ImageSet.of("real", dataset.path, dataset.images)
            scores = torch.sigmoid(self.logits(images, numbers).double()).numpy()
            rows.append(prediction_rows(dataset, numbers, part, scores))
        facts = {
            "best_epoch": self.best["epoch"],
            "epochs": len(self.history),
            "steps": len(self.history) * self.per_epoch,
            "training_seconds": round(self.seconds, 1),
            "weights_sha256": file_sha256(self.options.weights, self.options.backbone),
            "computed_on": str(self.compute),
        }
        predictions = pd.concat(rows, ignore_index=True)
        return write_outputs(job, predictions, self.best["model"], self.history, facts)

    @torch.no_grad()
    def logits(self, images: ImageSet, rows: np.ndarray) -> torch.Tensor:
        """Float32 [len(rows)] on the CPU, for images as they are."""
        self.model.eval()
        found = [torch.empty(0)]
        for start in range(0, len(rows), EVAL_BATCH):
            part = rows[start : start + EVAL_BATCH]
            with self.compute.autocast():
                features = self.trunk.features(images, part, np.full(len(part), PLAIN))
                found.append(self.model.tail(features).float().cpu())
        return torch.cat(found)

    def restore(self, saved: dict[str, Any]) -> int:
        """Take up a checkpoint; returns the step to go on with."""
        self.model.net.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.history, self.best = saved["history"], saved["best"]
        self.loss_sum, self.seconds = saved["loss_sum"], saved["seconds"]
        return saved["step"]

    def _step(self, step: int) -> float:
        """One optimizer step; its loss. Raises UserError where that is not finite."""
        positions, rounds = self.order.positions(step)
        self.model.train()
        seed_torch(self.options.seed, "step", step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.options, step, self.per_epoch)
        features = self._features(step, positions, rounds)
        targets = torch.from_numpy(self.job.training.targets[positions]).to(self.compute.device)
        with self.compute.autocast():
            logits = self.model.tail(features).float()
        loss = binary_cross_entropy_with_logits(logits, targets)
        if not math.isfinite(value := loss.item()):
            raise UserError(
                f"the loss became {value} at step {step + 1} of {self.total}; lower --lr "
                f"({self.options.lr}). {self.job.out}/checkpoint keeps the state after epoch "
                f"{len(self.history)}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.compute.step()
        return value

    def _features(self, step: int, positions: np.ndarray, rounds: np.ndarray) -> torch.Tensor:
        """Trunk outputs of a training batch, in the batch's order."""
        training, fixed = self.job.training, self._fixed_views(positions, rounds)
        drawn = None
        if fixed is None:
            drawn = draw_views(generator(self.options.seed, "augment", step), len(positions))
        parts, places = [], []
        for images, chosen in self._by_set(positions):
            views = fixed[chosen] if drawn is None else drawn.take(chosen)
            rows = training.rows[positions[chosen]]
            with self.compute.autocast():
                parts.append(self.trunk.features(images, rows, views))
            places.append(chosen)
        if len(parts) == 1:
            return parts[0]
        back = torch.from_numpy(np.argsort(np.concatenate(places))).to(self.compute.device)
        return torch.cat(parts)[back].contiguous(memory_format=torch.channels_last)

    def _by_set(self, positions: np.ndarray) -> list[tuple[ImageSet, np.ndarray]]:
        """The image sets of a batch, each with the places in the batch that it fills."""
        synthetic = self.job.training.synthetic[positions]
        sets = [(self.real, np.flatnonzero(~synthetic)), (self.pool, np.flatnonzero(synthetic))]
        return [(images, chosen) for images, chosen in sets if images is not None and len(chosen)]

    def _fixed_views(self, positions: np.ndarray, rounds: np.ndarray) -> np.ndarray | None:
        if not self.trunk.pure or self.options.views == 0:
            return None
        return (self.first_view[positions] + rounds) % self.options.views

    def _fill(self, step: int, stop: interrupts.StopRequest) -> None:
        """Compute the features that the rest of this epoch needs and that nobody has yet."""
        last = step - step % self.per_epoch + self.per_epoch
        drawn = [self.order.positions(number) for number in range(step, last)]
        positions, rounds = (np.concatenate(each) for each in zip(*drawn, strict=True))
        views = self._fixed_views(positions, rounds)
        if views is None:
            return
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
        rows = self.job.dataset.rows("val", self.options.fold)
        targets = self.job.dataset.targets(rows)
        logits = self.logits(self.real, rows)
        if not torch.isfinite(logits).all():
            raise UserError(
                f"the model's scores are not finite after epoch {len(self.history) + 1}; lower "
                f"--lr ({self.options.lr}). {self.job.out}/checkpoint keeps the epoch before"
            )
        target = torch.from_numpy(targets.astype(np.float32))
        row = {
            "epoch": len(self.history) + 1,
            "train_loss": self.loss_sum / self.per_epoch,
            "val_loss": binary_cross_entropy_with_logits(logits, target).item(),
            "val_auc": float(roc_auc_score(targets, logits.numpy())),
        }
        self.history.append(row)
        tracker.log(step, **row, lr=learning_rate(self.options, step - 1, self.per_epoch))
        if row["val_auc"] > self.best["auc"]:
            state = {k: v.detach().cpu().clone() for k, v in self.model.net.state_dict().items()}
            self.best = {"epoch": row["epoch"], "auc": row["val_auc"], "model": state}

    def _out_of_patience(self) -> bool:
        waited = len(self.history) - self.best["epoch"]
        return 0 < self.options.patience <= waited

    def _save(self, step: int) -> None:
        state = {
            "step": step,
            "model": self.model.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
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
        if not self.trunk.pure:
            why = "nothing is frozen" if self.options.frozen == 0 else "batch norm adapts"
            print(f"trunk      runs in every step ({why})")
        elif self.options.views == 0:
            print("trunk      runs in every step, on fresh augmentation (--views 0)")
        elif all(self.trunk.keeps(each) for each in (self.real, self.pool) if each):
            print(f"trunk      runs once for each of {self.options.views} views an image")
        else:
            print(
                f"trunk      runs in every step: --cache-gib {self.options.cache_gib} is too little"
            )


if __name__ == "__main__":
    cli.run(TrainOptions, train, "classifier.train", __doc__)
