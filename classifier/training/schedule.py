"""Learning rates, and which epoch is the best so far."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from classifier.options import ChoiceOptions, Monitor, StepOptions

KEYS = {"auc": "val_auc", "loss": "val_loss", "balanced-accuracy": "val_balanced_accuracy"}
POINTS = 20  # of an epoch, of the drawn learning rate
History = Sequence[dict[str, Any]]  # a dict an epoch, with the keys of KEYS


def learning_rate(options: StepOptions, step: int, per_epoch: int, top: float) -> float:
    """The rate at a step, counted from 0, of `per_epoch` an epoch; all schedules rise to `top`.

    - one-cycle: cosine from top/25 up in 25% of the steps, then down to 0 (Smith 2018).
    - constant, plateau, cosine (to 0, Loshchilov & Hutter 2017): after a linear warm-up. `top` is
      `options.lr`, and with a plateau the rate of `Plateau` at this step.
    - exponential: a rise by epochs from `lr_start`, `hold` epochs at the top, then times `decay`
      an epoch, towards `lr_min`.
    In the first `head_epochs`, where the head alone trains, it is `head_lr`.
    """
    if step < options.head_epochs * per_epoch:
        return options.head_lr
    step -= options.head_epochs * per_epoch
    epochs = options.epochs - options.head_epochs
    if options.schedule == "exponential":
        return _exponential(options, step // per_epoch, top)
    done = step / max(1, epochs * per_epoch - 1)
    if options.schedule == "one-cycle":
        if done < 0.25:
            return top * (0.04 + 0.96 * (1 - math.cos(math.pi * done / 0.25)) / 2)
        return top * (1 + math.cos(math.pi * (done - 0.25) / 0.75)) / 2
    warm_up = options.warm_up * per_epoch
    if step < warm_up:
        return options.lr * min(1.0, (step + 1) / warm_up)
    if options.schedule == "cosine":
        done = (step - warm_up) / max(1, epochs * per_epoch - 1 - warm_up)
        return top * (1 + math.cos(math.pi * done)) / 2
    return top


class Plateau:
    """The rate after warm-up: with `--schedule plateau` lowered where nothing improves, else lr.

    It falls to `factor` of itself after `plateau_patience` epochs without a better `monitor`.
    """

    def __init__(self, options: StepOptions, choice: ChoiceOptions) -> None:
        self.options, self.key = options, KEYS[choice.monitor]
        self._optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], options.lr)
        self._scheduler = ReduceLROnPlateau(
            self._optimizer,
            "min" if choice.monitor == "loss" else "max",
            options.factor,
            options.plateau_patience,
            threshold=choice.min_delta,
            threshold_mode="abs",
        )

    @property
    def rate(self) -> float:
        """As it is now."""
        return self._optimizer.param_groups[0]["lr"]

    def update(self, epoch: dict[str, Any]) -> None:
        """After an epoch's validation; those in which the head alone trains do not count."""
        if self.options.schedule == "plateau" and epoch["epoch"] > self.options.head_epochs:
            self._scheduler.step(epoch[self.key])


def rates(
    options: StepOptions, choice: ChoiceOptions, history: History, per_epoch: int
) -> tuple[list[float], list[float]]:
    """The learning rate as it was: at most POINTS an epoch, their places in epochs, and the rates.

    `history`: the epochs that were trained, of `per_epoch` steps each.
    """
    plateau, places, values = Plateau(options, choice), [], []
    for epoch, row in enumerate(history):
        first = epoch * per_epoch
        for step in range(first, first + per_epoch, max(1, per_epoch // POINTS)):
            places.append(step / per_epoch)
            values.append(learning_rate(options, step, per_epoch, plateau.rate))
        plateau.update(row)
    return places, values


def best_epoch(history: History, monitor: Monitor, min_delta: float = 0.0) -> int:
    """Number, from 1, of the epoch that is better than all before it by more than `min_delta`.

    0 without history. Early stopping counts from it; with `min_delta` 0 it is the best epoch, the
    earliest at a tie.
    """
    best, number = -math.inf, 0
    for row in history:
        value = row[KEYS[monitor]] * (-1 if monitor == "loss" else 1)
        if value > best + (min_delta if number else 0):
            best, number = value, row["epoch"]
    return number


def _exponential(options: StepOptions, epoch: int, top: float) -> float:
    if epoch < options.warm_up:
        return options.lr_start + (top - options.lr_start) * epoch / options.warm_up
    later = max(0.0, epoch - options.warm_up - options.hold)
    return options.lr_min + (top - options.lr_min) * options.decay**later
