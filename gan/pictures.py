"""From tensors to pictures, and grids of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """float [n, 3, s, s] in -1..1 -> uint8 [n, s, s, 3], rounded to the nearest."""
    levels = images.float().mul(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def save_grid(path: Path, images: np.ndarray, columns: int) -> None:
    """Write uint8 [n, s, s, 3] as one PNG; what the last row lacks is black."""
    missing = -len(images) % columns
    filled = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
    rows = filled.reshape(-1, columns, *images.shape[1:])
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(list(np.concatenate(list(rows.swapaxes(0, 1)), 2)))).save(path)
