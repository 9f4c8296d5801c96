"""Images from a generator: latents and classes by seed and number, batches side by side."""

import contextlib
import inspect
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from data.provenance import ClassRecord
from dermsynth import progress
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.seeds import generator
from gan.pictures import to_uint8

# Always the same, the last one filled up: kernels may round otherwise at another batch size.
BATCH = 16


def draw_labels(
    classes: Sequence[ClassRecord], label: str | None, count: int, seed: int
) -> np.ndarray | None:
    """Classes of `count` images, int64 [count]; None for an unconditional generator.

    `classes`: the generator's. `malignant` (the default) and `benign` draw among those of that
    target in the proportions of the training images; any other label is a class's name.
    Raises UserError for a label that the generator does not know.
    """
    label = label or "malignant"
    if not classes:
        if label == "malignant":
            return None
        raise UserError(
            f"--label {label}: this generator makes malignant images only; train one with "
            "`python -m gan.train --classes target` or `--classes diagnosis`"
        )
    names = [c.name for c in classes]
    if label in names:
        return np.full(count, names.index(label))
    wanted = {"benign": 0, "malignant": 1}.get(label)
    weights = np.array([c.count * (c.target == wanted) for c in classes], np.float64)
    if not weights.any():
        known = ", ".join(dict.fromkeys(["malignant", "benign", *names]))
        raise UserError(f"--label {label}: no class of this generator; known: {known}")
    bounds = np.cumsum(weights / weights.sum())
    draws = [generator(seed, "gan/label", number).random() for number in range(count)]
    return np.searchsorted(bounds, draws, side="right").clip(max=len(classes) - 1)


def sample(
    network: nn.Module,
    count: int,
    seed: int,
    compute: Compute,
    labels: np.ndarray | None = None,
    truncation: float = 1.0,
) -> np.ndarray:
    """uint8 [count, size, size, 3], RGB: all that `sample_batches` makes."""
    return np.concatenate(list(sample_batches(network, count, seed, compute, labels, truncation)))


def sample_batches(
    network: nn.Module,
    count: int,
    seed: int,
    compute: Compute,
    labels: np.ndarray | None = None,
    truncation: float = 1.0,
) -> Iterator[np.ndarray]:
    """Images in order, uint8 [n, size, size, 3], RGB; never more than a few batches in memory.

    Parameters
    ----------
    network : a generator in eval mode
    count : images
    seed : of the latents: image i depends on it and on i alone
    compute : where and how
    labels : int64 [count], for a conditional generator
    truncation : psi; below 1 it pulls every image towards the mean, StyleGAN2's in w, the others'
        content in z
    """
    network = network.to(compute.device, memory_format=torch.channels_last)

    def make(start: int) -> np.ndarray:
        z = np.stack([_latent(network, seed, number) for number in range(start, start + BATCH)])
        # the last batch is filled up by repetition
        part = None if labels is None else np.resize(labels[start : start + BATCH], BATCH)
        return render(network, z, compute, part, truncation)

    starts, ahead = iter(range(0, count, BATCH)), 2 * torch.get_num_threads()
    with _workers(compute) as workers, progress.bar(count, "generate", "img") as bar:
        waiting = deque(workers.submit(make, start) for start in itertools.islice(starts, ahead))
        done = 0
        while waiting:
            made = waiting.popleft().result()[: count - done]
            waiting.extend(workers.submit(make, start) for start in itertools.islice(starts, 1))
            done += len(made)
            bar.update(len(made))
            yield made


@torch.no_grad()  # XLA tensors cannot be made in inference mode
def render(
    network: nn.Module,
    z: np.ndarray,
    compute: Compute,
    labels: np.ndarray | None = None,
    truncation: float = 1.0,
) -> np.ndarray:
    """uint8 [n, size, size, 3], RGB, of given latents.

    Parameters
    ----------
    network, compute, truncation : as in `sample`
    z : float32 [n, latent_dim]
    labels : int64 [n], for a conditional generator
    """
    extra = {}
    if "truncation" in inspect.signature(network.forward).parameters:
        extra = {"truncation": truncation}
    elif truncation < 1:
        z = z.copy()
        z[:, : getattr(network, "content_dim", None)] *= truncation  # noise planes stay as they are
    classes = None if labels is None else torch.from_numpy(labels).to(compute.device)
    with compute.autocast():
        return to_uint8(network(torch.from_numpy(z).to(compute.device), classes, **extra))


def _latent(network: nn.Module, seed: int, number: int) -> np.ndarray:
    rng = generator(seed, "gan/latent", number)
    return rng.standard_normal(network.latent_dim, np.float32)


@contextlib.contextmanager
def _workers(compute: Compute) -> Iterator[ThreadPoolExecutor]:
    """On a CPU one thread a core, each with batches of its own: no waiting within a layer."""
    cores, on_cpu = torch.get_num_threads(), compute.device.type == "cpu"
    alone = {"initializer": torch.set_num_threads, "initargs": (1,)} if on_cpu else {}
    pool = ThreadPoolExecutor(cores if on_cpu else 1, **alone)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for what has not begun
        torch.set_num_threads(cores)
