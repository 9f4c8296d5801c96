"""Tensors: their files (safetensors, never pickle), and their way to a device."""

import os
import re
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from dermsynth.errors import UserError


def parse_tensors(content: bytes, path: Path, mend: str) -> dict[str, torch.Tensor]:
    """Tensors by name, of a safetensors file.

    Raises UserError that names `path` and ends in `mend` where it is none.
    """
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: damaged, no file of tensors ({reason}); {mend}") from None


def full_disk(error: SafetensorError, path: Path) -> OSError | SafetensorError:
    """safetensors' own error for a full disk, or another of the system's, as what it stands for."""
    if found := re.search(r"os error (\d+)", str(error)):
        number = int(found[1])
        return OSError(number, os.strerror(number), str(path))
    return error


def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array on the device, as `to_device`; on a CPU it is the same memory."""
    return to_device(torch.from_numpy(np.ascontiguousarray(array)), device)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on the device, without waiting for what the device has still to do."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # a copy from pageable memory would wait its turn, and we with it
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def free_bytes(device: torch.device) -> int | None:
    """Free memory of an accelerator; None where it does not say."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
