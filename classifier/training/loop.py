"""The training loop: one iteration, epochs around it, checkpoints, the best model."""

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classifier.model.classifier import Classifier
from classifier.model.shared_norm import share_statistics
from classifier.run_folder import CHECKPOINT
from classifier.training.batches import Batch, Batches
from classifier.training.ema import WeightAverage
from classifier.training.losses import Loss, class_weights
from classifier.training.mixstyle import Styles, mix_styles
from classifier.training.schedule import Plateau, best_epoch, learning_rate
from classifier.training.scoring import Scorer, Seen
from classifier.training.setup import TrainingSetup
from classifier.training.trunk_cache import FeatureCache, Trunk
from dermsynth import checkpoint, device, interrupts, progress
from dermsynth.cuda_graph import Graphed
from dermsynth.distributed import Processes
from dermsynth.errors import OtherProcessError, UserError
from dermsynth.files import write_json
from dermsynth.optimizers import AdamW, adam_options, load_optimizer, rate_of, set_rate, settle
from dermsynth.seeds import seed_torch
from dermsynth.tracking import Tracker

SMOKE_STEPS = 2
READ_STEPS = 10  # after which their losses are read: to read one waits for the device


class Loop:
    """The training and its state: what a checkpoint holds.

    Of several processes each computes its share of a batch; rank 0 decides, writes and prints.
    """

    def __init__(
        self,
        setup: TrainingSetup,
        model: Classifier,
        compute: device.Compute,
        cache: FeatureCache,
        folder: Path,
        processes: Processes | None = None,
    ) -> None:
        """`folder` is where the run is written until it is finished."""
        self.setup, self.compute, self.folder = setup, compute, folder
        self.processes = processes or Processes()
        self.model = model.to(compute.device)
        if self.processes.count > 1:
            share_statistics(self.model, self.processes)
        self.options = options = setup.options
        steps, place = options.steps, options.compute
        self.per_epoch = math.ceil(setup.training.epoch / steps.batch)
        if options.run.smoke:
            self.per_epoch = min(self.per_epoch, SMOKE_STEPS)
        self.total = steps.epochs * self.per_epoch
        trunk_compute = device.resolve(place.device, place.precision, cpu_auto="bf16")
        self.trunk = Trunk(self.model, trunk_compute, cache, options.augmentation)
        self.batches = Batches(setup, self.trunk, compute, self.processes)
        self.scorer = Scorer(setup, self.trunk, compute, self.processes)
        weights = class_weights(setup.training.labels, setup.target, options.objective)
        self.loss = Loss(setup.target, options.objective, weights)
        self.optimizer = self._optimizer()
        self._graph = Graphed(self._learn, "classifier", record=self.processes.count == 1)
        self.plateau = Plateau(steps, options.choice)
        self.average = WeightAverage(self.model, options.choice.ema)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}  # the state of the best model
        self.loss_sum = 0.0  # over the steps of this epoch whose losses were read
        self.unread: dict[int, torch.Tensor] = {}  # losses of the steps after them, on the device
        # in these steps, of this process's images: logits beside targets [n, 2 outputs]
        self.said: list[torch.Tensor] = []
        self.seconds = 0.0  # before this start
        self._settle()

    def step(self, step: int) -> None:
        """One iteration. Never waits for the device; its loss is read by `_read_losses`."""
        steps, device = self.options.steps, self.compute.device
        self.model.head_only = step < steps.head_epochs * self.per_epoch
        self.model.train()
        own = [self.processes.rank] if self.processes.count > 1 else []
        seed_torch(self.options.compute.seed, "step", step, *own)  # dropout, drop connect
        rate = learning_rate(steps, step, self.per_epoch, self.plateau.rate)
        set_rate(self.optimizer, rate, device)
        weight = self.average.next_weight(device)
        if steps.accumulate == 1:
            (batch,) = self.batches.parts(step)
            styles = batch.styles or (None, None)
            inputs = (batch.inputs, batch.metadata, batch.targets, *styles, weight)
            loss, said = self._graph(self.model.head_only, *inputs)
        else:
            loss, said = self._descend(self.batches.parts(step), weight)
        self.unread[step] = loss
        self.said.append(said)
        self.compute.step()

    def _learn(
        self,
        _: bool,
        inputs: torch.Tensor,
        metadata: torch.Tensor | None,
        targets: torch.Tensor,
        partner: torch.Tensor | None,
        own: torch.Tensor | None,
        weight: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A step on a batch in one part, as a function of tensors; as of `_descend`."""
        styles = None if partner is None or own is None else Styles(partner, own)
        return self._descend([Batch(inputs, metadata, targets, 1.0, styles)], weight)

    def _descend(
        self, parts: Iterable[Batch], weight: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the parts of a batch, and a step by them; the loss, and what was `said`.

        `weight`: of the new weights in their average.
        """
        self.optimizer.zero_grad(set_to_none=True)
        losses, said = [], []
        for batch in parts:
            logits = self.forward(batch)
            loss = self.loss(logits, batch.targets) * batch.share
            loss.backward()
            losses.append(loss.detach())
            said.append(torch.cat([logits.detach(), batch.targets], 1))
        self.processes.mean_gradients(self.model.parameters())  # shares are of one size
        if self.options.steps.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.steps.clip)
        self.optimizer.step()
        self.average.update(weight)
        return torch.stack(losses).sum(), torch.cat(said)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits float32 [n, outputs]; what the trunk gives of an image may be kept already."""
        with self.compute.autocast():
            kept = self.batches.keeps
            features = batch.inputs if kept else self.trunk.from_pixels(batch.inputs)
            if batch.styles is not None:
                features = mix_styles(features, batch.styles, self.processes)
            return self.model.tail(features, batch.metadata).float()

    def run(self, start: int, tracker: Tracker | None) -> None:
        """Train from step `start` to the end, or until early stopping or Ctrl-C.

        `tracker` is rank 0's.
        """
        self._check_same(start)
        print(self.batches.describe())
        self.started, images = time.monotonic(), self.options.steps.batch
        # an epoch's validation is part of the work, or the time left would be too short
        validated = len(self.setup.dataset.rows("val", self.setup.fold))
        work = self.total * images + self.options.steps.epochs * validated
        bar = progress.bar(work, "training", "img", smoothing=0.05)
        bar.update(start * images + start // self.per_epoch * validated)
        with interrupts.stop_request() as stop:
            stop.message = self._way_on()  # where the last step ends before the signal is seen
            for epoch in range(start // self.per_epoch, self.options.steps.epochs):
                if self.processes.rank0_decides(self._out_of_patience()):
                    break
                first, end = epoch * self.per_epoch, (epoch + 1) * self.per_epoch
                if start <= first:
                    self.loss_sum, self.unread, self.said = 0.0, {}, []
                self.batches.fill(range(max(start, first), end), stop)
                for step in range(max(start, first), end):
                    if self.processes.rank0_decides(stop.requested):
                        self._stop(step)
                    self.step(step)
                    if len(self.unread) == READ_STEPS:
                        self._read_losses()
                        bar.set_postfix_str(self._so_far(epoch, step - first + 1), refresh=False)
                    bar.update(images)
                self._end_epoch(end, tracker, bar.update)
                self._save(end)
        bar.close()
        self.seconds += time.monotonic() - self.started

    def restore(self, saved: dict[str, Any]) -> int:
        """Take up a checkpoint; returns the step to go on with."""
        self.model.load_state_dict(saved["model"])
        load_optimizer(self.optimizer, saved["optimizer"])
        self.average.restore(saved["average"], saved["step"])
        self.history, self.best = saved["history"], saved["best"]
        self.loss_sum, self.seconds = saved["loss_sum"], saved["seconds"]
        if self.processes.is_rank0:  # of the images of all
            self.said = [saved["said"].to(self.compute.device)]
        for epoch in self.history:
            self.plateau.update(epoch)
        self._settle()
        return saved["step"]

    def _read_losses(self) -> None:
        """Add the losses of the last steps up. Raises UserError where one is not finite."""
        if not self.unread:
            return
        losses = torch.stack(list(self.unread.values()))
        self.processes.mean_([losses])
        for step, value in zip(self.unread, losses.tolist(), strict=True):
            if not math.isfinite(value):
                self._give_up(step, value)
            self.loss_sum += value
        self.unread = {}

    def largest_batch(self) -> int:
        """The largest half, quarter ... of the batch whose step fits into memory; 0: none."""
        size = self.options.steps.batch // self.options.steps.accumulate
        positions, rounds = self.batches.order.positions(0)
        while (size := size // 2) >= 2:
            try:
                batch = self.batches.load((0, 0), positions[:size], rounds[:size])
                self.loss(self.forward(batch), batch.targets).backward()
                return size
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            finally:
                self.optimizer.zero_grad(set_to_none=True)
        return 0

    def _so_far(self, epoch: int, steps: int) -> str:
        """The mean loss of an epoch's first steps, and the last validation's AUC, for the bar."""
        auc = self.history[-1]["val_auc"] if self.history else None
        told = "" if auc is None else f", AUC {auc:.3f}"
        return f"epoch {epoch + 1}, loss {self.loss_sum / steps:.3f}{told}"

    def _end_epoch(self, step: int, tracker: Tracker | None, seen: Seen) -> None:
        """Validate, log, and keep the model if it is the best so far."""
        self._read_losses()
        epoch = {"epoch": len(self.history) + 1, "train_loss": self.loss_sum / self.per_epoch}
        epoch |= self.scorer.training_figures(*self._said().chunk(2, 1))
        with self.average.applied():
            # of rank 0, as another machine may differ in the last bit
            figures = self.processes.rank0_gives(self.scorer.validate(seen))
            if figures is None:
                self._leave_it_to_rank0()
                raise UserError(
                    f"the model's scores are not finite after epoch {epoch['epoch']}; lower "
                    f"--lr ({self.options.steps.lr}). {self.folder}/checkpoint keeps the epoch "
                    "before"
                )
            self.history.append(epoch | figures)
            if best_epoch(self.history, self.options.choice.monitor) == epoch["epoch"]:
                state = self.model.state_dict()
                self.best = {name: value.detach().cpu().clone() for name, value in state.items()}
        self.plateau.update(self.history[-1])
        row = {name: value for name, value in self.history[-1].items() if value is not None}
        if tracker is not None:
            tracker.log(step, **row, lr=rate_of(self.optimizer))

    def _said(self) -> torch.Tensor:
        """What the model said in this epoch in all processes, float32 [n, 2 outputs] on the CPU."""
        outputs = self.setup.target.outputs
        mine = torch.cat(self.said).cpu() if self.said else torch.empty(0, 2 * outputs)
        return torch.from_numpy(np.concatenate(self.processes.gather(mine.numpy())))

    def _out_of_patience(self) -> bool:
        choice = self.options.choice
        waited = len(self.history) - best_epoch(self.history, choice.monitor, choice.min_delta)
        return 0 < choice.patience <= waited

    def _stop(self, step: int) -> None:
        self._read_losses()
        self._save(step)
        raise KeyboardInterrupt(f"stopped at step {step} of {self.total}; {self._way_on()}")

    def _way_on(self) -> str:
        return f"to go on, give the same command with --out {self.setup.out} --resume"

    def _give_up(self, step: int, value: float) -> None:
        """Write down which images gave a loss that is not finite."""
        self._leave_it_to_rank0()
        training, path = self.setup.training, self.folder / "bad_batch.json"
        positions, _ = self.batches.order.positions(step)
        rows, synthetic = training.rows[positions], training.synthetic[positions]
        ids = self.setup.dataset.table["image_id"].to_numpy()
        images = {"real": ids[rows[~synthetic]].tolist(), "synthetic": rows[synthetic].tolist()}
        write_json(path, {"step": step + 1, "loss": str(value), "images": images})
        raise UserError(
            f"the loss became {value} at step {step + 1} of {self.total}; lower --lr "
            f"({self.options.steps.lr}) or set --clip 1. The batch's images are in {path}; "
            f"{self.folder}/checkpoint keeps the state after epoch {len(self.history)}"
        )

    def _leave_it_to_rank0(self) -> None:
        """Where all processes know what is wrong, one says it."""
        if not self.processes.is_rank0:
            raise OtherProcessError

    def _check_same(self, step: int) -> None:
        """Raise UserError where the processes begin from different states."""
        if self.processes.count == 1:
            return
        began = self.processes.gather((step, self.model.weights_sha256()))
        if len(set(began)) > 1:
            self._leave_it_to_rank0()
            raise UserError(
                f"--out {self.setup.out}: the processes do not begin with the same weights at the "
                "same step; every machine must see the same folders and files"
            )

    def _save(self, step: int) -> None:
        said = self._said()
        if not self.processes.is_rank0:
            return
        state = {
            "step": step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
            "average": self.average.state,
            "loss_sum": self.loss_sum,
            "said": said,
            "seconds": self.seconds + time.monotonic() - self.started,
        }
        checkpoint.save(self.folder / CHECKPOINT, state)

    def _settle(self) -> None:
        """Before a first step, new or resumed."""
        device = self.compute.device
        set_rate(self.optimizer, self.options.steps.lr, device)
        settle(device, [self.optimizer], [self.model], self.average.state.values())
        self.compute.step()

    def _optimizer(self) -> AdamW:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        steps, options = self.options.steps, adam_options(self.compute.device, fused=True)
        return AdamW(groups, lr=steps.lr, weight_decay=steps.weight_decay, **options)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the device's, or the machine's, memory is too small."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
