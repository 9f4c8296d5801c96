"""Where a backbone's first weights come from: `--weights imagenet | none | FILE`."""

import contextlib
import io
import os
import pickle
import re
import socket
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch
from efficientnet_pytorch.utils import url_map

from classifier.model.backbones import LITE, SCRATCH, TIMM, Backbone, timm_net
from dermsynth.efficientnet_lite import weights_file
from dermsynth.errors import UserError, some
from dermsynth.files import read_bytes, sha256
from dermsynth.manifest import MOST_BYTES, Input, as_input, identify
from dermsynth.tensors import parse_tensors

PATIENCE = 20  # seconds that a server may stay silent before we give up
UNUSED = 0.1  # share of a file's tensors that may have no place here: other last layers
MEND = "give another file"
OURS = "backbone.net."  # how a backbone's tensors are named in the model.safetensors of a run


def weights_input(weights: str) -> Input | None:
    """The file of `--weights FILE`, by its content; None of the other choices.

    Raises UserError where there is no such file.
    """
    if weights in ("imagenet", "none"):
        return None
    path = Path(weights)
    _check_file(path)
    return as_input(identify("weights", {"file": sha256(path)}, {}), path)


def load_weights(backbone: Backbone, name: str, weights: str, size: int, instead: str = "") -> str:
    """Fill `backbone.net` in place and say in words with what, and what of it did not fit.

    Raises UserError where the weights cannot be had, are damaged, or belong to another backbone.
    `instead` is a command that does without those that cannot be had, for its message.
    """
    if weights == "none":
        return "random weights"
    if weights != "imagenet":
        return weights + _fill(backbone, name, _read(Path(weights)), f"--weights {weights}")
    if name in SCRATCH:
        raise UserError(
            f"--weights imagenet: there are none for {name}; use --weights none or FILE"
        )
    if name.startswith(TIMM):
        return _from_timm(backbone, name, size, instead)
    if name in LITE:
        path = weights_file(name)
        unused = _fill(backbone, name, _read(path), str(path))
        return f"ImageNet weights that ship with {path.parent.parent.name}{unused}"
    path = downloaded_weights(name, instead)
    try:
        _check_hash(path)
        unused = _fill(backbone, name, _read(path), str(path))
    except UserError as error:
        path.unlink()  # or the damaged file would be found again next time
        raise UserError(f"{error}; removed it: run again to download it anew") from None
    return f"ImageNet weights in {path}{unused}"


def downloaded_weights(backbone: str, instead: str = "") -> Path:
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
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"--weights imagenet: the weights of {backbone} could not be downloaded ({reason}).\n"
            f"{_ways_out(instead, url)}"
        ) from None
    return path


def _check_hash(path: Path) -> None:
    """Torch's convention: NAME-HASH.pth, the first digits of the file's SHA-256."""
    if not (named := re.search(r"-([0-9a-f]{8,})\.pth$", path.name)):
        return
    digest = sha256(path)
    if not digest.startswith(named[1]):
        raise UserError(f"{path}: damaged or cut off (its SHA-256 begins with {digest[:8]})")


def _from_timm(backbone: Backbone, name: str, size: int, instead: str) -> str:
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(PATIENCE))
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(PATIENCE))
    try:  # what goes wrong on the way has a dozen types: of timm, the hub, its client, the socket
        state = timm_net(name, size, pretrained=True).state_dict()
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"--weights imagenet: those of {name} could not be had ({reason}).\n"
            f"{_ways_out(instead)}"
        ) from None
    return f"timm's pretrained weights of {name}{_fill(backbone, name, state, name)}"


def _ways_out(instead: str, url: str = "") -> str:
    fetch = f"fetch {url} elsewhere and" if url else "fetch them elsewhere and"
    command = f": {instead}" if instead else ""
    return (
        f"Ways out: {fetch} give --weights FILE; --weights none to start from random weights; "
        f"or efficientnet-lite0, whose ImageNet weights are installed already{command}"
    )


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """torch.hub opens its connection without a timeout: a silent network would hang for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"--weights {path}: no such file; expected imagenet, none, or a .safetensors or .pth "
            "file of an EfficientNet"
        )


def _read(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors or .pth. Raises UserError naming the file."""
    _check_file(path)
    content = read_bytes(path, MOST_BYTES, MEND)
    if path.suffix == ".safetensors":
        return parse_tensors(content, path, MEND)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: damaged, or holds more than tensors, which is not read: expected a state dict"
        ) from None
    except Exception as error:  # a damaged pickle can end in any of Python's errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: damaged or cut off ({reason}); {MEND}") from None
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise UserError(f"{path}: expected a state dict, name: tensor")
    return {str(name): value for name, value in state.items()}


def _fill(backbone: Backbone, name: str, state: dict[str, torch.Tensor], source: str) -> str:
    """Load by names; what of the file found no place, in words."""
    own = backbone.net.state_dict()
    ours = any(key.startswith(OURS) for key in state)
    given = {key.removeprefix(OURS) if ours else key: value for key, value in state.items()}
    heads = ("head.",) if ours else backbone.head_names
    missing = sorted(own.keys() - given.keys())
    unused = sorted(given.keys() - own.keys())
    foreign = [key for key in unused if not key.startswith(heads)]
    if missing or len(foreign) > UNUSED * len(given):
        lines = [f"lacks {some(missing, 3)}"] if missing else []
        lines += [f"has unknown {some(foreign, 3)}"] if foreign else []
        raise UserError(f"{source}: not weights of {name}: {', '.join(lines)}")
    if other := [key for key in own if own[key].shape != given[key].shape]:
        raise UserError(
            f"{source}: not weights of {name}: {other[0]} is {list(given[other[0]].shape)}, "
            f"expected {list(own[other[0]].shape)}"
        )
    backbone.net.load_state_dict({key: given[key] for key in own})
    return f"; not used of it: {some(unused, 3)}" if unused else ""
