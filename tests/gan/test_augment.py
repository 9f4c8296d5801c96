import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan.augment import DRAWS, diff_augment, translate

# draws that change nothing: no brightness, saturation and contrast 1, no shift; the cut-out square
# cannot be drawn away, so it lies in a corner
STILL = [0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0]


def images(n=4, side=32):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_neutral_draws_leave_all_but_the_cut_corner():
    x = images()
    out = diff_augment(x, torch.tensor([STILL] * 4))
    torch.testing.assert_close(out[:, :, 8:], x[:, :, 8:])
    torch.testing.assert_close(out[:, :, :, 8:], x[:, :, :, 8:])
    assert (out[:, :, :8, :8] == 0).all()


def test_the_same_draws_change_real_and_fake_the_same_way():
    x, draws = images(2), torch.rand(1, DRAWS).expand(2, -1)
    one, other = diff_augment(x, draws), diff_augment(x.flip(0), draws)
    torch.testing.assert_close(one, other.flip(0))


@given(st.lists(st.floats(0, 0.999), min_size=DRAWS, max_size=DRAWS))
def test_range_and_shape(values):
    out = diff_augment(images(1), torch.tensor([values]))
    assert out.shape == (1, 3, 32, 32)
    assert torch.isfinite(out).all()
    assert out.abs().max() <= 4.5  # (1 + 0.5) x saturation 2 x contrast 1.5


@pytest.mark.parametrize(("draw", "shift"), [(0.0, -4), (0.5, 0), (0.999, 4)])
def test_translation_moves_whole_pixels_and_repeats_the_rim(draw, shift):
    x, draws = images(1), torch.tensor([STILL])
    draws[0, 3] = draw
    out = diff_augment(x, draws)[:, :, 12:20, 12:]  # away from the cut and the rim
    torch.testing.assert_close(out, x[:, :, 12 - shift : 20 - shift, 12:])
    rim = diff_augment(x, draws)[0, :, :5, 12:]
    if shift > 0:
        torch.testing.assert_close(rim, x[0, :, :1, 12:].expand_as(rim))


def test_cutout_takes_at_most_a_quarter():
    draws = torch.tensor([STILL]).repeat(2, 1)
    draws[0, 5:] = 0.5
    out = diff_augment(torch.ones(2, 3, 32, 32), draws)
    assert (out[0, 0] == 0).float().mean() == 0.25
    assert (out[1, 0] == 0).float().mean() == 0.25 / 4


def test_gradient_reaches_the_pixels_that_are_seen_and_no_others():
    x = images(1).requires_grad_()
    diff_augment(x, torch.tensor([STILL])).sum().backward()
    assert (x.grad[..., 8:, 8:] > 0).all()


def test_draws_differ_from_image_to_image():
    x = images(1).expand(8, -1, -1, -1)
    out = diff_augment(x, torch.rand(8, DRAWS))
    assert len({image.numpy().tobytes() for image in out}) == 8


def test_translation_alone_shifts_by_whole_pixels_and_repeats_the_rim():
    x = images(1)
    torch.testing.assert_close(translate(x, torch.tensor([[0.5, 0.5]])), x)
    reach = round(x.shape[-1] * 0.125)
    out = translate(x, torch.tensor([[0.0, 0.999]]))  # up and right as far as it goes
    torch.testing.assert_close(out[:, :, :-reach, reach:], x[:, :, reach:, :-reach])
    assert torch.equal(
        out[:, :, :, :reach], out[:, :, :, reach : reach + 1].expand_as(out[:, :, :, :reach])
    )
