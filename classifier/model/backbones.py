"""Backbones: images to feature maps, in blocks that can be frozen from the stem on.

EfficientNets come from efficientnet-pytorch and efficientnet-lite-pytorch, which share a layout
(lukemelas): a stem, `_blocks`, a head convolution. Their modules are used, weights files included;
what runs them (mbconv, dermsynth.same_convolution) changes speed and not results: plain SiLU in
place of the autograd-function swish, padding inside the convolutions, gradients in matrix products.
Any other model comes from timm as `timm:NAME`; three small ones are for training from scratch.
"""

import copy
import functools
import importlib
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from efficientnet_pytorch import EfficientNet
from torch import nn

from classifier.model.mbconv import mbconv
from dermsynth import efficientnet_lite
from dermsynth.errors import UserError
from dermsynth.vision import library

LITE = efficientnet_lite.NAMES
EFFICIENTNETS = (*(f"efficientnet-b{i}" for i in range(8)), *LITE)
CNNS = {"vanilla-cnn": 4, "vanilla-cnn-6m": 6}  # their convolutions
SCRATCH = (*CNNS, "small-densenet")  # there are no weights for these
TIMM = "timm:"
# What each family's ImageNet weights were trained on: (pixel / 255 - mean) / std
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE_MEAN, LITE_STD = (efficientnet_lite.MEAN,) * 3, (efficientnet_lite.STD,) * 3


class Backbone(nn.Module):
    """Feature maps of images float [n, 3, size, size] in 0..1, RGB.

    `maps(trunk(x, frozen), frozen)` are those of x, for any number of frozen blocks; `splits` says
    that the trunk then runs the stem and the frozen blocks, else it normalises alone.
    """

    splits = True
    head_names: tuple[str, ...] = ()  # how the tensors of the library's own last layers begin
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net  # its names are those of weights files
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        """In the mean, deviation and number type that the net expects."""
        return ((x - self.mean) / self.std).to(next(self.net.parameters()).dtype)

    def trunk(self, x: torch.Tensor, frozen: int) -> torch.Tensor:
        """Images to what the first trained block takes."""
        raise NotImplementedError

    def maps(self, features: torch.Tensor, frozen: int, levels: int = 1) -> list[torch.Tensor]:
        """The trunk's output to `levels` maps [n, widths[i], h, w], coarsest last."""
        raise NotImplementedError

    def widths(self, levels: int = 1) -> list[int]:
        """Channels of the maps."""
        raise NotImplementedError

    def frozen_modules(self, frozen: int) -> list[nn.Module]:
        """The modules of the stem and the first `frozen` blocks; none for 0."""
        raise NotImplementedError

    def folded(self, frozen: int | None = None) -> "Backbone":
        """A copy in eval mode, as fast as can be; with `frozen` for `trunk` alone."""
        return copy.deepcopy(self).eval().requires_grad_(False)


class LukemelasNet(Backbone):
    """EfficientNet b0..b7 and lite0..2."""

    head_names = ("_fc.",)

    def __init__(self, name: str, size: int) -> None:
        lite = name in LITE
        # The static padding of the library depends on the image size that it is built for.
        if lite:
            net = efficientnet_lite.build(name, size)
        else:
            net = EfficientNet.from_name(name, image_size=size, num_classes=1)
            net.set_swish(memory_efficient=False)
            efficientnet_lite.pad_inside_convolutions(net)
            del net._fc  # the head is ours
        super().__init__(net, *((LITE_MEAN, LITE_STD) if lite else (IMAGENET_MEAN, IMAGENET_STD)))
        self.taps = _taps(name)

    def trunk(self, x: torch.Tensor, frozen: int) -> torch.Tensor:
        """Normalised [n, 3, s, s], or the output [n, c, h, w] of the last frozen block."""
        x = self.normalised(x)
        return self._blocks(efficientnet_lite.stem(self.net, x), 0, frozen)[-1] if frozen else x

    def maps(self, features: torch.Tensor, frozen: int, levels: int = 1) -> list[torch.Tensor]:
        """`levels` maps [n, widths[i], h, w] of the trunk's output, coarsest last."""
        net = self.net
        x = features if frozen else efficientnet_lite.stem(self.net, features)
        kept = self._blocks(x, frozen, len(net._blocks))
        last = efficientnet_lite.activated(net, "_conv_head", "_bn1", kept[-1])
        return [*kept[:-1][: levels - 1], last]

    def widths(self, levels: int = 1) -> list[int]:
        """Channels of the maps."""
        ends = [self.net._blocks[tap - 1]._project_conv.out_channels for tap in self.taps]
        return [*ends[: levels - 1], self.net._conv_head.out_channels]

    def frozen_modules(self, frozen: int) -> list[nn.Module]:
        """The modules of the stem and the first `frozen` blocks."""
        if frozen == 0:
            return []
        return [self.net._conv_stem, self.net._bn0, *self.net._blocks[:frozen]]

    def folded(self, frozen: int | None = None) -> "LukemelasNet":
        """Batch norm goes into the convolutions, SiLU comes within them: twice as fast."""
        folded = copy.copy(self)
        folded._modules = {"net": efficientnet_lite.fold_batch_norm(self.net, frozen)}
        return folded.eval()

    def _blocks(self, x: torch.Tensor, start: int, stop: int) -> list[torch.Tensor]:
        """What stands at the taps on the way, and the last output."""
        # Drop connect as in the library: 0.2, growing linearly with depth, in training only.
        rate, count = self.net._global_params.drop_connect_rate, len(self.net._blocks)
        kept = []
        for number in range(start, stop):
            if number in self.taps:
                kept.append(x)
            x = mbconv(self.net._blocks[number], x, rate * number / count)
        return [*kept, x]


class TimmNet(Backbone):
    """A timm model without its head; frozen by its own blocks, run whole in every step."""

    splits = False

    def __init__(self, net: nn.Module, size: int, name: str) -> None:
        config = getattr(net, "pretrained_cfg", None) or {}
        super().__init__(net, config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD))
        heads = config.get("classifier") or "classifier"
        self.head_names = ("pre_logits.", *((heads,) if isinstance(heads, str) else heads))
        self.size, self.name = size, name
        self._widths = {1: self._probe(1)}

    def trunk(self, x: torch.Tensor, frozen: int) -> torch.Tensor:
        """Normalised [n, 3, s, s], or the output [n, c, h, w] of the last frozen block."""
        return self.normalised(x)

    def maps(self, features: torch.Tensor, frozen: int, levels: int = 1) -> list[torch.Tensor]:
        """`levels` maps [n, widths[i], h, w] of the trunk's output, coarsest last."""
        if levels == 1:
            return [self._as_map(self.net.forward_features(features))]
        if not hasattr(self.net, "forward_intermediates"):
            raise UserError(f"--head multi-level: {TIMM}{self.name} shows its last map only")
        return self.net.forward_intermediates(features, indices=levels, intermediates_only=True)

    def widths(self, levels: int = 1) -> list[int]:
        """Channels of the maps."""
        if levels not in self._widths:
            self._widths[levels] = self._probe(levels)
        return self._widths[levels]

    def frozen_modules(self, frozen: int) -> list[nn.Module]:
        """The modules all of whose own parameters belong to the stem or a frozen block."""
        if frozen == 0:
            return []
        group = block_of_parameter(self.net)
        modules = []
        for prefix, module in self.net.named_modules():
            own = [f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)]
            if own and all(group[name] <= frozen for name in own):
                modules.append(module)
        return modules

    def _as_map(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens and channels-last maps as [n, c, h, w]."""
        if x.ndim == 3:
            tokens = x[:, getattr(self.net, "num_prefix_tokens", 0) :].transpose(1, 2)
            return tokens.unflatten(2, (math.isqrt(tokens.shape[2]), -1))
        width = self.net.num_features
        return x if x.shape[1] == width else x.permute(0, 3, 1, 2)

    @torch.no_grad()
    def _probe(self, levels: int) -> list[int]:
        was_training = self.net.training
        self.net.eval()
        try:
            maps = self.maps(torch.zeros(1, 3, self.size, self.size), 0, levels)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"--size {self.size}: {TIMM}{self.name} cannot take images of this side "
                f"({str(error).splitlines()[0]}); try --size 128 or what it was trained on"
            ) from None
        self.net.train(was_training)
        return [x.shape[1] for x in maps]


class VanillaCNN(Backbone):
    """Convolutions of 32, 64, 128 ... channels, each with batch norm and ReLU.

    `vanilla-cnn` has four (0.4 M parameters), norm before ReLU, max pooling after each;
    `vanilla-cnn-6m` six (6.3 M), ReLU before norm, average pooling between them.
    """

    def __init__(self, name: str) -> None:
        count = CNNS[name]
        self._all_widths = [32 * 2**number for number in range(count)]
        pairs = zip((3, *self._all_widths[:-1]), self._all_widths, strict=True)
        if name == "vanilla-cnn":
            blocks = [_small_block(inner, outer) for inner, outer in pairs]
        else:
            blocks = [_large_block(inner, outer, pooled=inner != 3) for inner, outer in pairs]
        super().__init__(nn.Sequential(*blocks), IMAGENET_MEAN, IMAGENET_STD)

    def trunk(self, x: torch.Tensor, frozen: int) -> torch.Tensor:
        """Normalised [n, 3, s, s], or the output [n, c, h, w] of the last frozen block."""
        return self.net[:frozen](self.normalised(x))

    def maps(self, features: torch.Tensor, frozen: int, levels: int = 1) -> list[torch.Tensor]:
        """`levels` maps [n, widths[i], h, w] of the trunk's output, coarsest last."""
        maps = [features]
        for block in self.net[frozen:]:
            maps.append(block(maps[-1]))
        return maps[-levels:]

    def widths(self, levels: int = 1) -> list[int]:
        """Channels of the maps."""
        return self._all_widths[-levels:]

    def frozen_modules(self, frozen: int) -> list[nn.Module]:
        """The modules of the stem and the first `frozen` blocks."""
        return list(self.net[:frozen])


def _small_block(inner: int, outer: int) -> nn.Sequential:
    convolution = nn.Conv2d(inner, outer, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.ReLU(inplace=True), nn.MaxPool2d(2))


def _large_block(inner: int, outer: int, pooled: bool) -> nn.Sequential:
    """The pooling comes first, where there is one: none follows the last convolution."""
    pool = nn.AvgPool2d(2, ceil_mode=True) if pooled else nn.Identity()
    convolution = nn.Conv2d(inner, outer, 3, padding=1)
    return nn.Sequential(pool, convolution, nn.ReLU(inplace=True), nn.BatchNorm2d(outer))


def build_backbone(name: str, size: int) -> Backbone:
    """A backbone with random weights. Raises UserError for an unknown name or too small a size."""
    check_name(name)
    if name in EFFICIENTNETS:
        return LukemelasNet(name, size)
    if name in CNNS:
        return VanillaCNN(name)
    return TimmNet(timm_net(name, size), size, name.removeprefix(TIMM))


def timm_net(name: str, size: int, pretrained: bool = False) -> nn.Module:
    """timm's module of `timm:NAME`, or small-densenet, without pooling and last layer."""
    timm = _timm()
    if name == "small-densenet":  # DenseNet-121 with a shorter last block: 6.3 M parameters
        return timm.models.densenet.DenseNet(32, (6, 12, 24, 12), num_classes=0, global_pool="")
    common = {"num_classes": 0, "global_pool": "", "pretrained": pretrained}
    try:  # transformers are built for one side
        net = timm.create_model(name.removeprefix(TIMM), img_size=size, **common)
    except TypeError:
        net = timm.create_model(name.removeprefix(TIMM), **common)
    if hasattr(net, "pre_logits"):  # VGG: two wide layers that belong to the head
        net.pre_logits = nn.Identity()
    return net


def check_name(name: str) -> None:
    """Raises UserError, with what is nearest, where no backbone has this name."""
    if name in (*EFFICIENTNETS, *SCRATCH):
        return
    if not name.startswith(TIMM):
        known = ", ".join((*EFFICIENTNETS, *SCRATCH))
        raise UserError(f"--backbone {name}: unknown; choose one of {known}, or timm:NAME")
    import difflib

    model, known = name.removeprefix(TIMM), _timm().list_models()
    if model not in known and model not in _timm().list_pretrained():
        near = difflib.get_close_matches(model, known, 3) or known[:3]
        raise UserError(f"--backbone {name}: timm has no such model; near: {', '.join(near)}")


@functools.cache
def stage_sizes(name: str) -> list[int]:
    """Blocks of each stage: of an EfficientNet its seven, of others one stage of all blocks.

    Raises UserError for an unknown name.
    """
    check_name(name)
    if name in CNNS:
        return [CNNS[name]]
    if name not in EFFICIENTNETS:
        with torch.device("meta"):
            return [max(block_of_parameter(timm_net(name, 224)).values())]
    lite = name in LITE
    library = importlib.import_module(
        "efficientnet_lite_pytorch.utils" if lite else "efficientnet_pytorch.utils"
    )
    stages, scale = library.get_model_params(name, None)
    sizes = [library.round_repeats(stage.num_repeat, scale) for stage in stages]
    if lite:  # the lite family does not repeat its first and last stage more often
        sizes[0], sizes[-1] = stages[0].num_repeat, stages[-1].num_repeat
    return sizes


def splits(name: str) -> bool:
    """Whether the frozen blocks of this backbone can be run apart from the others."""
    return name in (*EFFICIENTNETS, *CNNS)


def block_count(name: str) -> int:
    """Blocks that can be frozen (b3 26, lite0 16). Raises UserError for an unknown name."""
    return sum(stage_sizes(name))


def default_frozen(name: str) -> int:
    """Five of an EfficientNet's seven stages (b3 18 of 26, lite0 11 of 16), as many of others."""
    sizes = stage_sizes(name)
    return sum(sizes[:5]) if len(sizes) == 7 else round(sum(sizes) * 18 / 26)


def multi_level_limit(name: str) -> int | None:
    """Most frozen blocks that leave the multi-level head its maps; None: any number."""
    if name in EFFICIENTNETS:
        return _taps(name)[0]
    return CNNS[name] - 2 if name in CNNS else None


def _taps(name: str) -> list[int]:
    """The blocks of an EfficientNet before which the multi-level head's other maps are taken."""
    return list(itertools.accumulate(stage_sizes(name)))[-3:-1]


def block_of_parameter(net: nn.Module) -> dict[str, int]:
    """Of each parameter of a timm model the block, from 1; 0 is the stem."""
    matcher = net.group_matcher(coarse=False)
    return _timm().models.group_parameters(net, matcher, reverse=True)


def _timm() -> Any:
    return library("timm")  # here: it takes seconds, and the EfficientNets need it not
