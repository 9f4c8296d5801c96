"""What the model says of validation, test and external images."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from classifier.evaluation.metrics import accuracy
from classifier.run_folder import prediction_rows
from classifier.targets import UNKNOWN
from classifier.training.losses import Loss
from classifier.training.setup import TrainingSetup
from classifier.training.trunk_cache import PLAIN, ImageSet, Trunk
from classifier.tta import single_and_mean, view_count
from data.store import Dataset
from dermsynth import progress
from dermsynth.device import Compute
from dermsynth.distributed import Processes

Seen = Callable[[int], object]  # is told how many more images were scored


def _nothing(images: int) -> None:
    """For whom no progress is shown."""


class Scorer:
    """Scores of images as they are, or with --tta of views of them.

    Each of several processes computes those of some images; then all have all of them.
    """

    def __init__(
        self, setup: TrainingSetup, trunk: Trunk, compute: Compute, processes: Processes
    ) -> None:
        self.processes = processes
        self.setup, self.trunk, self.compute = setup, trunk, compute
        self.model, self.loss = trunk.model, Loss(setup.target)

    def validate(self, seen: Seen = _nothing) -> dict[str, Any] | None:
        """Validation figures, one of None where one class leaves it undefined.

        None in place of all where the scores are not finite. `seen` is told of images as they are
        scored.
        """
        dataset, target = self.setup.dataset, self.setup.target
        rows = dataset.rows("val", self.setup.fold)
        logits = self._logits(dataset, rows, seen)
        if not torch.isfinite(logits).all():
            return None
        labels = target.labels(dataset.table.iloc[rows])
        classes, known = target.probabilities(logits), labels != UNKNOWN
        matrix = torch.from_numpy(target.matrix(labels[known]))
        targets, scores = dataset.targets(rows), target.scores(classes)
        row = {
            "val_loss": self.loss(logits[known], matrix).item(),
            "val_auc": _auc(targets, scores),
            "val_accuracy": accuracy(targets, scores, 0.5),
        }
        if target.name == "diagnosis":
            guessed = classes[known].argmax(1)
            row["val_balanced_accuracy"] = float(balanced_accuracy_score(labels[known], guessed))
        return row

    def training_figures(self, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        """AUC and accuracy of what the model said of training images while it learnt from them.

        `logits` and `targets` float32 [n, outputs] of an epoch's steps: augmented images, extra
        ones included, seen by weights that moved on. Mixed images, of which a target is no class,
        are passed over; None where nothing else is left, or one class.
        """
        target = self.setup.target
        pure = ((targets == 0) | (targets == 1)).all(1)
        scores = target.scores(target.probabilities(logits[pure]))
        malignant = targets[pure] @ torch.tensor(target.malignant[-target.outputs :]).float()
        labels = malignant.numpy() > 0.5
        return {"train_auc": _auc(labels, scores), "train_accuracy": accuracy(labels, scores, 0.5)}

    def predictions(self) -> pd.DataFrame:
        """Rows of predictions.parquet, of every part."""
        setup = self.setup
        parts = [
            (part, setup.dataset, setup.dataset.rows(part, setup.fold)) for part in ("val", "test")
        ]
        for name, external in setup.externals.items():
            parts.append((f"external/{name}", external, setup.external_tests[name].rows))
        frames, views = [], view_count(setup.options.choice.tta)
        total = sum(len(rows) for _, _, rows in parts)
        with progress.bar(
            total, f"scoring, {views} views" if views > 1 else "scoring", "img"
        ) as bar:
            for part, dataset, rows in parts:
                bar.set_postfix_str(part, refresh=False)
                plain, scores = self._probabilities(dataset, rows, bar.update)
                frames.append(prediction_rows(dataset, rows, part, scores, setup.target, plain))
        return pd.concat(frames, ignore_index=True)

    def _probabilities(
        self, dataset: Dataset, rows: np.ndarray, seen: Seen
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Of the classes, float64 [n, classes]: with `--tta` of the images as they are, else None;
        and over its views.
        """
        setup, options = self.setup, self.setup.options
        if options.choice.tta == 1:
            return None, setup.target.probabilities(self._logits(dataset, rows, seen))
        scores = [np.empty((2, 0, len(setup.target.classes)))]
        for part in self._mine(rows):
            metadata = setup.metadata.numbers(dataset, part) if setup.metadata else None
            both = single_and_mean(
                *(self.model, setup.target, dataset.images[part], self.compute),
                *(options.choice.tta, options.augmentation.augment, metadata),
            )
            scores.append(np.stack(both))
            seen(len(part))
        plain, mean = self._everybodys(np.concatenate(scores, axis=1), 1, seen)
        return plain, mean

    @torch.no_grad()
    def _logits(self, dataset: Dataset, rows: np.ndarray, seen: Seen) -> torch.Tensor:
        """Float32 [len(rows), outputs] on the CPU, for images as they are."""
        self.model.eval()
        setup, images = self.setup, ImageSet.stored("real", dataset)
        logits = [torch.empty(0, setup.target.outputs)]
        for part in self._mine(rows):
            full = self.compute.filled(part, setup.spec.at_once)
            metadata = setup.numbers(dataset, self.compute.device, full)
            with self.compute.autocast():
                features = self.trunk.features(images, full, np.full(len(full), PLAIN))
                logits.append(self.model.tail(features, metadata).float().cpu()[: len(part)])
            seen(len(part))
        return torch.from_numpy(self._everybodys(torch.cat(logits).numpy(), 0, seen))

    def _mine(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """This process's share of the rows, as many at a time as pass together.

        They are cut where one process cuts them too: scores are the same bits then.
        """
        at_once = self.setup.spec.at_once
        mine = rows[self.processes.blocks(len(rows), at_once)]
        for start in range(0, len(mine), at_once):
            yield mine[start : start + at_once]

    def _everybodys(self, mine: np.ndarray, axis: int, seen: Seen) -> np.ndarray:
        """What all processes have computed, in the order of the rows, which are along `axis`."""
        gathered = np.concatenate(self.processes.gather(mine), axis)
        seen(gathered.shape[axis] - mine.shape[axis])
        return gathered


def _auc(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """None, never 0 or 0.5, where one class leaves it undefined."""
    return float(roc_auc_score(targets, scores)) if len(np.unique(targets)) == 2 else None
