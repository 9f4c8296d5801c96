"""Scores of images as they are, or averaged over views of them: `--tta`.

`clinics`: eight views as other clinics would have taken or stored the image: twice as it is, nearer
by a quarter, unsquashed from 4:3, and white-balanced, each in two of the square's symmetries.
"""

import numpy as np
import torch

from classifier.augment import Views, draw_views, load_batch
from classifier.model.classifier import Classifier
from classifier.options import AugmentName, TestViews
from classifier.targets import Target
from dermsynth import symmetries
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.seeds import generator

SYMMETRIES = symmetries.COUNT  # as many views are these, exactly
AS_IT_IS, TURNED = ((1, 0), (0, 1)), ((0, 1), (-1, 0))
MIRRORED, TRANSPOSED = ((-1, 0), (0, 1)), ((0, 1), (1, 0))
NEARER, UNSQUASHED, BALANCED = (0.8, 0.8), (0.75, 1.0), (0.9, 0.9)
CLINICS = (  # share of the width and height that is seen, how, and whether white-balanced
    *(((1.0, 1.0), AS_IT_IS, False), ((1.0, 1.0), TURNED, False)),
    *((NEARER, MIRRORED, False), (NEARER, TRANSPOSED, False)),
    *((UNSQUASHED, AS_IT_IS, False), (UNSQUASHED, TRANSPOSED, False)),
    *((BALANCED, TURNED, True), (BALANCED, MIRRORED, True)),
)


def view_count(tta: TestViews) -> int:
    """Views an image."""
    return len(CLINICS) if tta == "clinics" else tta


def check_tta(tta: TestViews, augment: AugmentName) -> None:
    """Raises UserError for a number of views that cannot be had."""
    if tta not in (1, SYMMETRIES, "clinics") and augment == "none":
        raise UserError(
            f"--tta {tta}: random views come from the run's --augment, which is none; use 8 or "
            "clinics"
        )


@torch.no_grad()  # XLA tensors cannot be made in inference mode
def probabilities(
    model: Classifier,
    target: Target,
    images: np.ndarray,
    compute: Compute,
    tta: TestViews = 1,
    augment: AugmentName = "dihedral-colour",
    metadata: np.ndarray | None = None,
) -> np.ndarray:
    """Of the classes, float64 [n, classes]: the mean over views of each image.

    Parameters
    ----------
    model, target : of a run
    images : uint8 [n, s, s, 3]
    compute : where, and in which precision
    tta : views: 1: the image as it is; 8: the symmetries of the square; clinics: CLINICS; any other
        number: the image and random views as in training, the same ones for the same batch
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
    tta: TestViews,
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
    views_in_all = view_count(tta)
    for number in range(views_in_all):
        views = _views(number, tta, count, augment)
        x = load_batch(images, model.spec.size, views.take(rows) if views else None)
        with compute.autocast():
            logits = model(x.to(compute.device), columns)
        total = total + target.probabilities(logits)[:count]
        single = single if number else total
    return single, total / views_in_all


def _views(number: int, tta: TestViews, n: int, augment: AugmentName) -> Views | None:
    """The views of n images of that number; None: as they are."""
    if number == 0:
        return None
    if tta == "clinics":
        seen, how, balanced = CLINICS[number]
        move = np.column_stack([np.diag(seen) @ np.array(how), np.zeros(2)]).astype(np.float32)
        moves = np.broadcast_to(move, (n, 2, 3))
        return Views(np.zeros(n, int), moves=moves, balanced=np.full(n, balanced))
    if tta != SYMMETRIES:
        return draw_views(generator("tta", number), n, augment)
    return Views(np.full(n, number))
