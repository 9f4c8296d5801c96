"""Checkpoints: one safetensors file, replaced atomically, with the one before it kept.

A state is a nested dict or list of tensors and JSON values, optimizer `state_dict()`s included.
Tensors go into the file as they are; the rest goes into its header as JSON. The header holds a
SHA-256 of both. Whoever saves has the folder, or the one that it is in, locked.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from dermsynth.errors import UserError
from dermsynth.files import read_bytes
from dermsynth.tensors import full_disk, parse_tensors

NEWEST, PREVIOUS = "newest.safetensors", "previous.safetensors"
MOST_BYTES = 16 * 2**30
MEND = "start anew with --overwrite"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the newest checkpoint in `folder`; the newest so far becomes the previous.

    A kill at any moment leaves at least one whole checkpoint; what a killed process left half
    written is removed. Raises OSError where it cannot be written: the newest stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.partial"):
        left.unlink()
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_take_tensors(state, "", tensors))
    temporary = folder / f".{os.getpid()}.partial"
    try:
        save_file(tensors, temporary, metadata={"state": text, "sha256": _sha256(text, tensors)})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if (folder / NEWEST).exists():
            os.replace(folder / NEWEST, folder / PREVIOUS)
        os.replace(temporary, folder / NEWEST)
    except SafetensorError as error:
        raise full_disk(error, folder) from None
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
        except UserError as error:
            print(f"warning: {error}")
    if paths:
        raise UserError(f"{folder}: every checkpoint in it is damaged; {MEND}")
    return None


def _read(path: Path) -> dict[str, Any]:
    """Raises UserError where it is damaged."""
    instead = "the checkpoint before it is used where there is one"
    content = read_bytes(path, MOST_BYTES, instead)
    tensors = parse_tensors(content, path, instead)
    length = int.from_bytes(content[:8], "little")  # of the header, as the format has it
    header = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    text = header.get("state", "")
    if header.get("sha256") != _sha256(text, tensors):
        raise UserError(f"{path}: damaged, its SHA-256 is not the one in its header; {instead}")
    return _put_tensors(json.loads(text), tensors)


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


def _sha256(text: str, tensors: dict[str, torch.Tensor]) -> str:
    """Of all that a state is made from: its JSON; names, types, shapes and bytes of its tensors."""
    whole = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        whole.update(content)
    return whole.hexdigest()
