"""Scores of images as they are, or averaged over views of them: `--tta`."""

import numpy as np
import torch

from classifier.augment import Views, draw_views, load_batch
from classifier.model.classifier import Classifier
from classifier.options import AugmentName
from classifier.targets import Target
from dermsynth import symmetries
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.seeds import generator

SYMMETRIES = symmetries.COUNT  # as many views are these, exactly


def check_tta(tta: int, augment: AugmentName) -> None:
    """Raises UserError for a number of views that cannot be had."""
    if tta not in (1, SYMMETRIES) and augment == "none":
        raise UserError(
            f"--tta {tta}: random views come from the run's --augment, which is none; use 8"
        )


@torch.no_grad()  # XLA tensors cannot be made in inference mode
def probabilities(
    model: Classifier,
    target: Target,
    images: np.ndarray,
    compute: Compute,
    tta: int = 1,
    augment: AugmentName = "dihedral-colour",
    metadata: np.ndarray | None = None,
) -> np.ndarray:
    """Of the classes, float64 [n, classes]: the mean over views of each image.

    Parameters
    ----------
    model, target : of a run
    images : uint8 [n, s, s, 3]
    compute : where, and in which precision
    tta : views: 1: the image as it is; 8: the symmetries of the square; any other number: the image
        and random views as in training, the same ones for the same batch
    augment : what random views are drawn from
    metadata : float32 [n, columns], where the model looks at it
    """
    return single_and_mean(model, target, images, compute, tta, augment, metadata)[1]


@torch.no_grad()  # XLA tensors cannot be made in inference mode
def single_and_mean(
    model: Classifier,
    target: Target,
    images: np.ndarray,
    compute: Compute,
    tta: int,
    augment: AugmentName,
    metadata: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """As `probabilities`: of the images as they are, the first view of all, and the mean."""
    model.eval()
    count = len(images)
    rows = compute.filled(np.arange(count), model.spec.at_once)
    images, metadata = images[rows], None if metadata is None else metadata[rows]
    columns = None if metadata is None else torch.from_numpy(metadata).to(compute.device)
    total = np.zeros((count, len(target.classes)))
    single = total
    for number in range(tta):
        views = _views(number, tta, count, augment)
        x = load_batch(images, model.spec.size, views.take(rows) if views else None)
        with compute.autocast():
            logits = model(x.to(compute.device), columns)
        total = total + target.probabilities(logits)[:count]
        single = single if number else total
    return single, total / tta


def _views(number: int, tta: int, n: int, augment: AugmentName) -> Views | None:
    """The views of n images of that number; None: as they are."""
    if number == 0:
        return None
    if tta != SYMMETRIES:
        return draw_views(generator("tta", number), n, augment)
    return Views(np.full(n, number))
