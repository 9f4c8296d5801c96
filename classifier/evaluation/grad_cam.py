"""Grad-CAM: where in an image the evidence for malignant lies.

Selvaraju et al. 2017 (arXiv:1610.02391): feature maps of the last convolution, weighted by the mean
gradient of the malignancy logit, negative sums cut off. It shows where evidence for malignant lies,
at the resolution of those maps (an image's side / 32 for EfficientNets), and not why; a map is
scaled to its own highest value, so that two maps do not compare.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn

from classifier.augment import load_batch
from classifier.model.classifier import Classifier
from classifier.targets import Target
from dermsynth.vision import library

OPAQUE = 0.6  # share of the colour where there is most evidence
COLOURS = cv2.COLORMAP_VIRIDIS  # even steps to the eye, also without red or green


@dataclass(frozen=True)
class CamMaps:
    """What Grad-CAM gave for n images."""

    heat: np.ndarray  # float32 [n, size, size] in 0..1; all 0 where nothing speaks for malignant
    score: np.ndarray  # float64 [n], the model's probability of malignant for this very input
    cells: tuple[int, int]  # height and width of the maps before they are enlarged


class _LogOdds(nn.Module):
    """The log odds of malignant [n, 1], as grad-cam expects."""

    def __init__(
        self, model: Classifier, target: Target, metadata: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.model, self.metadata = model, metadata
        self.malignant = torch.tensor(target.malignant)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images float32 [n, 3, size, size] to [n, 1]."""
        logits = self.model(x, self.metadata)
        if logits.shape[1] == 1:
            return logits
        bad, good = logits[:, self.malignant], logits[:, ~self.malignant]
        return bad.logsumexp(1, keepdim=True) - good.logsumexp(1, keepdim=True)


def _first_output(outputs: torch.Tensor) -> torch.Tensor:
    return outputs[0]


def grad_cam(
    model: Classifier, target: Target, images: np.ndarray, metadata: np.ndarray | None = None
) -> CamMaps:
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
    return CamMaps(np.asarray(heat, np.float32), score, cells[0])


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat float [size, size] in 0..1 over an image uint8 [s, s, 3] RGB: uint8 [s, s, 3].

    The less heat the less colour: where there is none the image stays as it is. (The library's own
    overlay tints and brightens an image without any evidence as well.)
    """
    heat = cv2.resize(heat, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    coloured = cv2.applyColorMap((255 * heat).astype(np.uint8), COLOURS)[..., ::-1]
    share = OPAQUE * heat[..., None]
    return np.rint(image * (1 - share) + coloured * share).astype(np.uint8)


def scale_bar(width: int = 256) -> np.ndarray:
    """The colours of `overlay` over white, from no heat to all of it: uint8 [1, width, 3] RGB."""
    white = np.full((1, width, 3), 255, np.uint8)
    return overlay(white, np.linspace(0, 1, width, dtype=np.float32)[None])


def scale(steps: int = 9) -> list[str]:
    """The colours of `overlay` from no heat to all of it, as CSS."""
    heat = np.linspace(0, 1, steps)
    colours = cv2.applyColorMap((255 * heat).astype(np.uint8), COLOURS).reshape(-1, 3)[:, ::-1]
    return [
        f"rgb({red} {green} {blue} / {OPAQUE * share:.0%})"
        for (red, green, blue), share in zip(colours, heat, strict=True)
    ]
