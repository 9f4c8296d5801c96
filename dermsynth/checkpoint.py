"""Checkpoints: one safetensors file, replaced atomically, with the one before it kept.

A state is a nested dict or list of tensors and JSON values, optimizer `state_dict()`s included.
Tensors go into the file as they are; the rest goes into its header as JSON.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dermsynth.errors import UserError

NEWEST, PREVIOUS = "newest.safetensors", "previous.safetensors"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the newest checkpoint in `folder`; the newest so far becomes the previous.

    A kill at any moment leaves at least one whole checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _take_tensors(state, "", tensors)
    header = {"state": json.dumps(skeleton), "crc32": str(_crc32(tensors))}
    temporary = folder / f".{os.getpid()}.partial"
    try:
        save_file(tensors, temporary, metadata=header)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if (folder / NEWEST).exists():
            os.replace(folder / NEWEST, folder / PREVIOUS)
        os.replace(temporary, folder / NEWEST)
    finally:
        temporary.unlink(missing_ok=True)


def load(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint, on the CPU; None where there is none yet.

    A damaged newest one is reported on the screen and the previous one used. Raises UserError
    where both are damaged.
    """
    paths = [folder / name for name in (NEWEST, PREVIOUS) if (folder / name).exists()]
    for path in paths:
        try:
            return _read(path)
        except (SafetensorError, ValueError, KeyError, OSError) as error:
            print(f"warning: {path} is damaged ({error}); trying the one before it")
    if paths:
        raise UserError(f"{folder}: every checkpoint in it is damaged; start anew with --overwrite")
    return None


def _read(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = file.metadata()
    if str(_crc32(tensors)) != header["crc32"]:
        raise ValueError("its checksum does not match")
    return _put_tensors(json.loads(header["state"]), tensors)


def _take_tensors(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        # clone: safetensors refuses tensors that share memory, and strides are not kept
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        # pairs, because JSON would turn an optimizer's integer keys into strings
        items = [
            (key, _take_tensors(item, f"{name}/{key}", tensors)) for key, item in value.items()
        ]
        return {"dict": items}
    if isinstance(value, list | tuple):
        return {
            "list": [_take_tensors(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
        }
    return {"value": value}


def _put_tensors(skeleton: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _put_tensors(item, tensors) for key, item in content}
    if kind == "list":
        return [_put_tensors(item, tensors) for item in content]
    return content


def _crc32(tensors: dict[str, torch.Tensor]) -> int:
    crc = 0
    for name in sorted(tensors):
        content: Any = tensors[name].reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(content, crc)
    return crc
