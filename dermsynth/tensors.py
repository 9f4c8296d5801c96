"""Files of tensors: safetensors, never pickle."""

import os
import re
from pathlib import Path

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
