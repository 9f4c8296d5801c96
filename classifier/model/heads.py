"""What stands between a backbone's feature maps and the logits: `--head`."""

import torch
from torch import nn

from classifier.options import HeadName

LEVELS = 3  # feature maps that the multi-level head looks at


class Head(nn.Module):
    """forward(maps, metadata) -> logits float [n, outputs].

    - `linear`: average pooling, dropout, one layer.
    - `hidden`: average pooling, 512 ReLU units, dropout 0.25, one layer.
    - `max`: as linear, over the global maximum.
    - `multi-level`: as linear, over the averages of the last LEVELS stages' maps together.
    - `metadata`: the average beside 50 units made of age, sex and site (batch norm, then ReLU),
      then 512 and 182 units (ReLU, then batch norm, dropout 0.2 and 0.3), one layer.

    `maps`: feature maps [n, widths[i], h, w], coarsest last. `metadata` float [n, columns], for
    the head that has a use for it.

    Parameters
    ----------
    name : one of these
    widths : channels of the maps
    outputs : logits
    dropout : before the last layer, where the list above names no other
    columns : of the metadata
    """

    def __init__(
        self, name: HeadName, widths: list[int], outputs: int, dropout: float, columns: int = 0
    ) -> None:
        super().__init__()
        self.maximum, self.fused = name == "max", None
        width = sum(widths)
        if name == "metadata":
            # the order of norm and ReLU is that of the published pipeline, and differs so in it
            relu, norm = nn.ReLU(inplace=True), nn.BatchNorm1d(50)
            self.fused = nn.Sequential(nn.Linear(columns, 50), norm, relu)
            layers = [*_unit(width + 50, 512, 0.2), *_unit(512, 182, 0.3)]
            width = 182
        elif name == "hidden":
            layers = [nn.Linear(width, 512), nn.ReLU(inplace=True), nn.Dropout(0.25)]
            width = 512
        else:
            layers = [nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(
        self, maps: list[torch.Tensor], metadata: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits float [n, outputs]."""
        pooled = [x.amax((2, 3)) if self.maximum else x.mean((2, 3)) for x in maps]
        if self.fused is not None:
            assert metadata is not None
            pooled.append(self.fused(metadata))
        return self.layers(torch.cat(pooled, 1))


def levels(name: HeadName) -> int:
    """How many feature maps a head looks at."""
    return LEVELS if name == "multi-level" else 1


def _unit(inner: int, outer: int, dropout: float) -> list[nn.Module]:
    norm = nn.BatchNorm1d(outer)
    return [nn.Linear(inner, outer), nn.ReLU(inplace=True), norm, nn.Dropout(dropout)]
