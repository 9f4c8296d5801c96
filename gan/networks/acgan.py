"""ACGAN (Odena et al. 2017): DCGAN whose discriminator also names the class.

A class is a learned vector beside z. The discriminator's second output is class logits; both
players are rewarded for a right name (cross-entropy of the *logits*: the project that this follows
put a softmax before it). Dropout as in the paper.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from dermsynth.options import ZeroToBelowOne
from gan.networks import dcgan

CLASS_DIM = 32  # numbers that stand for a class beside z


@dataclass(frozen=True, kw_only=True)
class Config(dcgan.Config):
    """DCGAN's optimizer and widths, as in the paper."""

    labels: ClassVar[Literal["never", "optional", "always"]] = "always"

    dropout: ZeroToBelowOne = 0.5  # of the discriminator's feature maps


class Generator(nn.Module):
    """z [n, latent_dim] from N(0, 1), labels [n] -> [n, 3, size, size] float32 in -1..1."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.latent_dim = config.z_dim
        self.classes = nn.Embedding(config.classes, CLASS_DIM)
        self.network = dcgan.Generator(config, config.z_dim + CLASS_DIM)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return self.network(torch.cat([z, self.classes(labels)], 1))


class Discriminator(nn.Module):
    """[n, 3, size, size] in -1..1 -> one head: [[n, 1]] logits; and class logits [n, classes]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.trunk = dcgan.Discriminator(config)
        self.drop = nn.Dropout2d(config.dropout)
        width = dcgan.channels(config)[0]
        self.name = nn.Conv2d(width, config.classes, dcgan.LOWEST)
        self.name.apply(dcgan.initialise)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> list[torch.Tensor]:
        return self.forward_with_classes(x)[0]

    def forward_with_classes(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Logits of real, one head, and of the classes, from one pass."""
        h = self.drop(self.trunk.layers(x))
        return [self.trunk.last(h).flatten(1)], self.name(h).flatten(1)
