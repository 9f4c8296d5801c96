"""Operators that torch_xla lacks, as products of others.

Without these, torch_xla computes them on the CPU: it compiles and runs what was queued so far,
brings the result to the host and back, in the middle of every step.
"""

import functools
import warnings

import numpy as np
import torch


@functools.cache
def register() -> object:
    """Once a process; returns what must stay alive, for a torch.library takes its kernels along."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")
        library.impl("vdot", _vdot, "XLA")
        library.impl("upsample_bilinear2d_backward", _bilinear_backward, "XLA")
    return library


def _vdot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Spectral norm's, of real numbers: float [n], float [n] -> float []."""
    return (a * b).sum()


def _bilinear_backward(
    gradient: torch.Tensor,
    output_size: list[int],
    input_size: list[int],
    align_corners: bool,
    scale_height: float | None = None,
    scale_width: float | None = None,
) -> torch.Tensor:
    """Of `F.interpolate(x, mode="bilinear")`: float [n, c, *output_size] -> input_size.

    torch_xla has it on TPUs only. Two products with the weights of either side are its equal.
    """
    rows, columns = (
        torch.from_numpy(_weights(inner, outer, align_corners, scale)).to(gradient)
        for inner, outer, scale in (
            (input_size[2], output_size[0], scale_height),
            (input_size[3], output_size[1], scale_width),
        )
    )
    return rows.T @ gradient @ columns


@functools.lru_cache(maxsize=64)
def _weights(inner: int, outer: int, align_corners: bool, scale: float | None) -> np.ndarray:
    """How much each of `inner` places counts for each of `outer`: float32 [outer, inner]."""
    places = np.arange(outer)
    if align_corners:
        source = places * ((inner - 1) / (outer - 1) if outer > 1 else 0.0)
    else:
        source = np.maximum((places + 0.5) * (1 / scale if scale else inner / outer) - 0.5, 0)
    below = np.minimum(source.astype(int), inner - 1)
    above, share = np.minimum(below + 1, inner - 1), source - below
    weights = np.zeros((outer, inner), np.float32)
    np.add.at(weights, (places, below), 1 - share)
    np.add.at(weights, (places, above), share)
    return weights
