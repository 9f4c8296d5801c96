"""Make a pool of synthetic lesions with a trained generator.

The same generator, count and seed give the same pool on the same machine, and a larger count only
adds images: image i depends on the seed and on i alone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data.pool import MARKER, write_pool
from gan.train import to_uint8
from gan.weights import WEIGHTS, load_generator
from runtime import cli, progress
from runtime.device import Compute, DeviceName, PrecisionName, resolve
from runtime.errors import UserError
from runtime.files import check_replaceable, sha256
from runtime.runs import free_name
from runtime.seeds import generator

# Always the same, the last one filled up: kernels may round otherwise at another batch size.
BATCH = 32


@dataclass(frozen=True)
class GenerateOptions:
    generator: Path  # run folder of gan.train
    count: int = 1000  # images
    seed: int = 0  # of the latents
    out: Path | None = None  # pool folder; default datasets/pool-RUN-seedS
    png: bool = False  # write the images as PNG files too
    overwrite: bool = False  # replace the pool in --out
    device: DeviceName = "auto"  # auto takes CUDA where there is one
    precision: PrecisionName = "auto"  # auto is bf16 where the hardware has it


def generate(options: GenerateOptions) -> Path:
    """Write a pool and return its folder.

    Raises UserError where the run is missing, unfinished or damaged, or `out` is taken.
    """
    if options.count < 1:
        raise UserError(f"--count {options.count}: expected 1 or more")
    network, description = load_generator(options.generator)
    stem = f"pool-{options.generator.resolve().name}-seed{options.seed}"
    out = options.out or free_name(Path("datasets"), stem)
    check_replaceable(out, MARKER, options.overwrite)
    compute = resolve(options.device, options.precision, cpu_auto="bf16")
    print(f"{options.count} images from {options.generator} on {compute}")
    images = sample(network, options.count, options.seed, compute)
    provenance = {
        "kind": "generator",
        "generator": description,
        "sha256": sha256(options.generator / WEIGHTS),
        "seed": options.seed,
    }
    write_pool(out, images, provenance, overwrite=options.overwrite, png=options.png)
    print(f"pool: {out}")
    return out


@torch.no_grad()
def sample(network: nn.Module, count: int, seed: int, compute: Compute) -> np.ndarray:
    """uint8 [count, size, size, 3], RGB, from an eval-mode generator; psi = 1 (no truncation)."""
    network = network.to(compute.device, memory_format=torch.channels_last)
    parts = []
    with progress.bar(count, "generate", "img") as bar:
        for start in range(0, count, BATCH):
            z = np.stack([_latent(network, seed, i) for i in range(start, start + BATCH)])
            with compute.autocast():
                images = network(torch.from_numpy(z).to(compute.device))
            parts.append(to_uint8(images)[: count - start])
            bar.update(len(parts[-1]))
    return np.concatenate(parts)


def _latent(network: nn.Module, seed: int, number: int) -> np.ndarray:
    rng = generator(seed, "gan/latent", number)
    return rng.standard_normal(network.latent_dim, np.float32)


if __name__ == "__main__":
    cli.run(GenerateOptions, generate, "gan.generate", __doc__ or "")
