"""The classifier: a backbone whose stem and first blocks are frozen, and a head."""

import copy
import hashlib
from dataclasses import dataclass

import torch
from torch import nn

from classifier.model.backbones import build_backbone
from classifier.model.heads import Head, levels
from classifier.options import BatchNormMode, HeadName

ADAPT_MOMENTUM = 0.15  # of the student project that this follows
# The libraries' 0.01 suits long trainings: after some hundred steps, validation would still see
# largely ImageNet's statistics under weights that have moved on.
TAIL_MOMENTUM = 0.1


@dataclass(frozen=True)
class ModelSpec:
    """All that decides the shape of a classifier and what it computes, but for its weights."""

    backbone: str
    size: int = 128  # side of the images, px
    frozen: int = 0  # blocks frozen after the stem; 0: nothing is
    batch_norm: BatchNormMode = "fixed"  # in the frozen part
    head: HeadName = "linear"
    dropout: float = 0.2
    outputs: int = 1  # logits
    columns: int = 0  # of metadata
    read_size: int | None = None  # px at which images are read before they come to `size`

    @property
    def reads(self) -> int:
        """Side at which images of a native dataset, or files, are read, px."""
        return self.read_size or self.size

    @property
    def at_once(self) -> int:
        """Images that pass without gradients at a time: 64 of 128 px, fewer of larger ones, in
        the same memory. A power of two, of which usual batches are multiples.
        """
        return 1 << (max(1, min(64, 64 * 128**2 // self.size**2)).bit_length() - 1)


class Classifier(nn.Module):
    """`forward(x, metadata)` is `tail(trunk(x), metadata)`: logits float [n, outputs].

    x float [n, 3, size, size] in 0..1, RGB; metadata float [n, columns] for a head that uses it.
    Raises UserError for an unknown backbone or a size that it cannot take.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec, self.levels = spec, levels(spec.head)
        self.backbone = build_backbone(spec.backbone, spec.size)
        widths = self.backbone.widths(self.levels)
        self.top = nn.Identity()  # the last map passes here: where Grad-CAM looks
        self.head = Head(spec.head, widths, spec.outputs, spec.dropout, spec.columns)
        self.head_only = False  # the first stage of a staged training: no block's weights change
        self._freeze()

    @property
    def trunk_is_pure(self) -> bool:
        """True where the trunk's output can be kept: nothing in it changes in training."""
        return self.backbone.splits and self.spec.frozen > 0 and self.spec.batch_norm == "fixed"

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        """Images to features: normalisation and, where the backbone splits, the frozen part."""
        return self.backbone.trunk(x, self.spec.frozen)

    def tail(self, features: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """Features to logits."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.head_only):
            maps = self.backbone.maps(features, self.spec.frozen, self.levels)
        return self.head([*maps[:-1], self.top(maps[-1])], metadata)

    def forward(self, x: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """Logits float [n, outputs] of x [n, 3, size, size] and metadata [n, columns]."""
        return self.tail(self.trunk(x), metadata)

    def train(self, mode: bool = True) -> "Classifier":
        """As in torch, but `fixed` keeps the frozen part, batch norm included, in eval mode.

        With `head_only` too: the head learns on what it will meet in the second stage, where the
        statistics of the blocks that join it are those of the batch.
        """
        super().train(mode)
        if mode and self.spec.batch_norm == "fixed":
            for module in self.frozen_modules():
                module.eval()
        return self

    def frozen_modules(self) -> list[nn.Module]:
        """The stem's and the frozen blocks' modules."""
        return self.backbone.frozen_modules(self.spec.frozen)

    def folded(self) -> "Classifier":
        """A copy for `trunk` alone, in eval mode and as fast as can be."""
        folded = copy.copy(self)
        folded._modules = {"backbone": self.backbone.folded(self.spec.frozen)}
        return folded

    def for_inference(self) -> "Classifier":
        """A copy in eval mode for logits without gradients, as fast as can be."""
        copied = copy.copy(self)
        whole = {"backbone": self.backbone.folded(), "head": copy.deepcopy(self.head)}
        copied._modules = self._modules | whole
        return copied.eval().requires_grad_(False)

    def trunk_sha256(self) -> str:
        """SHA-256 (hex) over all that a pure trunk's output depends on but the image."""
        spec = self.spec
        digest = hashlib.sha256(f"{spec.backbone}/{spec.size}/{spec.frozen}".encode())
        for module in self.frozen_modules():
            _feed(digest, module)
        return digest.hexdigest()

    def weights_sha256(self) -> str:
        """SHA-256 (hex) over the backbone's parameters and statistics."""
        _feed(digest := hashlib.sha256(), self.backbone)
        return digest.hexdigest()

    def _freeze(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = TAIL_MOMENTUM
        for part in self.frozen_modules():
            for module in part.modules():
                norm = isinstance(module, nn.BatchNorm2d) and self.spec.batch_norm == "adapt"
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(norm)
                if norm:
                    module.momentum = ADAPT_MOMENTUM


def _feed(digest: "hashlib._Hash", module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
