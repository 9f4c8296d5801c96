"""What a generator has learned, in pictures: walks, truncation, a real image found again."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field
from torch import nn

from dermsynth import progress
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.records import Record
from dermsynth.seeds import generator, seed_torch
from gan.pictures import save_grid, to_uint8
from gan.sampling import render

KIND = FOLDER = "exploration"
ROWS, COLUMNS = 6, 9  # of the galleries
TRIED, STARTS = 256, 4  # random latents that a projection looks at; the nearest that it improves
RATE = 0.03  # of the projection's Adam
NORMAL = 1e-3  # weight of staying where latents come from
LEVELS = 4  # sides at which images are compared: size, size / 2, ...


class Projection(Record):
    """`projection.json`."""

    image: str  # the file that was looked for
    distance: float = Field(ge=0)  # root mean square, in levels of 0..255


def save_galleries(
    network: nn.Module, labels: np.ndarray | None, seed: int, compute: Compute, out: Path
) -> dict[str, Path]:
    """Write interpolation.png and truncation.png to the folder `out`; their paths by name.

    Parameters
    ----------
    network : a generator in eval mode
    labels : int64 [ROWS], the classes of the rows, for a conditional generator
    seed : of the latents
    compute : where and how
    out : folder
    """
    network = network.to(compute.device, memory_format=torch.channels_last)
    pictures = {"interpolation": _walks, "truncation": _truncated}
    paths = {name: out / f"{name}.png" for name in pictures}
    for name, draw in pictures.items():
        save_grid(paths[name], draw(network, labels, seed, compute), COLUMNS)
    return paths


def read_image(path: Path, size: int) -> np.ndarray:
    """The central square of an image file: uint8 [size, size, 3], RGB. Raises UserError."""
    try:
        with Image.open(path) as image:
            return np.array(
                ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (size, size))
            )
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"--image {path}: cannot be read as an image ({error})") from None


def slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """From a to b [d] along the sphere on which normal latents lie, by a share of the way."""
    angle = math.acos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))
    if angle < 1e-4:
        return (1 - share) * a + share * b
    return (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)


def project(
    network: nn.Module,
    real: np.ndarray,
    label: int | None,
    steps: int,
    seed: int,
    compute: Compute,
) -> tuple[np.ndarray, float]:
    """The image nearest to a real one that the search finds, uint8 [s, s, 3], and how far it is.

    Adam on the content of the nearest few of many random latents; noise planes stay as drawn.
    Compares pixels at four sides, so that colour and outline count before texture. The distance is
    the root mean square over pixels and channels, in levels of 0..255.

    Parameters
    ----------
    network : a generator in eval mode, where `compute` is
    real : uint8 [s, s, 3]
    label : the class to search in, for a conditional generator
    steps : of the search
    seed : of the latents that it begins with
    compute : where and how
    """
    seed_torch(seed, "gan/projection")
    target = torch.from_numpy(real).to(compute.device).permute(2, 0, 1)[None].float() / 127.5 - 1
    content = getattr(network, "content_dim", network.latent_dim)
    noise = torch.randn(1, network.latent_dim - content, device=compute.device)

    def distances(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        full = torch.cat([z, noise.expand(len(z), -1)], 1)
        classes = None if label is None else torch.full((len(z),), label, device=z.device)
        with compute.autocast():
            made = network(full, classes)
        levels = [F.avg_pool2d(made - target, 2**i).square().mean((1, 2, 3)) for i in range(LEVELS)]
        return torch.stack(levels).mean(0), made

    tries = torch.randn(TRIED, content, device=compute.device)
    with torch.no_grad():
        tried = torch.cat([distances(part)[0] for part in tries.split(32)])
    z = tries[tried.topk(STARTS, largest=False).indices].clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=RATE)
    with progress.bar(steps, "project", "step") as bar:
        for _ in range(steps):
            loss = (distances(z)[0] + NORMAL * (z.square().mean(1) - 1).square()).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.update()
    with torch.no_grad():
        reached, made = distances(z)
    best = int(reached.argmin())
    distance = (made[best] - target[0]).square().mean().sqrt() * 127.5
    return to_uint8(made[best : best + 1])[0], float(distance)


def _walks(
    network: nn.Module, labels: np.ndarray | None, seed: int, compute: Compute
) -> np.ndarray:
    """ROWS walks of COLUMNS steps, each with noise planes of its own that do not change."""
    content = getattr(network, "content_dim", network.latent_dim)
    starts, ends = _latents(network, seed, "from"), _latents(network, seed, "to")
    z = np.repeat(starts, COLUMNS, 0)
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for column, share in enumerate(np.linspace(0, 1, COLUMNS)):
            step = slerp(start[:content], end[:content], float(share))
            z[row * COLUMNS + column, :content] = step
    repeated = None if labels is None else np.repeat(labels, COLUMNS)
    return render(network, z, compute, repeated)


def _truncated(
    network: nn.Module, labels: np.ndarray | None, seed: int, compute: Compute
) -> np.ndarray:
    z = _latents(network, seed, "truncation")
    columns = [
        render(network, z, compute, labels, float(psi)) for psi in np.linspace(0, 1, COLUMNS)
    ]
    return np.stack(columns, 1).reshape(-1, *columns[0].shape[1:])


def _latents(network: nn.Module, seed: int, purpose: str) -> np.ndarray:
    """float32 [ROWS, latent_dim]"""
    rng = generator(seed, "gan/explore", purpose)
    return rng.standard_normal((ROWS, network.latent_dim), np.float32)
