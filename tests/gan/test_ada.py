import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from gan.ada import COINS, DRAWS, ada, adjust

(FLIP, TURN, SHIFT, SCALE, ROTATE, STRETCH, ROTATE_AGAIN, SLIDE) = range(8)
BRIGHTNESS, CONTRAST, INVERT, HUE, SATURATION = range(8, 13)
(U_FLIP, U_TURN, U_RIGHT, U_DOWN, U_SCALE, U_ANGLE, U_STRETCH, U_ANGLE_AGAIN, U_X, U_Y) = range(10)
U_BRIGHTNESS, U_CONTRAST, U_INVERT, U_HUE, U_SATURATION = range(10, 15)
SIDE, P = 32, torch.tensor(0.5)


def images(n=4, side=SIDE):
    """Smooth, so that two ways of interpolating agree; no symmetry."""
    noise = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.from_numpy(ndimage.gaussian_filter(noise.numpy(), (0, 0, 2, 2))) * 3


def draws(coins=(), n=1, **values):
    """Draws with which p = 0.5 makes just the changes in `coins`, by the U_... `values`."""
    out = torch.full((n, DRAWS), 0.5)
    out[:, :COINS] = 0.9
    out[:, list(coins)] = 0.1
    for name, value in values.items():
        out[:, COINS + globals()[f"U_{name}"]] = value
    return out


def quantile(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_without_probability_nothing_changes():
    x = images(8)
    out = ada(x, torch.tensor(0.0), torch.rand(8, DRAWS))
    torch.testing.assert_close(out, x, atol=1e-4, rtol=0)


def test_the_neutral_middle_of_every_draw_changes_nothing():
    x = images(1)
    chosen = draws(set(range(COINS)), FLIP=0.1, TURN=0.1, INVERT=0.1)
    torch.testing.assert_close(ada(x, P, chosen), x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("turn", range(4))
def test_flips_and_quarter_turns_are_exact(turn):
    x = images(1)
    out = ada(x, P, draws([FLIP, TURN], FLIP=0.9, TURN=turn / 4 + 0.1))
    versions = [torch.rot90(x.flip(3), k, (2, 3)) for k in range(4)]
    distances = [float((out - version).abs().max()) for version in versions]
    assert min(distances) < 1e-4
    assert distances.index(min(distances)) in (turn, -turn % 4)


def test_shift_moves_whole_pixels_and_reflects_the_rim():
    x = images(1)
    out = ada(x, P, draws([SHIFT], RIGHT=0.9999, DOWN=0.0))  # 4 px each: an eighth of the side
    torch.testing.assert_close(out[..., 4:, :-4], x[..., :-4, 4:], atol=1e-4, rtol=0)
    torch.testing.assert_close(out[..., 4:, -4:], x[..., :-4, -4:].flip(3), atol=1e-4, rtol=0)


def lookup(x, matrix, slide=(0, 0)):
    """scipy's bilinear look-up about the centre; `matrix`, `slide` (px) in (x, y) order."""
    swapped = np.array(matrix)[::-1, ::-1]
    middle = np.full(2, (x.shape[-1] - 1) / 2)
    offset = middle - swapped @ middle + np.array(slide)[::-1]
    kind = {"offset": offset, "order": 1, "mode": "reflect"}
    return np.stack([ndimage.affine_transform(c, swapped, **kind) for c in x.numpy()])


@pytest.mark.parametrize("turn", [0.13, 0.5, 0.81])
def test_geometry_against_scipy(turn):
    x, angle, other = images(1), (2 * turn - 1) * math.pi, 0.3 * math.pi
    chosen = draws(
        [SCALE, ROTATE, STRETCH, ROTATE_AGAIN, SLIDE],
        SCALE=quantile(1.5),
        ANGLE=turn,
        STRETCH=quantile(-1.0),
        ANGLE_AGAIN=0.65,
        X=quantile(0.7),
        Y=quantile(-0.4),
    )

    def rotation(a):
        return np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])

    stretch = 2**-0.2
    matrix = 2**0.3 * rotation(angle) @ np.diag([stretch, 1 / stretch]) @ rotation(other)
    slide = matrix @ (np.array([0.7, -0.4]) * SIDE / 8)
    expected = lookup(x[0], matrix, slide)
    np.testing.assert_allclose(ada(x, P, chosen)[0].numpy(), expected, atol=1e-3)


def colour_reference(x, bright, contrast, invert, hue, saturation):
    """The product of the paper's five 4x4 matrices, appendix B."""
    v = np.array([1, 1, 1, 0]) / math.sqrt(3)
    luma, eye = np.outer(v, v), np.eye(4)
    shift = np.eye(4)
    shift[:3, 3] = bright
    cross = np.zeros((4, 4))
    cross[:3, :3] = np.cross(v[:3], np.eye(3)).T
    turn = math.cos(hue) * (eye - luma) + math.sin(hue) * cross + luma
    turn[3, 3] = 1
    total = luma + (eye - luma) * saturation
    total[3, 3] = 1
    total = total @ turn @ (eye - 2 * luma * invert) @ np.diag([contrast] * 3 + [1]) @ shift
    pixels = np.concatenate([x.reshape(3, -1), np.ones((1, x[0].size))])
    return (total @ pixels)[:3].reshape(x.shape)


@pytest.mark.parametrize("invert", [0, 1])
def test_colours_are_the_products_of_the_papers_matrices(invert):
    x = images(1)
    chosen = draws(
        [BRIGHTNESS, CONTRAST, INVERT, HUE, SATURATION],
        BRIGHTNESS=quantile(1.2),
        CONTRAST=quantile(-0.8),
        INVERT=invert * 0.6,
        HUE=0.7,
        SATURATION=quantile(0.6),
    )
    expected = colour_reference(x[0].numpy(), 0.24, 2**-0.4, invert, 0.4 * math.pi, 2**0.6)
    np.testing.assert_allclose(ada(x, P, chosen)[0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("coin", range(COINS))
def test_every_coin_falls_with_probability_p(coin):
    p, n = torch.tensor(0.3), 4000
    x, chosen = images(1, 8).expand(n, -1, -1, -1), draws([], n, FLIP=0.9, TURN=0.3, INVERT=0.9)
    chosen[:, COINS + 2 :][:, :8] = 0.8
    chosen[:, COINS + 10 :][:, [0, 1, 3, 4]] = 0.8
    chosen[:, coin] = torch.rand(n, generator=torch.Generator().manual_seed(1))
    changed = (ada(x, p, chosen) - x).abs().amax((1, 2, 3)) > 1e-3
    wanted = 1 - math.sqrt(0.7) if coin in (ROTATE, ROTATE_AGAIN) else 0.3
    assert changed.float().mean() == pytest.approx(wanted, abs=0.03)


def test_extreme_draws_stay_finite_and_p_one_works():
    x, one = images(2), torch.tensor(1.0)
    for value in (0.0, 1 - 2**-24):
        out = ada(x, one, torch.full((2, DRAWS), value))
        assert out.shape == x.shape
        assert torch.isfinite(out).all()


def test_the_gradient_is_that_of_a_linear_map():
    x, chosen = images(2).requires_grad_(), torch.rand(2, DRAWS)
    other, one = torch.randn(2, 3, SIDE, SIDE), torch.tensor(0.9)
    out = ada(x, one, chosen)
    (gradient,) = torch.autograd.grad(out, x, other)
    step = torch.randn_like(x)
    moved = ada(x.detach() + step, one, chosen) - out.detach()
    assert (moved * other).sum() == pytest.approx(float((gradient * step).sum()), rel=1e-3)


def test_images_are_changed_apart():
    x = images(1).expand(8, -1, -1, -1)
    chosen = torch.rand(8, DRAWS)
    out = ada(x, torch.tensor(0.8), chosen)
    assert len({image.numpy().tobytes() for image in out}) == 8
    torch.testing.assert_close(out[3:4], ada(x[:1], torch.tensor(0.8), chosen[3:4]))


def test_p_follows_the_sign_of_the_logits():
    p = torch.tensor(0.5)
    assert adjust(p, torch.tensor(0.7), 5000) == pytest.approx(0.51)
    assert adjust(p, torch.tensor(0.5), 5000) == pytest.approx(0.49)
    assert adjust(p, torch.tensor(0.6), 5000) == pytest.approx(0.5)
    assert adjust(p, torch.tensor(0.5), 5000, target=0.4, ada_kimg=50) == pytest.approx(0.6)
    for start, sign in ((0.0, -1.0), (1.0, 1.0)):
        assert adjust(torch.tensor(start), torch.tensor(sign), 64) == start
