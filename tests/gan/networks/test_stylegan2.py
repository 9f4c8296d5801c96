import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import signal

from gan.losses import r1
from gan.networks import layers, stylegan2
from gan.networks.stylegan2 import Config, Discriminator, Generator, StyledConv, blur, channels


def narrow(size=32, **changes):
    return Config(size=size, channel_base=512, channel_max=16, z_dim=16, **changes)


def with_noise(generator, strength=0.3):
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("strength"):
                parameter.fill_(strength)
    return generator


def latents(generator, n=4):
    return torch.randn(n, generator.latent_dim, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_every_size(size):
    config = narrow(size)
    generator, discriminator = Generator(config), Discriminator(config)
    images = generator(latents(generator, 2))
    assert images.shape == (2, 3, size, size)
    assert images.dtype == torch.float32
    assert 0.05 < images.std() < images.abs().max() <= 1
    (logits,) = discriminator(images)
    assert logits.shape == (2, 1)
    logits.sum().backward()
    unused = [
        name
        for network in (generator, discriminator)
        for name, parameter in network.named_parameters()
        if parameter.grad is None
    ]
    assert unused == []


def test_the_published_widths_and_recipe():
    config = Config()
    assert channels(config) == [512, 512, 512, 512, 256, 128]
    assert channels(Config(size=256))[-1] == 64
    assert config.penalty_strength == pytest.approx(0.0002 * 128**2 / config.batch)
    assert dataclasses.replace(config, penalty_weight=0.8).penalty_strength == 0.8
    assert config.lr_discriminator == config.lr_generator
    assert config.penalty_share == pytest.approx(16 / 17)


def modulated(x, layer, w, plane):
    """The paper's equations 1 and 3 and its resampling, image by image, in numpy."""
    style = layer.style(w).detach().numpy()
    weight = layer.weight.detach().numpy() * layer.scale
    weight = weight.transpose(1, 0, 2, 3) if layer.up else weight
    taps = np.convolve([1, 1], [1, 2, 1]) / 4
    out = []
    for image, s, noise in zip(x.numpy(), style, plane.numpy(), strict=True):
        own = weight * s[:, None, None]
        own = own / np.sqrt((own**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        if layer.up:
            wide = np.zeros((len(image), 2 * image.shape[1] + 4, 2 * image.shape[2] + 4))
            wide[:, 2:-2:2, 2:-2:2] = image
            convolve = signal.convolve2d  # upsampled by zeros: a convolution, then the filter
            h = [sum(convolve(c, k, "same") for c, k in zip(wide, o, strict=True)) for o in own]
            h = np.stack([signal.convolve2d(c, np.outer(taps, taps)) for c in h])[:, 3:-4, 3:-4]
        else:
            h = [
                sum(signal.correlate2d(c, k, "same") for c, k in zip(image, o, strict=True))
                for o in own
            ]
        h = np.stack(list(h)) + layer.strength.item() * noise
        h = h + layer.bias.detach().numpy()[:, None, None]
        out.append(np.where(h > 0, h, 0.2 * h) * np.sqrt(2))
    return np.stack(out)


@pytest.mark.parametrize("up", [False, True])
def test_scaled_convolution_is_the_modulated_and_demodulated_one(up):
    layer = with_noise(StyledConv(5, 7, 6, up))
    with torch.no_grad():
        layer.bias.normal_()
    x, w, side = torch.randn(3, 5, 8, 8), torch.randn(3, 6), 16 if up else 8
    plane = torch.randn(3, 1, side, side)
    out = layer(x, w, plane)
    assert out.shape == (3, 7, side, side)
    np.testing.assert_allclose(out.detach().numpy(), modulated(x, layer, w, plane), atol=2e-5)


def test_the_filter_keeps_constants_and_upsampling_of_the_picture_is_the_same_filter():
    x = torch.randn(2, 3, 8, 8)
    ones = blur(torch.ones(1, 3, 8, 8), 2)
    assert ones.shape[-1] == 9
    torch.testing.assert_close(ones[..., 2:-2, 2:-2], torch.ones(1, 3, 5, 5))
    zeros = F.pad(x[..., None, :, None], (0, 1, 0, 0, 0, 1)).flatten(4).flatten(2, 3)
    up = blur(zeros, 2, gain=4)[..., :-1, :-1]
    torch.testing.assert_close(layers.double(x)[..., 1:-1, 1:-1], up[..., 1:-1, 1:-1])


def test_activations_keep_their_variance_at_the_start():
    layer = StyledConv(64, 64, 64, up=False)
    out = layer(torch.randn(8, 64, 16, 16), torch.randn(8, 64), torch.zeros(8, 1, 16, 16))
    assert out.square().mean().item() == pytest.approx(
        1, abs=0.15
    )  # of a leaky ReLU of N(0, 1), gain 2
    discriminator = Discriminator(Config(size=32, channel_base=2048, channel_max=64))
    even = torch.randn(64, 3, 1, 1).expand(-1, -1, 32, 32)  # the filters would dampen noise
    h = discriminator.blocks(discriminator.from_rgb(even))
    assert 0.3 < h.square().mean() < 3


def test_images_are_a_function_of_the_latents_alone_and_of_no_neighbour():
    generator = with_noise(Generator(narrow())).eval()
    z = latents(generator)
    images = generator(z)
    torch.testing.assert_close(generator(z), images)
    torch.testing.assert_close(generator(z)[1:3], generator(z[1:3]), atol=1e-5, rtol=1e-4)
    other = torch.cat([z[:, :16], torch.randn(4, z.shape[1] - 16)], 1)
    assert 0 < (generator(other) - images).abs().mean() < images.std()


def test_truncation_pulls_to_the_mean_style_of_the_training(monkeypatch):
    monkeypatch.setattr(stylegan2, "MEAN_RATE", 0.3)
    generator = Generator(narrow())  # noise has no strength yet: content alone
    z = latents(generator, 8)
    for _ in range(30):
        generator(z)
    torch.testing.assert_close(
        generator.mean, generator.mapping(z[:, :16], None).mean(0), atol=1e-4, rtol=0
    )
    generator.eval()
    spreads = [generator(z, truncation=psi).std(0).mean().item() for psi in (0.0, 0.5, 1.0)]
    assert spreads[0] == pytest.approx(0, abs=1e-5)
    assert spreads[0] < spreads[1] < spreads[2]
    before = generator.mean.clone()
    generator(z)
    assert torch.equal(generator.mean, before)


def test_a_class_changes_images_and_verdicts():
    config = narrow(classes=3)
    generator, discriminator = Generator(config).eval(), Discriminator(config)
    z, first = latents(generator), torch.zeros(4, dtype=torch.int64)
    images = generator(z, first)
    assert (generator(z, first + 1) - images).abs().mean() > 0.01
    (one,), (other,) = discriminator(images, first), discriminator(images, first + 1)
    assert one.shape == (4, 1)
    assert (one - other).abs().min() > 0
    one.sum().backward()
    assert discriminator.classes.weight.grad[0].abs().sum() > 0
    assert discriminator.classes.weight.grad[1:].abs().sum() == 0


def test_the_discriminator_sees_that_images_of_a_batch_are_alike():
    torch.manual_seed(0)
    discriminator = Discriminator(narrow())
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    alone = torch.cat([discriminator(x[i : i + 1].expand(4, -1, -1, -1))[0][:1] for i in range(4)])
    assert (discriminator(x)[0] - alone).abs().max() > 1e-3
    h = layers.with_spread(torch.arange(8.0)[:, None, None, None].expand(8, 2, 4, 4))
    torch.testing.assert_close(h[:, 2], torch.full((8, 4, 4), float(np.std([0, 1, 2, 3]))))


def test_the_penalty_differentiates_twice():
    torch.manual_seed(0)
    discriminator = Discriminator(narrow()).double()
    x = torch.rand(4, 3, 32, 32).double() * 2 - 1

    def penalty(network, x):
        images = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(images)[0].sum(), images, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean() / 2

    weight = discriminator.blocks[0].down.weight
    (gradient,) = torch.autograd.grad(penalty(discriminator, x), weight)
    step, values = torch.randn_like(weight) * 1e-5, []
    for side in (1, -2):
        weight.data += side * step
        values.append(penalty(discriminator, x).item())
    expected = 2 * (gradient * step).sum().item()
    assert values[0] - values[1] == pytest.approx(expected, rel=1e-2)
    found = r1(discriminator.float(), x, x).item()  # float32, as in training
    assert found == pytest.approx(values[1], rel=1e-3)


def test_bf16_draws_and_judges_as_fp32_does():
    config = narrow(64)
    generator, discriminator = with_noise(Generator(config)), Discriminator(config)
    z = latents(generator)
    images, verdict = generator(z), discriminator(generator(z))[0]
    with torch.autocast("cpu", torch.bfloat16):
        again = generator(z)
        other = discriminator(images)[0]
    assert again.dtype == other.dtype == torch.float32
    assert (again - images).abs().mean() < 0.03
    assert (other - verdict).abs().max() < 0.1


def test_the_published_learning_rate_moves_the_generator_to_a_colour():
    torch.manual_seed(0)
    config = narrow()
    generator = Generator(config)
    optimizer = torch.optim.Adam(generator.parameters(), config.lr_generator, config.betas)
    wanted, losses = torch.tensor([0.6, 0.0, -0.4])[:, None, None], []
    for _ in range(60):
        loss = (generator(torch.randn(4, generator.latent_dim)) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 3
