"""Randomness that does not depend on history.

Every random choice is drawn from a seed derived from (run seed, purpose, step). A resumed run
therefore repeats an unbroken one without any generator state in its checkpoint.
"""

import hashlib
import sys

import numpy as np


def derive(*parts: int | str) -> int:
    """A 63-bit seed from any mix of integers and words, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator seeded by `derive(*parts)`."""
    return np.random.default_rng(derive(*parts))


def seed_torch(*parts: int | str) -> None:
    """Seed torch's default generators (CPU and accelerator): dropout, noise, augmentation."""
    import torch

    seed = derive(*parts)
    torch.manual_seed(seed)
    if (xla := sys.modules.get("torch_xla")) is not None:
        xla.manual_seed(seed)  # torch leaves XLA's generator alone
