"""The hinge loss (Lim and Ye 2017; Miyato et al. 2018), summed over a discriminator's heads."""

import torch
import torch.nn.functional as F


def discriminator_loss(real: list[torch.Tensor], fake: list[torch.Tensor]) -> torch.Tensor:
    """Mean of max(0, 1 - real) + max(0, 1 + fake); logits a head [n, ...]. A float32 scalar."""
    pairs = zip(real, fake, strict=True)
    heads = [F.relu(1 - r.float()).mean() + F.relu(1 + f.float()).mean() for r, f in pairs]
    return torch.stack(heads).sum()


def generator_loss(fake: list[torch.Tensor]) -> torch.Tensor:
    """Mean of -fake; logits a head [n, ...]. A float32 scalar."""
    return torch.stack([-f.float().mean() for f in fake]).sum()
