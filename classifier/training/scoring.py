"""What the model says of validation, test and external images."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from classifier.run_folder import prediction_rows
from classifier.targets import UNKNOWN
from classifier.training.losses import Loss
from classifier.training.setup import TrainingSetup
from classifier.training.trunk_cache import PLAIN, ImageSet, Trunk
from classifier.tta import probabilities
from data.store import Dataset
from dermsynth.device import Compute


class Scorer:
    """Scores of images as they are, or with --tta of views of them."""

    def __init__(self, setup: TrainingSetup, trunk: Trunk, compute: Compute) -> None:
        self.setup, self.trunk, self.compute = setup, trunk, compute
        self.model, self.loss = trunk.model, Loss(setup.target)

    def validate(self) -> dict[str, Any] | None:
        """Validation figures, one of None where one class leaves it undefined.

        None in place of all where the scores are not finite.
        """
        dataset, target = self.setup.dataset, self.setup.target
        rows = dataset.rows("val", self.setup.fold)
        logits = self._logits(dataset, rows)
        if not torch.isfinite(logits).all():
            return None
        labels = target.labels(dataset.table.iloc[rows])
        classes, known = target.probabilities(logits), labels != UNKNOWN
        matrix = torch.from_numpy(target.matrix(labels[known]))
        row = {
            "val_loss": self.loss(logits[known], matrix).item(),
            "val_auc": _auc(dataset.targets(rows), target.scores(classes)),
        }
        if target.name == "diagnosis":
            guessed = classes[known].argmax(1)
            row["val_balanced_accuracy"] = float(balanced_accuracy_score(labels[known], guessed))
        return row

    def predictions(self) -> pd.DataFrame:
        """Rows of predictions.parquet, of every part."""
        setup = self.setup
        parts = [
            (part, setup.dataset, setup.dataset.rows(part, setup.fold)) for part in ("val", "test")
        ]
        for name, external in setup.externals.items():
            parts.append((f"external/{name}", external, setup.external_tests[name].rows))
        frames = []
        for part, dataset, rows in parts:
            scores = self._probabilities(dataset, rows)
            frames.append(prediction_rows(dataset, rows, part, scores, setup.target))
        return pd.concat(frames, ignore_index=True)

    def _probabilities(self, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
        """Of the classes, float64 [n, classes], over `--tta` views."""
        setup, options = self.setup, self.setup.options
        if options.choice.tta == 1:
            return setup.target.probabilities(self._logits(dataset, rows))
        scores = [np.empty((0, len(setup.target.classes)))]
        for start in range(0, len(rows), setup.spec.at_once):
            part = rows[start : start + setup.spec.at_once]
            metadata = setup.metadata.numbers(dataset, part) if setup.metadata else None
            scores.append(
                probabilities(
                    *(self.model, setup.target, dataset.images[part], self.compute),
                    *(options.choice.tta, options.augmentation.augment, metadata),
                )
            )
        return np.concatenate(scores)

    @torch.no_grad()
    def _logits(self, dataset: Dataset, rows: np.ndarray) -> torch.Tensor:
        """Float32 [len(rows), outputs] on the CPU, for images as they are."""
        self.model.eval()
        setup, images = self.setup, ImageSet.stored("real", dataset)
        logits = [torch.empty(0, setup.target.outputs)]
        for start in range(0, len(rows), setup.spec.at_once):
            part = rows[start : start + setup.spec.at_once]
            metadata = setup.numbers(dataset, self.compute.device, part)
            with self.compute.autocast():
                features = self.trunk.features(images, part, np.full(len(part), PLAIN))
                logits.append(self.model.tail(features, metadata).float().cpu())
        return torch.cat(logits)


def _auc(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """None, never 0 or 0.5, where one class leaves it undefined."""
    return float(roc_auc_score(targets, scores)) if len(np.unique(targets)) == 2 else None
