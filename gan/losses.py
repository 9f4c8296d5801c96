"""Adversarial losses and gradient penalties, by name.

A discriminator's verdict is a list of logit tensors, one a head: [n, 1] or [n, 1, s, s] patches.
Losses are means over images and patches, summed over heads; all are float32 scalars.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Heads = list[torch.Tensor]
Critic = Callable[[torch.Tensor], Heads]


@dataclass(frozen=True)
class Loss:
    """Both players' losses. Only a paired one has the generator's look at real images."""

    discriminator: Callable[[Heads, Heads], torch.Tensor]  # (on real, on fake)
    generator: Callable[[Heads, Heads | None], torch.Tensor]  # (on fake, on real where paired)
    paired: bool = False


def _pairs(
    judge: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[Heads, Heads], torch.Tensor]:
    """A loss of one head's (real, fake) logits, summed over heads."""

    def total(real: Heads, fake: Heads) -> torch.Tensor:
        pairs = zip(real, fake, strict=True)
        return torch.stack([judge(r.float(), f.float()) for r, f in pairs]).sum()

    return total


def _fakes(
    judge: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[Heads, Heads | None], torch.Tensor]:
    """A loss of one head's fake logits, summed over heads."""

    def total(fake: Heads, real: Heads | None = None) -> torch.Tensor:
        return torch.stack([judge(f.float()) for f in fake]).sum()

    return total


def _relativistic_generator(fake: Heads, real: Heads | None = None) -> torch.Tensor:
    assert real is not None, "a paired loss needs the real images' logits"
    return _pairs(lambda r, f: F.softplus(r - f).mean())(real, fake)


LOSSES = {
    # Lim and Ye 2017; Miyato et al. 2018
    "hinge": Loss(
        _pairs(lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean()),
        _fakes(lambda f: -f.mean()),
    ),
    # Goodfellow et al. 2014
    "non-saturating": Loss(
        _pairs(lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean()),
        _fakes(lambda f: F.softplus(-f).mean()),
    ),
    # Arjovsky et al. 2017
    "wasserstein": Loss(_pairs(lambda r, f: f.mean() - r.mean()), _fakes(lambda f: -f.mean())),
    # RpGAN: Jolicoeur-Martineau 2019; Huang et al. 2024
    "relativistic": Loss(
        _pairs(lambda r, f: F.softplus(f - r).mean()), _relativistic_generator, paired=True
    ),
}


def gradient_penalty(critic: Critic, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean of (|gradient| - 1)^2 between real and fake images (Gulrajani et al. 2017, eq. 3)."""
    mix = torch.rand(len(real), 1, 1, 1, device=real.device)
    squared = _squared_gradient(critic, torch.lerp(real, fake, mix))
    return ((squared + 1e-12).sqrt() - 1).square().mean()


def r1(critic: Critic, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Half the mean squared gradient at real images (Mescheder et al. 2018)."""
    return _squared_gradient(critic, real).mean() / 2


def r1_and_r2(critic: Critic, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """The same at real and at fake images, added (Huang et al. 2024)."""
    return r1(critic, real, fake) + r1(critic, fake, real)


PENALTIES = {"gp": gradient_penalty, "r1": r1, "r1r2": r1_and_r2}


def _squared_gradient(critic: Critic, images: torch.Tensor) -> torch.Tensor:
    """Squared norm [n] of the gradient of an image's verdict: patches' mean, heads' sum.

    float32, to be called outside autocast: in bf16 the second derivative is noise, and kills the
    process on a CPU.
    """
    images = images.detach().float().requires_grad_()
    verdict = torch.stack([head.flatten(1).mean(1).sum() for head in critic(images)]).sum()
    (gradient,) = torch.autograd.grad(verdict, images, create_graph=True)
    return gradient.square().sum((1, 2, 3))
