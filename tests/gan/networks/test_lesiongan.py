import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dermsynth.device import Compute
from dermsynth.options import replace
from gan.networks.lesiongan import SKETCH, Config, Discriminator, Generator
from gan.train import train
from gan.trainer import Trainer
from gan.training_images import open_dataset, training_rows
from gan.weights import load_generator

NARROW = {"size": 64, "ngf": 4, "ndf": 4, "mix": 4}
CPU = Compute(torch.device("cpu"), "fp32")


@pytest.fixture
def images(make_lesions):
    return torch.from_numpy(make_lesions(40, 64)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def symmetries(images):
    return torch.cat([x.rot90(k, (2, 3)) for x in (images, images.flip(3)) for k in range(4)])


def test_the_first_sketches_have_the_mean_and_the_main_covariance_of_the_images(images):
    torch.manual_seed(0)
    generator = Generator(Config(**NARROW, components=5))
    generator.begin_from(images)
    small = F.interpolate(symmetries(images), SKETCH, mode="area").clamp(-0.97, 0.97).atanh()
    vectors = small.flatten(1).double().numpy()
    mean = generator.sketch.bias.detach().double().numpy()
    np.testing.assert_allclose(mean, vectors.mean(0), atol=1e-4)
    _, singular, directions = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    expected = (directions[:5].T * singular[:5] ** 2 / len(vectors)) @ directions[:5]
    weight = generator.sketch.weight.detach().double().numpy()
    np.testing.assert_allclose(weight @ weight.T, expected, atol=1e-3 * expected.max())
    assert (weight[:, 5:] == 0).all()  # the rest of the latent has no say yet


def test_a_new_generator_varies_in_colour_and_size_as_the_images_do(images):
    def spread(components):
        torch.manual_seed(0)
        generator = Generator(Config(**NARROW, components=components))
        generator.begin_from(images)
        with torch.no_grad():
            made = generator(torch.randn(200, generator.latent_dim))
        return F.adaptive_avg_pool2d(made, 1).std(0).mean()

    real = F.adaptive_avg_pool2d(images, 1).std(0).mean()
    assert 0.5 * real < spread(12) < 1.5 * real
    assert spread(12) > 1.5 * spread(0)


def test_every_class_begins_from_its_own_images(images):
    torch.manual_seed(0)
    generator = Generator(Config(**NARROW, classes=2)).eval()
    labels = torch.arange(40) % 2
    generator.begin_from(torch.where(labels[:, None, None, None] == 1, images, -images), labels)
    with torch.no_grad():
        z = torch.randn(100, generator.latent_dim)
        ones, noughts = (generator(z, torch.full((100,), label)).mean() for label in (1, 0))
    assert ones.item() == pytest.approx(images[1::2].mean().item(), abs=0.1)
    assert noughts.item() == pytest.approx(-images[::2].mean().item(), abs=0.1)


def test_few_images_are_enough_to_begin_from(images):
    generator = Generator(Config(**NARROW))
    generator.begin_from(images[:2])
    assert all(torch.isfinite(p).all() for p in generator.parameters())


def test_a_game_begins_both_generators_from_the_images(make_lesions):
    trainer = Trainer("lesiongan", Config(**NARROW), 0, CPU)
    before = trainer.generator.sketch.weight.clone()
    trainer.begin_from(make_lesions(10, 64))
    assert not torch.equal(trainer.generator.sketch.weight, before)
    torch.testing.assert_close(
        trainer.ema.state_dict(), trainer.generator.state_dict(), atol=0, rtol=0
    )


def test_a_run_begins_from_its_training_images(options, monkeypatch):
    shown = []
    begin_from = Trainer.begin_from

    def begin(trainer, images, labels):
        shown.append((trainer.steps, images.copy(), labels))
        begin_from(trainer, images, labels)

    monkeypatch.setattr(Trainer, "begin_from", begin)
    train(options)
    data = open_dataset(options.images.data)
    wanted = data.images[training_rows(data, options.images.fold)]
    train(replace(options, kimg=0.032, resume=True))
    assert [(steps > 0, labels) for steps, _, labels in shown] == [(False, None), (True, None)]
    for _, images, _ in shown:
        np.testing.assert_array_equal(images, wanted)
    assert load_generator(options.run.out)[1].kimg == 0.032


def test_the_frozen_network_sees_half_the_side_of_large_images_and_never_learns(images):
    seen = {}
    for size in (32, 64, 128, 256):
        discriminator = Discriminator(Config(**NARROW | {"size": size}))
        record = lambda module, args, size=size: seen.update({size: args[0].shape[-1]})  # noqa: E731
        discriminator.frozen.register_forward_pre_hook(record)
        heads = discriminator(F.interpolate(images[:2], size, mode="bilinear"))
        assert len(heads) == 6
    assert seen == {32: 32, 64: 64, 128: 64, 256: 128}

    trainer = Trainer("lesiongan", Config(**NARROW, batch=4), 0, CPU)
    trainer.begin_from(np.full((4, 64, 64, 3), 99, np.uint8))
    fixed = [b.clone() for b in trainer.discriminator.frozen.features.buffers()]
    mixing = [p.clone() for p in trainer.discriminator.frozen.mixing.parameters()]
    trainer.step(torch.randint(256, (4, 64, 64, 3)).to(torch.uint8))
    after = trainer.discriminator.frozen
    torch.testing.assert_close(list(after.features.buffers()), fixed, atol=0, rtol=0)
    torch.testing.assert_close(list(after.mixing.parameters()), mixing, atol=0, rtol=0)
