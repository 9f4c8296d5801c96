import sys
import types
from pathlib import Path

import pytest
import torch

from benchmarks.speed import authors
from dermsynth.errors import UserError

SHARED = "import numpy\nNAME = {!r}\n"


def checkout(folder: Path, name: str) -> Path:
    """A folder with a module `training.loss`, as both of theirs have one."""
    place = folder / name / "training"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("")
    (place / "loss.py").write_text(SHARED.format(name))
    return folder / name


def test_a_checkout_that_is_missing_is_named_with_the_way_to_get_it(tmp_path):
    checkout(tmp_path, authors.ADA)
    with pytest.raises(UserError, match=r"git clone https://github.com/\w+/projected-gan"):
        authors.check(tmp_path)
    checkout(tmp_path, authors.PROJECTED)
    authors.check(tmp_path)


def test_modules_of_one_name_in_two_checkouts_are_kept_apart(tmp_path):
    found = []
    for name in authors.OWNERS:
        with authors.importing(checkout(tmp_path, name)):
            from training import loss  # type: ignore[import-not-found]

            found.append(loss.NAME)
    assert found == list(authors.OWNERS)
    assert "training" not in sys.modules
    assert not any(str(tmp_path) in entry for entry in sys.path)


def test_the_mended_grid_sample_can_be_differentiated_twice():
    # as in their file, whose backward asks for an operator's form of torch 1.9
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images, grid):
            ctx.save_for_backward(images, grid)
            return torch.nn.functional.grid_sample(images, grid, align_corners=False)

        @staticmethod
        def backward(ctx, grad):
            return module._GridSample2dBackward.apply(grad, *ctx.saved_tensors)

    module = types.SimpleNamespace(_GridSample2dForward=Forward)
    authors._mend_grid_sample(module)
    grid = torch.rand(1, 4, 4, 2, dtype=torch.double) * 1.6 - 0.8
    images = torch.rand(1, 1, 5, 5, dtype=torch.double, requires_grad=True)
    # its square: or the second derivative would be zero
    assert torch.autograd.gradgradcheck(lambda x: Forward.apply(x, grid).square(), images)
    assert module._should_use_custom_op()
