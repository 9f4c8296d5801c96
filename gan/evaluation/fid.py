"""Frechet inception distance, under that name only with the original Inception weights.

Needs `pip install torch-fidelity` and its weights file, which cannot be shipped here:
https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth
"""

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dermsynth import progress
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.files import sha256
from dermsynth.vision import library

WEIGHTS, DIGEST = "weights-inception-2015-12-05-6726825d.pth", "6726825d"  # begins its SHA-256
BATCH = 32


def inception(path: Path) -> nn.Module:
    """torch-fidelity's InceptionV3 with weights from a file: uint8 [n, 3, s, s] -> ([n, 2048],).

    Raises UserError where the package or the file is missing, or the file is another.
    """
    try:
        network = library("torch_fidelity").FeatureExtractorInceptionV3
    except ImportError:
        raise UserError("--inception: needs torch-fidelity; `pip install torch-fidelity`") from None
    if not path.is_file():
        raise UserError(f"--inception {path}: no such file; expected torch-fidelity's {WEIGHTS}")
    if not sha256(path).startswith(DIGEST):
        raise UserError(
            f"--inception {path}: not torch-fidelity's {WEIGHTS} (its SHA-256 begins with another "
            f"number than {DIGEST}); FID goes by that name only with those weights"
        )
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # the package unpickles: data only?
        return network("inception", ["2048"], feature_extractor_weights_path=str(path))
    except (pickle.UnpicklingError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--inception {path}: not weights of InceptionV3 ({reason})") from None


@torch.no_grad()  # XLA tensors cannot be made in inference mode
def inception_features(
    network: nn.Module, images: np.ndarray, compute: Compute, what: str
) -> torch.Tensor:
    """float32 [n, 2048] of uint8 [n, s, s, 3], in fp32 whatever the precision."""
    network = network.to(compute.device)
    parts = []
    with progress.bar(len(images), f"Inception features of {what}", "img") as bar:
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.array(images[start : start + BATCH])).permute(0, 3, 1, 2)
            parts.append(network(batch.to(compute.device))[0].float().cpu())
            bar.update(len(batch))
    return torch.cat(parts)


def fid(x: torch.Tensor, y: torch.Tensor) -> float:
    """Frechet distance of Gaussians fitted to features [n, d] (Heusel et al. 2017), as published.

    Biased upwards by few images: compare only what had as many.
    """
    metric = library("torch_fidelity.metric_fid")
    statistics = [metric.fid_features_to_statistics(z.double()) for z in (x, y)]
    return metric.fid_statistics_to_metric(*statistics, verbose=False)[metric.KEY_METRIC_FID]
