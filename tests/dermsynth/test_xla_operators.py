"""What stands in for operators that torch_xla lacks, against torch's own."""

import math

import pytest
import torch
import torch.nn.functional as F

from dermsynth.xla_operators import exp2, grid_sampler, normal_quantile

RIMS = ("zeros", "border", "reflection")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("rim", RIMS)
@pytest.mark.parametrize("sides", [(8, 8), (5, 9), (1, 4)])
def test_pixels_are_looked_up_as_by_torch(sides, rim, align_corners):
    results = []
    for own in (False, True):
        rng = torch.Generator().manual_seed(0)
        images = torch.randn(3, 2, *sides, generator=rng).requires_grad_()
        grid = (4 * torch.rand(3, 6, 7, 2, generator=rng) - 2).requires_grad_()
        if own:
            seen = grid_sampler(images, grid, 0, RIMS.index(rim), align_corners)
        else:
            seen = F.grid_sample(images, grid, "bilinear", rim, align_corners)
        (seen * torch.linspace(-1, 1, seen.numel()).view_as(seen)).sum().backward()
        results.append((seen, images.grad, grid.grad))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_image_that_stays_is_itself():
    images = torch.rand(2, 3, 16, 16)
    grid = F.affine_grid(torch.eye(2, 3).expand(2, 2, 3), list(images.shape), False)
    torch.testing.assert_close(grid_sampler(images, grid, 0, 2, False), images)


def test_other_ways_to_look_up_are_refused():
    with pytest.raises(NotImplementedError, match="bilinear"):
        grid_sampler(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2), 1, 0, False)


def test_powers_and_quantiles():
    x = torch.linspace(-8, 8, 101)
    torch.testing.assert_close(exp2(x), torch.exp2(x), rtol=1e-5, atol=0)
    for least, error in ((1e-6, 1e-2), (1e-4, 1e-4)):
        u = torch.logspace(math.log10(least), math.log10(0.5), 200).clamp(max=0.5)
        for each in (u, 1 - u):
            torch.testing.assert_close(
                normal_quantile(each), torch.special.ndtri(each), rtol=0, atol=error
            )
