"""albumentations pipelines, CutMix, MixUp, averages over steps and over views."""

import numpy as np
import pytest
import torch
from torch import nn

from classifier.augment import Views, draw_views, load_batch
from classifier.model.classifier import Classifier, ModelSpec
from classifier.options import AugmentationOptions
from classifier.targets import BINARY
from classifier.training.ema import WeightAverage
from classifier.training.mixup import mix_batch
from classifier.tta import _views, check_tta, probabilities, view_count
from dermsynth.device import resolve
from dermsynth.errors import UserError

PIPELINES = (
    *("mirror", "flips", "rotate", "rotate-flips", "student"),
    *("siim", "siim-b3", "siim-b6", "strong-colour"),
)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def drawn(name, n=6, seed=0):
    return draw_views(np.random.default_rng(seed), n, name)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_view_depends_on_its_seed_alone(name, images):
    views = drawn(name)
    whole = load_batch(images, 32, views)
    assert whole.shape == (6, 3, 32, 32)
    assert 0 <= whole.min() <= whole.max() <= 1
    back = np.array([4, 1])
    assert torch.equal(whole[back], load_batch(images[back], 32, views.take(back)))
    assert torch.equal(whole, load_batch(images, 32, drawn(name)))
    many = np.repeat(images[:1], 40, 0)
    assert len({x.numpy().tobytes() for x in load_batch(many, 32, drawn(name, 40))}) > 1


def test_mirror_and_flips_are_exact(images):
    for name, ways in {"mirror": [(), (3,)], "flips": [(), (2,), (3,), (2, 3)]}.items():
        plain = load_batch(images, 32, None)
        seen = set()
        for seed in range(8):
            for before, after in zip(
                plain, load_batch(images, 32, drawn(name, 6, seed)), strict=True
            ):
                matches = [
                    way
                    for way in ways
                    if torch.equal(after, before.flip([d - 1 for d in way]) if way else before)
                ]
                assert matches, name
                seen.add(matches[0])
        assert seen == set(ways)


def mixed_batch(x, targets, rng, **shares):
    return mix_batch(x, targets, rng, AugmentationOptions(**shares))


def test_none_changes_nothing(images):
    assert drawn("none") is None


def test_cutmix_takes_a_rectangle_and_its_share_of_the_label():
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 16, 16)
    targets = torch.eye(4)
    shares = []
    for seed in range(200):
        mixed, soft = mix_batch(
            x, targets, np.random.default_rng(seed), AugmentationOptions(cutmix=1.0, mixup=0.0)
        )
        for number in range(4):
            values, counts = torch.unique(mixed[number, 0], return_counts=True)
            expected = torch.zeros(4)
            expected[values.long()] = counts / 256
            torch.testing.assert_close(soft[number], expected)
            shares.append(soft[number, number].item())
    assert min(shares) < 0.3
    assert 0.55 < np.mean(shares) < 0.85
    assert torch.equal(x[:, 0, 0, 0], torch.arange(4.0))  # the batch itself is left alone


def test_mixup_blends_images_and_labels_alike():
    x, targets = torch.rand(5, 3, 8, 8), torch.eye(5)
    mixed, soft = mix_batch(
        x, targets, np.random.default_rng(1), AugmentationOptions(cutmix=0.0, mixup=1.0)
    )
    torch.testing.assert_close(mixed, torch.einsum("ij,jchw->ichw", soft, x))
    torch.testing.assert_close(soft.sum(1), torch.ones(5))
    assert not torch.equal(soft, targets)


def test_images_are_mixed_as_often_as_asked():
    x, targets = torch.rand(4, 3, 8, 8), torch.eye(4)
    options, kinds = AugmentationOptions(cutmix=0.3, mixup=0.2), []
    for seed in range(600):
        mixed, _ = mix_batch(x, targets, np.random.default_rng(seed), options)
        kept = (
            (mixed == x).flatten(1).float().mean(1)
        )  # 0: by MixUp; between: by CutMix; 1: as it was
        kinds += kept.tolist()
    kinds = np.array(kinds)
    assert 0.11 < np.mean(kinds == 0) < 0.25  # 0.2, less those with themselves, and whole boxes
    assert 0.17 < np.mean((kinds > 0) & (kinds < 1)) < 0.3  # 0.3, less those with themselves


def test_cutmix_draws_an_own_box_and_partner_for_each_image():
    x = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 3, 32, 32)
    options = AugmentationOptions(cutmix=0.5, mixup=0.0)
    mixed, soft = mix_batch(x, torch.eye(64), np.random.default_rng(0), options)
    changed = (mixed != x)[:, 0]
    assert 15 < changed.flatten(1).any(1).sum() < 45
    boxes = {tuple(map(int, box.nonzero().flatten()[[0, -1]])) for box in changed if box.any()}
    assert len(boxes) > 10
    partners = [row.unique()[-1].item() for row in mixed[changed.flatten(1).any(1)].flatten(1)]
    assert len(set(partners)) > 10
    torch.testing.assert_close(soft.diagonal(), 1 - changed.flatten(1).float().mean(1))


def spots(name, at, n=250, side=257):
    """Where a white spot on grey, `at` (x, y) from the centre in shares of the side, comes to."""
    images = np.full((n, side, side, 3), 90, np.uint8)
    x, y = (side // 2 + round(side * far) for far in at)
    images[:, y - 3 : y + 4, x - 3 : x + 4] = 255
    bright = load_batch(images, side, drawn(name, n)).mean(1)
    spot = bright > (bright.flatten(1).min(1).values + 0.25)[:, None, None]
    rows, columns = np.mgrid[:side, :side]
    weight = spot.numpy().reshape(n, -1)
    places = np.stack([columns.ravel(), rows.ravel()])[:, None] * weight
    return (places.sum(2) / weight.sum(1) - side // 2).T / side


@pytest.mark.parametrize(("name", "shift"), [("siim-b3", 12.65 / 384), ("siim-b6", 8 / 512)])
def test_the_published_shift(name, shift):
    assert spots(name, (0, 0)).std() == pytest.approx(shift, rel=0.12)  # all else leaves the centre


@pytest.mark.parametrize(("name", "near"), [("siim-b3", 0.5 + 0.5 * 26 / 90), ("siim-b6", 26 / 90)])
def test_the_published_turns(name, near):
    x, y = spots(name, (0.35, 0)).T
    angle = np.degrees(np.arctan2(np.abs(y), np.abs(x)))  # from the axis on which it began
    assert np.mean(angle < 26) == pytest.approx(near, abs=0.09)


def test_the_published_colours():
    grey = np.full((300, 32, 32, 3), 128, np.uint8)
    for name, most in {"siim-b3": 0.1, "siim-b6": 0.2}.items():
        seen = load_batch(grey, 32, drawn(name, 300)).mean((1, 2, 3)) - 128 / 255
        assert seen.abs().max() == pytest.approx(most, abs=0.012)
    red = np.broadcast_to(np.array([160, 60, 60], np.uint8), (60, 32, 32, 3))
    split = {  # of green and blue, which are alike as long as the hue is
        name: (x[:, 1] - x[:, 2]).abs().max()
        for name in ("siim-b3", "siim-b6")
        if (x := load_batch(red, 32, drawn(name, 60))) is not None
    }
    assert split["siim-b3"] > 0.01 > 0.006 > split["siim-b6"]


def test_strong_colours_leave_as_many_images_as_siim_has_them():
    """Grey stays grey but for the balance of the channels; a share is changed, both ways."""
    grey = np.full((600, 8, 8, 3), 128, np.uint8)
    views = drawn("strong-colour", 600)
    x = load_batch(grey, 8, views).mean((2, 3))
    tint = (x.amax(1) - x.amin(1)).numpy()
    strong = views.gamma != 1
    assert strong.mean() == pytest.approx(0.54, abs=0.06)
    assert views.balanced.mean() == pytest.approx(0.3, abs=0.06)
    assert tint[~strong].max() < 1e-3 < 0.02 < np.median(tint[strong])
    assert x[strong].min() < 0.35 < 0.65 < x[strong].max()


def test_a_balanced_image_is_lit_by_grey_and_as_bright(images):
    lit = (images * np.array([1.0, 0.7, 0.4])).astype(np.uint8)
    some = np.array([True, False] * 3)
    views = Views(np.zeros(6, int), balanced=some)
    x, before = load_batch(lit, 32, views), load_batch(lit, 32, None)
    light = x.pow(6).mean((2, 3)).pow(1 / 6)
    assert (light[some].amax(1) / light[some].amin(1)).max() < 1.02
    assert (light[~some].amax(1) / light[~some].amin(1)).min() > 1.5
    torch.testing.assert_close(x[~some], before[~some])


def test_an_average_follows_and_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    average = WeightAverage(model, 0.5)
    start = model[0].bias.detach().clone()
    with torch.no_grad():
        model[0].bias += 1
    cpu = torch.device("cpu")
    average.update(average.next_weight(cpu))  # the first decay is 2 / 11
    torch.testing.assert_close(average.state["0.bias"], start + 9 / 11)
    with average.applied():
        torch.testing.assert_close(model[0].bias.detach(), start + 9 / 11)
    torch.testing.assert_close(model[0].bias.detach(), start + 1)
    for _ in range(60):
        average.update(average.next_weight(cpu))
    torch.testing.assert_close(average.state["0.bias"], start + 1)


@pytest.mark.slow
def test_views_in_testing(images):
    torch.manual_seed(0)
    model = Classifier(ModelSpec("efficientnet-lite0", 32))
    for _ in range(20):  # or batch norm lets nothing through
        model.train()(torch.rand(8, 3, 32, 32))
    cpu = resolve("cpu", "fp32")
    plain = probabilities(model, BINARY, images, cpu)
    np.testing.assert_allclose(plain.sum(1), 1)
    eight = probabilities(model, BINARY, images, cpu, 8)
    turned = np.stack([np.rot90(image) for image in images])
    np.testing.assert_allclose(eight, probabilities(model, BINARY, turned, cpu, 8), atol=1e-5)
    assert np.abs(eight - plain).max() > 1e-6
    fifteen = probabilities(model, BINARY, images, cpu, 15, "student")
    assert np.abs(fifteen - eight).max() > 1e-6
    np.testing.assert_array_equal(fifteen, probabilities(model, BINARY, images, cpu, 15, "student"))


def test_views_that_cannot_be_had():
    with pytest.raises(UserError, match="--tta 15: random views come from the run's --augment"):
        check_tta(15, "none")
    check_tta(8, "none")
    check_tta("clinics", "none")


def test_views_of_other_clinics_show_the_middle_and_are_averaged():
    """A spot in a corner is outside of the nearer views; the first view is the image as it is."""
    assert view_count("clinics") == 8
    image = np.full((1, 64, 64, 3), (120, 90, 60), np.uint8)
    image[0, :4, :4] = 255
    seen = []
    for number in range(8):
        x = load_batch(image, 64, _views(number, "clinics", 1, "none"))[0]
        seen.append(bool(x.min(0).values.max() > 0.9))
    assert seen == [True, True, *[False] * 6]
    x = load_batch(image, 64, _views(6, "clinics", 1, "none"))[0, :, 32, 32]
    assert x.amax() - x.amin() < 0.12 < (120 - 60) / 255  # white-balanced
    narrow = np.zeros((1, 65, 65, 3), np.uint8)
    narrow[0, 26:39, 26:39] = 255  # a square, which is unsquashed along the image's own width
    for number, axis in ((4, 1), (5, 0)):
        x = load_batch(narrow, 65, _views(number, "clinics", 1, "none"))[0, 0]
        long, short = (x.amax(1 - a).sum().item() for a in (axis, 1 - axis))
        assert long / short == pytest.approx(4 / 3, rel=0.06)
