"""Learning rates and early stopping, as functions of what has been: nothing to save or restore."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from classifier.options import Monitor, TrainOptions

KEYS = {"auc": "val_auc", "loss": "val_loss", "balanced-accuracy": "val_balanced_accuracy"}
History = Sequence[dict[str, Any]]  # a dict an epoch, with the keys of KEYS


def learning_rate(options: TrainOptions, step: int, per_epoch: int, history: History = ()) -> float:
    """The rate at a step, counted from 0; all schedules rise to `options.lr`.

    - one-cycle: cosine from lr/25 up in 25% of the steps, then down to 0 (Smith 2018).
    - constant, cosine (to 0, Loshchilov & Hutter 2017), plateau (times `factor` after
      `plateau_patience` epochs without a better `monitor`): after a linear warm-up.
    - exponential: a rise by epochs from `lr_start`, `hold` epochs at the top, then times `decay`
      an epoch, towards `lr_min`.
    In the first `head_epochs`, where the head alone trains, it is `head_lr`.
    """
    if step < options.head_epochs * per_epoch:
        return options.head_lr
    step -= options.head_epochs * per_epoch
    epochs = options.epochs - options.head_epochs
    if options.schedule == "exponential":
        return _exponential(options, step // per_epoch)
    done = step / max(1, epochs * per_epoch - 1)
    if options.schedule == "one-cycle":
        if done < 0.25:
            return options.lr * (0.04 + 0.96 * (1 - math.cos(math.pi * done / 0.25)) / 2)
        return options.lr * (1 + math.cos(math.pi * (done - 0.25) / 0.75)) / 2
    warm_up = options.warm_up * per_epoch
    if step < warm_up:
        return options.lr * min(1.0, (step + 1) / warm_up)
    if options.schedule == "cosine":
        done = (step - warm_up) / max(1, epochs * per_epoch - 1 - warm_up)
        return options.lr * (1 + math.cos(math.pi * done)) / 2
    if options.schedule == "plateau":
        return _plateau(options, history[options.head_epochs :])
    return options.lr


def best_epoch(history: History, monitor: Monitor, min_delta: float = 0.0) -> int:
    """Number, from 1, of the epoch that is better than all before it by more than `min_delta`.

    0 without history. Early stopping counts from it; with `min_delta` 0 it is the best epoch, the
    earliest at a tie.
    """
    best, found = -math.inf, 0
    for row in history:
        value = row[KEYS[monitor]] * (-1 if monitor == "loss" else 1)
        if value > best + (min_delta if found else 0):
            best, found = value, row["epoch"]
    return found


def _exponential(options: TrainOptions, epoch: int) -> float:
    if epoch < options.warm_up:
        return options.lr_start + (options.lr - options.lr_start) * epoch / options.warm_up
    later = max(0.0, epoch - options.warm_up - options.hold)
    return options.lr_min + (options.lr - options.lr_min) * options.decay**later


def _plateau(options: TrainOptions, history: History) -> float:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], options.lr)
    scheduler = ReduceLROnPlateau(
        optimizer,
        "min" if options.monitor == "loss" else "max",
        options.factor,
        options.plateau_patience,
        threshold=options.min_delta,
        threshold_mode="abs",
    )
    for row in history:
        scheduler.step(row[KEYS[options.monitor]])
    return optimizer.param_groups[0]["lr"]
