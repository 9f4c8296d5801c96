"""Pictures of a part: where the classifier is most wrong, and where its evidence lies (Grad-CAM).

Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): feature maps of the last convolution, weighted
by the mean gradient of the malignancy logit, negative sums cut off. It shows where evidence for
malignant lies, at the resolution of those maps (an image's side / 32 for EfficientNets), and not
why; a map is scaled to its own highest value, so that two maps do not compare.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch import nn

from classifier.augment import load_batch
from classifier.model.classifier import Classifier
from classifier.targets import Target
from dermsynth.vision import library

WORST = 12  # images of either class in the failure gallery
OPAQUE = 0.6  # share of the colour where there is most evidence
SEEN = 4  # images of each kind in the Grad-CAM grid
KINDS = ("hit", "miss", "false alarm")


@dataclass(frozen=True)
class Seen:
    """What Grad-CAM gave for n images."""

    heat: np.ndarray  # float32 [n, size, size] in 0..1; all 0 where nothing speaks for malignant
    score: np.ndarray  # float64 [n], the model's probability of malignant for this very input
    cells: tuple[int, int]  # height and width of the maps before they are enlarged


# --- which images --------------------------------------------------------------------------------


def failures(part: pd.DataFrame, count: int = WORST) -> dict[str, pd.DataFrame]:
    """The most wrong rows: `malignant` by rising score, `benign` by falling score, at most `count`.

    `part` has `image_id, target, score`; equal scores go by image_id. The index is kept.
    """
    by_score = part.sort_values(["score", "image_id"])
    by_fall = part.sort_values(["score", "image_id"], ascending=[False, True])
    return {
        "malignant": by_score[by_score["target"] == 1].head(count),
        "benign": by_fall[by_fall["target"] == 0].head(count),
    }


def cam_rows(part: pd.DataFrame, count: int = SEEN) -> pd.DataFrame:
    """Rows for Grad-CAM with `kind`: the surest true malignant, the worst misses, false alarms.

    At most `count` of each; no row twice, where there are few malignant ones.
    """
    by_fall = part.sort_values(["score", "image_id"], ascending=[False, True])
    hits = by_fall[by_fall["target"] == 1].head(count)
    wrong = failures(part.drop(index=hits.index), count)
    found = (hits, wrong["malignant"], wrong["benign"])
    return pd.concat([rows.assign(kind=kind) for kind, rows in zip(KINDS, found, strict=True)])


# --- Grad-CAM ------------------------------------------------------------------------------------


class _LogOdds(nn.Module):
    """The log odds of malignant [n, 1], as grad-cam expects."""

    def __init__(
        self, model: Classifier, target: Target, metadata: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.model, self.metadata = model, metadata
        self.malignant = torch.tensor(target.malignant)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.model(x, self.metadata)
        if logits.shape[1] == 1:
            return logits
        bad, good = logits[:, self.malignant], logits[:, ~self.malignant]
        return bad.logsumexp(1, keepdim=True) - good.logsumexp(1, keepdim=True)


def _first_output(outputs: torch.Tensor) -> torch.Tensor:
    return outputs[0]


def grad_cam(
    model: Classifier, target: Target, images: np.ndarray, metadata: np.ndarray | None = None
) -> Seen:
    """Grad-CAM of the log odds of malignant for uint8 [n, s, s, 3] RGB.

    It reads the last map before pooling, `model.top`: behind batch norm, whose mean would otherwise
    enter as a constant. `metadata` float32 [n, columns] for a model that looks at it.
    """
    device = next(model.parameters()).device
    batch = load_batch(images, model.spec.size, None).to(device)
    columns = None if metadata is None else torch.from_numpy(metadata).to(device)
    odds = _LogOdds(model, target, columns)
    cells: list[tuple[int, int]] = []
    handle = model.top.register_forward_hook(lambda *args: cells.append(tuple(args[2].shape[2:])))
    try:
        with library("pytorch_grad_cam").GradCAM(model=odds, target_layers=[model.top]) as cam:
            heat = cam(input_tensor=batch, targets=[_first_output] * len(images))
            logits = cam.outputs.detach()[:, 0]
    finally:
        handle.remove()
    score = torch.sigmoid(logits.double()).cpu().numpy()
    return Seen(np.asarray(heat, np.float32), score, cells[0])


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat float [size, size] in 0..1 over an image uint8 [s, s, 3] RGB: uint8 [s, s, 3].

    The less heat the less colour: where there is none the image stays as it is. (The library's own
    overlay tints and brightens an image without any evidence as well.)
    """
    heat = cv2.resize(heat, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    coloured = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = OPAQUE * heat[..., None]
    return np.rint(image * (1 - share) + coloured * share).astype(np.uint8)


def captions(rows: pd.DataFrame) -> list[list[str]]:
    """Three short lines below each picture: image_id, diagnosis where known, score."""
    return [
        [str(row.image_id), *_known(getattr(row, "diagnosis", None)), f"score {row.score:.3f}"]
        for row in rows.itertuples()
    ]


def _known(word: Any) -> list[str]:
    return [] if word is None or pd.isna(word) or word == "" else [str(word)]
