"""EfficientNets with a frozen trunk and a trained tail.

Both libraries follow the same layout (lukemelas): a stem, `_blocks`, a head convolution and `_fc`.
They are used as they are, weights files included, but for two things that change speed and not
results: plain SiLU in place of the autograd-function swish, and symmetric padding inside the
convolution in place of a padding module before it.
"""

import copy
import hashlib
import importlib
from typing import Any, Literal

import torch
from efficientnet_lite_pytorch import EfficientNet as LiteNet
from efficientnet_pytorch import EfficientNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from runtime.errors import UserError

BatchNormMode = Literal["adapt", "fixed"]
ADAPT_MOMENTUM = 0.15  # of the student project that this follows
# The library's 0.01 suits long trainings: after some hundred steps, validation would still see
# largely ImageNet's statistics under weights that have moved on.
TAIL_MOMENTUM = 0.1
LITE = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
BACKBONES = (*(f"efficientnet-b{i}" for i in range(8)), *LITE)
# What each family's ImageNet weights were trained on: (pixel / 255 - mean) / std
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


class Classifier(nn.Module):
    """One malignancy logit from an EfficientNet whose stem and first `frozen` blocks are frozen.

    `forward(x)` is `tail(trunk(x))`; x float [n, 3, size, size] in 0..1, RGB; logits float [n].
    With `frozen` 0 nothing is frozen and the trunk is the normalisation alone.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, backbone: str, size: int, frozen: int, batch_norm: BatchNormMode, dropout: float
    ) -> None:
        super().__init__()
        self.backbone, self.size, self.frozen = backbone, size, frozen
        self.batch_norm: BatchNormMode = batch_norm
        lite = backbone in LITE
        # The static padding of the library depends on the image size that it is built for.
        self.net = (LiteNet if lite else EfficientNet).from_name(
            backbone, image_size=size, num_classes=1, dropout_rate=dropout
        )
        if not lite:  # the lite library would swap its ReLU6 for SiLU here
            self.net.set_swish(memory_efficient=False)
        _pad_inside_convolutions(self.net)
        mean, std = (LITE_MEAN, LITE_STD) if lite else (IMAGENET_MEAN, IMAGENET_STD)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self._freeze()

    @property
    def trunk_is_pure(self) -> bool:
        """True where nothing in the trunk changes in training, so that its output can be kept."""
        return self.frozen > 0 and self.batch_norm == "fixed"

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        """Images to features: normalisation and, if any block is frozen, the stem and those."""
        x = ((x - self.mean) / self.std).to(self.net._conv_stem.weight.dtype)
        return self._blocks(self._stem(x), 0, self.frozen) if self.frozen else x

    def tail(self, features: torch.Tensor) -> torch.Tensor:
        """Features to logits."""
        net = self.net
        x = features if self.frozen else self._stem(features)
        x = self._blocks(x, self.frozen, len(net._blocks))
        x = net._swish(net._bn1(net._conv_head(x)))
        return net._fc(net._dropout(x.mean((2, 3)))).squeeze(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.trunk(x))

    def train(self, mode: bool = True) -> "Classifier":
        """As in torch, but `fixed` keeps the frozen part, batch norm included, in eval mode."""
        super().train(mode)
        if mode and self.batch_norm == "fixed":
            for module in self.frozen_modules():
                module.eval()
        return self

    def frozen_modules(self) -> list[nn.Module]:
        """The stem's and the frozen blocks' modules."""
        if self.frozen == 0:
            return []
        return [self.net._conv_stem, self.net._bn0, *self.net._blocks[: self.frozen]]

    def _stem(self, x: torch.Tensor) -> torch.Tensor:
        return self.net._swish(self.net._bn0(self.net._conv_stem(x)))

    def _blocks(self, x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        # Drop connect as in the library: 0.2, growing linearly with depth, in training only.
        rate, count = self.net._global_params.drop_connect_rate, len(self.net._blocks)
        for number in range(start, stop):
            x = self.net._blocks[number](x, drop_connect_rate=rate * number / count)
        return x

    def _freeze(self) -> None:
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = TAIL_MOMENTUM
        for part in self.frozen_modules():
            for module in part.modules():
                trained = isinstance(module, nn.BatchNorm2d) and self.batch_norm == "adapt"
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(trained)
                if trained:
                    module.momentum = ADAPT_MOMENTUM


def block_count(backbone: str) -> int:
    """MBConv blocks of a backbone (b3 26, lite0 16). Raises UserError for an unknown name."""
    return sum(_stage_sizes(backbone))


def default_frozen(backbone: str) -> int:
    """The blocks of the first five of seven stages: 18 of b3's 26, 11 of lite0's 16."""
    return sum(_stage_sizes(backbone)[:5])


def _stage_sizes(backbone: str) -> list[int]:
    if backbone not in BACKBONES:
        raise UserError(f"--backbone {backbone}: unknown; choose one of {', '.join(BACKBONES)}")
    lite = backbone in LITE
    library = importlib.import_module(
        "efficientnet_lite_pytorch.utils" if lite else "efficientnet_pytorch.utils"
    )
    stages, scale = library.get_model_params(backbone, None)
    sizes = [library.round_repeats(stage.num_repeat, scale) for stage in stages]
    if lite:  # the lite family does not repeat its first and last stage more often
        sizes[0], sizes[-1] = stages[0].num_repeat, stages[-1].num_repeat
    return sizes


def _pad_inside_convolutions(net: nn.Module) -> None:
    """Symmetric zero padding belongs into the convolution: one copy of the input less."""
    for module in net.modules():
        padding: Any = getattr(module, "static_padding", None)
        if isinstance(padding, nn.ZeroPad2d):
            left, right, top, bottom = padding.padding
            if left == right == top == bottom:
                module.padding = (left, left)
                module.static_padding = nn.Identity()


def folded_trunk(model: Classifier) -> Classifier:
    """A copy of the model for `trunk` alone, batch norm folded into the convolutions (1.6-2x)."""
    folded = copy.deepcopy(model).eval()
    net = folded.net
    net._blocks = net._blocks[: folded.frozen]
    pairs = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
    places: list[tuple[nn.Module, str, str]] = [(net, "_conv_stem", "_bn0")]
    places += [(block, *pair) for block in net._blocks for pair in pairs if hasattr(block, pair[0])]
    for module, conv, norm in places:
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
    return folded.requires_grad_(False)


def trunk_sha256(model: Classifier) -> str:
    """SHA-256 (hex) over all that a pure trunk's output depends on but the image."""
    digest = hashlib.sha256(f"{model.backbone}/{model.size}/{model.frozen}".encode())
    for module in model.frozen_modules():
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
