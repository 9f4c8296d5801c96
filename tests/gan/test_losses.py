import math

import pytest
import torch
from torch import nn

from gan.losses import LOSSES, PENALTIES

SOFTPLUS_OF_1 = math.log1p(math.e)


def logits(*values):
    return [torch.tensor(head) for head in values]


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        # on real 2 and 0, on fake 1 and -2
        ("hinge", (0 + 1) / 2 + (2 + 0) / 2, 0.5),
        (
            "non-saturating",
            (math.log1p(math.exp(-2)) + math.log(2)) / 2
            + (SOFTPLUS_OF_1 + math.log1p(math.exp(-2))) / 2,
            (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2,
        ),
        ("wasserstein", -0.5 - 1, 0.5),
        (
            "relativistic",  # fake - real: -1 and -2
            (math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 2,
            (SOFTPLUS_OF_1 + math.log1p(math.exp(2))) / 2,
        ),
    ],
)
def test_losses_have_their_known_values(name, discriminator, generator):
    loss, real, fake = LOSSES[name], logits([[2.0], [0.0]]), logits([[1.0], [-2.0]])
    assert loss.discriminator(real, fake).item() == pytest.approx(discriminator)
    assert loss.generator(fake, real).item() == pytest.approx(generator)


@pytest.mark.parametrize("name", LOSSES)
def test_heads_add_up_and_count_alike_whatever_their_size(name):
    torch.manual_seed(0)
    real, fake = [torch.randn(4, 1), torch.randn(4, 1, 8, 8)], [torch.randn(4, 1) for _ in "ab"]
    fake[1] = torch.randn(4, 1, 8, 8)
    loss = LOSSES[name]
    for player, pair in ((loss.discriminator, (real, fake)), (loss.generator, (fake, real))):
        apart = [player([first], [second]) for first, second in zip(*pair, strict=True)]
        torch.testing.assert_close(player(*pair), sum(apart))


@pytest.mark.parametrize("name", LOSSES)
def test_each_player_is_drawn_the_other_way(name):
    """The discriminator lowers the logits of fakes, the generator raises them."""
    fake = torch.zeros(3, 1, requires_grad=True)
    real = torch.zeros(3, 1)
    for player, sign in (
        (LOSSES[name].discriminator([real], [fake]), 1),
        (LOSSES[name].generator([fake], [real]), -1),
    ):
        (gradient,) = torch.autograd.grad(player, fake)
        assert (gradient.sign() == sign).all()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_float32_of_bf16_logits(name):
    heads = [torch.randn(4, 1, dtype=torch.bfloat16)]
    assert LOSSES[name].discriminator(heads, heads).dtype == torch.float32
    assert LOSSES[name].generator(heads, heads).dtype == torch.float32


class Linear(nn.Module):
    """D(x) = w . x: its gradient is w everywhere."""

    def __init__(self, norm):
        super().__init__()
        w = torch.arange(1.0, 3 * 4 * 4 + 1).reshape(3, 4, 4)
        self.w = nn.Parameter(w / w.norm() * norm)

    def forward(self, x):
        return [(x * self.w).sum((1, 2, 3))[:, None]]


@pytest.mark.parametrize(("name", "expected"), [("gp", 4.0), ("r1", 4.5), ("r1r2", 9.0)])
def test_penalties_of_a_linear_critic_of_norm_3(name, expected):
    critic, images = Linear(3.0), torch.randn(2, 5, 3, 4, 4)
    penalty = PENALTIES[name](critic, *images)
    assert penalty.item() == pytest.approx(expected, rel=1e-5)
    (slope,) = torch.autograd.grad(penalty, critic.w)
    # along w: d/dn of (n - 1)^2, n^2 / 2, n^2 at n = 3
    along = (slope * critic.w / 3.0).sum().item()
    assert along == pytest.approx({"gp": 4.0, "r1": 3.0, "r1r2": 6.0}[name], rel=1e-4)


def bowl(x):
    """D(x) = |x|^2 / 2 an image: its gradient at x is x."""
    return [(x.square().sum((1, 2, 3)) / 2)[:, None]]


def test_r1_looks_at_reals_and_r2_at_fakes():
    real, fake = torch.full((4, 3, 2, 2), 1.0), torch.full((4, 3, 2, 2), 2.0)
    assert PENALTIES["r1"](bowl, real, fake).item() == pytest.approx(12 / 2)
    assert PENALTIES["r1r2"](bowl, real, fake).item() == pytest.approx(12 / 2 + 48 / 2)


def test_the_gradient_penalty_looks_between_real_and_fake():
    seen = []

    def watching(x):
        seen.append(x.detach())
        return bowl(x)

    torch.manual_seed(0)
    real, fake = torch.zeros(64, 3, 2, 2), torch.ones(64, 3, 2, 2)
    penalty = PENALTIES["gp"](watching, real, fake)
    between = seen[0][:, 0, 0, 0]
    assert 0 <= between.min() < 0.1
    assert 0.9 < between.max() <= 1
    assert between.unique().numel() == 64  # each image at a place of its own
    torch.testing.assert_close(penalty, (between * math.sqrt(12) - 1).square().mean())


def test_the_gradient_of_a_penalty_is_that_of_finite_differences():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Conv2d(4, 1, 2)).double()
    images = torch.randn(2, 3, 3, 4, 4, dtype=torch.double)
    weight = critic[0].weight

    def penalty():
        # float32 inside, so differences are taken of a wide step
        return PENALTIES["r1"](lambda x: [critic(x.double())], *images)

    (slope,) = torch.autograd.grad(penalty(), weight)
    step = 1e-2
    with torch.no_grad():
        weight[1, 2, 0, 1] += step
    after = penalty().item()
    with torch.no_grad():
        weight[1, 2, 0, 1] -= 2 * step
    before = penalty().item()
    assert slope[1, 2, 0, 1].item() == pytest.approx((after - before) / (2 * step), rel=1e-2)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_flat_critic_gives_finite_gradients(name):
    w = torch.zeros(3, 4, 4, requires_grad=True)
    penalty = PENALTIES[name](
        lambda x: [(x * w).sum((1, 2, 3))[:, None]], *torch.randn(2, 5, 3, 4, 4)
    )
    (slope,) = torch.autograd.grad(penalty, w)
    assert torch.isfinite(slope).all()


def test_patches_count_by_their_mean():
    images = torch.randn(2, 5, 3, 4, 4)
    one = PENALTIES["r1"](bowl, *images)
    same = PENALTIES["r1"](lambda x: [bowl(x)[0][:, :, None, None].expand(-1, 1, 3, 3)], *images)
    torch.testing.assert_close(one, same)
