"""Operators that torch_xla lacks, as products of others.

Without these, torch_xla computes them on the CPU: it compiles and runs what was queued so far,
brings the result to the host and back, in the middle of every step.
"""

import functools
import math
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
        library.impl("exp2", exp2, "XLA")
        library.impl("special_ndtri", normal_quantile, "XLA")
        for key in ("XLA", "AutogradXLA"):  # a composite's gradient is that of its parts
            library.impl("grid_sampler", grid_sampler, key)
    return library


def _vdot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Spectral norm's, of real numbers: float [n], float [n] -> float []."""
    return (a * b).sum()


def exp2(x: torch.Tensor) -> torch.Tensor:
    """2 to the power of each number, any shape."""
    return (x * math.log(2)).exp()


def normal_quantile(u: torch.Tensor) -> torch.Tensor:
    """`torch.special.ndtri`, float32: right to 1e-4 where 1e-4 < u < 1 - 1e-4, to 1e-2 at 1e-6."""
    return math.sqrt(2) * torch.erfinv(2 * u - 1)


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


def grid_sampler(
    images: torch.Tensor, grid: torch.Tensor, mode: int, rim: int, align_corners: bool
) -> torch.Tensor:
    """`F.grid_sample`, bilinear: float [n, c, h, w], places [n, s, t, 2] (x, y) -> [n, c, s, t].

    `mode` and `rim` are torch's numbers: 0 bilinear; 0 zeros, 1 border, 2 reflection. Each pixel is
    the sum of its four neighbours, looked up as rows of one table.
    """
    if mode != 0 or images.ndim != 4:
        raise NotImplementedError("grid_sample by way of XLA: bilinear, of 2-dimensional images")
    n, channels, height, width = images.shape
    x, y = (
        _inside(place, side, rim, align_corners)
        for place, side in zip(grid.unbind(-1), (width, height), strict=True)
    )
    left, top = x.floor(), y.floor()
    table = images.permute(0, 2, 3, 1).reshape(-1, channels)
    begin = torch.arange(n, device=images.device).view(n, 1, 1) * (height * width)
    total = torch.zeros((), dtype=images.dtype, device=images.device)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        share = (1 - (x - column).abs()) * (1 - (y - row).abs())
        seen = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        at = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        pixels = table.index_select(0, (begin + at).flatten()).view(*at.shape, channels)
        total = total + pixels * torch.where(seen, share, 0).to(images.dtype)[..., None]
    return total.permute(0, 3, 1, 2)


def _inside(place: torch.Tensor, side: int, rim: int, align_corners: bool) -> torch.Tensor:
    """Places in -1..1 as pixels of a side; what lies outside is brought in as `rim` says."""
    pixels = (place + 1) * ((side - 1) / 2 if align_corners else side / 2)
    if not align_corners:
        pixels = pixels - 0.5
    if rim == 2:
        low, span = (0.0, side - 1) if align_corners else (-0.5, side)
        away = (pixels - low).abs()
        turns = (away / max(span, 1)).floor()  # of a side of 1 px all is cut below
        rest = away - turns * span
        pixels = torch.where(turns % 2 == 0, rest, span - rest) + low
    return pixels if rim == 0 else pixels.clamp(0, side - 1)


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
