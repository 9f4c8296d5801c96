"""Styles of features: whose they become, what they leave, and that gradients pass by."""

import numpy as np
import pytest
import torch

from classifier.options import TrainOptions
from classifier.training.mixstyle import Styles, draw_styles, mix_styles
from classifier.training.setup import settle
from dermsynth.distributed import Processes
from dermsynth.errors import UserError
from dermsynth.options import replace

ALONE, CPU = Processes(), torch.device("cpu")


@pytest.fixture
def features():
    return torch.randn(4, 5, 6, 6) * torch.arange(1, 5).view(4, 1, 1, 1) + 3


def test_an_image_gets_the_style_of_its_partner_and_keeps_its_content(features):
    partner, own = torch.tensor([1, 0, 3, 2]), torch.tensor([0.0, 1.0, 0.5, 0.0])
    mixed = mix_styles(features, Styles(partner, own), ALONE)
    torch.testing.assert_close(mixed[1], features[1], rtol=1e-4, atol=1e-4)
    deviation, mean = torch.std_mean(mixed, (2, 3), correction=0)
    before, middle = torch.std_mean(features, (2, 3), correction=0)
    torch.testing.assert_close(deviation[0], before[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean[2], (middle[2] + middle[3]) / 2, rtol=1e-4, atol=1e-4)

    def content(x):
        return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)

    torch.testing.assert_close(content(mixed), content(features), rtol=1e-3, atol=1e-3)


def test_as_many_get_another_style_as_is_asked_for():
    rng = np.random.default_rng(0)
    styles = draw_styles(rng, 4000, 0.5, slice(0, 4000), CPU)
    assert (styles.own < 1).float().mean().item() == pytest.approx(0.45, abs=0.05)  # Beta gives 1s
    assert sorted(styles.partner.tolist()) == list(range(4000))
    none = draw_styles(rng, 8, 0.0, slice(4, 8), CPU)
    assert none.own.tolist() == [1.0] * 4


def test_gradients_take_styles_as_given(features):
    x = features.requires_grad_()
    styles = Styles(torch.tensor([1, 2, 3, 0]), torch.zeros(4))
    mix_styles(x, styles, ALONE)[0].sum().backward()
    assert x.grad[1].abs().max() == 0
    # of a sum of one image's features: its new deviation over its own, for every pixel alike
    assert x.grad[0, 0].std() < 1e-6 < x.grad[0, 0].abs().min()


def test_styles_need_frozen_blocks():
    whole = replace(TrainOptions(), backbone="vanilla-cnn", frozen=0, mixstyle=0.5)
    with pytest.raises(UserError, match=r"--mixstyle 0.5: has an effect with frozen blocks"):
        settle(whole)
    settle(replace(whole, frozen=1))
