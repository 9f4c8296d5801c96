"""Files of tensors: safetensors, never pickle."""

import errno
import os
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
    """safetensors' own error for a full disk as the system's, which every command understands."""
    if "os error 28" in str(error) or "No space left" in str(error):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return error
