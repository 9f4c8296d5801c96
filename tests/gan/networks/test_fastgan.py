import pytest
import torch
import torch.nn.functional as F

from gan.networks import fastgan
from gan.networks.fastgan import Config, Discriminator, Excitation, Generator

NARROW = {"ngf": 8, "ndf": 8, "z_dim": 32}


def half_blind_pattern(size):
    """Adds up to nothing in every square of 2x2 px."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return 1.0 - 2 * ((rows + columns) % 2)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_every_size_is_made_judged_and_learned_from(size):
    torch.manual_seed(0)
    config = Config(size=size, **NARROW)
    generator, discriminator = Generator(config), Discriminator(config)
    images = generator(torch.randn(2, generator.latent_dim))
    assert images.shape == (2, 3, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert images.std() > 0.01
    heads, missing = discriminator.forward_with_reconstruction(images)
    assert [head.shape for head in heads] == [(2, 1, 5, 5)] * 2
    (sum(head.sum() for head in heads) + missing).backward()
    for network in (generator, discriminator):
        assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_the_papers_widths():
    generator, discriminator = Generator(Config(size=256)), Discriminator(Config(size=256))
    made = [block.norm.num_features // 2 for block in generator.blocks]
    assert made == [512, 256, 128, 128, 64, 32]  # at 8, 16, ..., 256 px, ngf 64
    assert len(generator.excitations) == 3  # 4 -> 64, 8 -> 128, 16 -> 256
    judged = [block.direct[1].out_channels for block in discriminator.to_16]
    assert [*judged, discriminator.to_8.direct[1].out_channels] == [32, 64, 128, 256, 512]


def test_noise_planes_are_part_of_z_and_count_once_they_have_strength():
    torch.manual_seed(0)
    generator = Generator(Config(size=64, **NARROW)).eval()
    z = torch.randn(2, generator.latent_dim)
    other = z.clone()
    other[:, 32:] = torch.randn(2, generator.latent_dim - 32)
    torch.testing.assert_close(generator(z), generator(other))  # strengths begin at 0
    for block in generator.blocks:
        block.strength.data.fill_(0.5)
    assert (generator(z) - generator(other)).abs().max() > 1e-3
    torch.testing.assert_close(generator(z), generator(z.clone()))


def test_images_in_eval_mode_do_not_depend_on_the_batch():
    generator = Generator(Config(size=32, **NARROW)).eval()
    z = torch.randn(4, generator.latent_dim)
    torch.testing.assert_close(generator(z)[:2], generator(z[:2]), atol=1e-5, rtol=1e-4)


def test_gated_linear_unit_is_torchs_and_keeps_the_memory_format_of_the_gradient():
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    torch.testing.assert_close(fastgan.glu(x), F.glu(x, 1))
    weights = torch.randn(2, 4, 4, 4).to(memory_format=torch.channels_last)
    (ours,) = torch.autograd.grad((fastgan.glu(x) * weights).sum(), x)
    (torchs,) = torch.autograd.grad((F.glu(x, 1) * weights).sum(), x)
    torch.testing.assert_close(ours, torchs)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_excitation_weighs_whole_channels_by_the_small_maps_content():
    torch.manual_seed(0)
    excite = Excitation(5, 7)
    small, large = torch.randn(3, 5, 8, 8), torch.randn(3, 7, 128, 128)
    weights = excite(small, large) / large
    assert weights.shape == large.shape
    torch.testing.assert_close(weights, weights[:, :, :1, :1].expand_as(large))
    assert (weights > 0).all()
    assert (weights < 1).all()
    assert not torch.allclose(weights[0, :, 0, 0], weights[1, :, 0, 0])


def test_discriminator_layers_have_spectral_norm_one():
    discriminator = Discriminator(Config(size=32, **NARROW))
    for _ in range(30):  # power iterations
        discriminator.forward_with_reconstruction(torch.rand(2, 3, 32, 32))
    convs = [m for m in discriminator.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convs) > 10
    for conv in convs:
        largest = torch.linalg.matrix_norm(conv.weight.detach().flatten(1), ord=2)
        assert largest == pytest.approx(1, abs=0.06)


def test_the_second_head_judges_the_image_at_half_the_side_and_nothing_finer():
    torch.manual_seed(0)
    discriminator = Discriminator(Config(size=64, **NARROW)).eval()
    x = torch.rand(2, 3, 64, 64) - 0.5
    before, after = discriminator(x), discriminator(x + 0.3 * half_blind_pattern(64))
    torch.testing.assert_close(before[1], after[1], atol=1e-5, rtol=1e-4)
    assert (before[0] - after[0]).abs().max() > 0.1 * before[0].std()


def test_quarters_are_cut_from_map_and_image_alike():
    x = torch.arange(32.0).view(2, 1, 4, 4)
    quarter = fastgan._quarter(x, torch.tensor([1, 2]))
    assert quarter[0, 0].tolist() == [[2, 3], [6, 7]]  # upper right
    assert quarter[1, 0].tolist() == [[24, 25], [28, 29]]  # lower left


def test_distance_is_zero_for_equal_images_and_of_pixels_for_a_constant_change():
    a = torch.rand(2, 3, 16, 16)
    assert fastgan._distance(a, a) == 0
    assert fastgan._distance(a, a + 0.25) == pytest.approx(0.25, abs=1e-6)
    fine = fastgan._distance(a, a + 0.25 * half_blind_pattern(16))
    assert fine == pytest.approx(0.25 / 3, abs=1e-6)  # invisible at the two coarser scales


def test_learning_to_reconstruct_makes_the_drawings_like_the_images():
    torch.manual_seed(0)
    discriminator = Discriminator(Config(size=32, **NARROW))
    colours = torch.tensor([[0.8, 0.2, 0.0], [-0.7, 0.1, 0.5], [0.0, -0.6, 0.3], [0.4, 0.4, -0.9]])
    images = colours[:, :, None, None].expand(4, 3, 32, 32).contiguous()
    optimizer = torch.optim.Adam(discriminator.parameters(), 2e-4, betas=(0.5, 0.999))
    losses = []
    for _ in range(12):
        _, loss = discriminator.forward_with_reconstruction(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_reconstruction_depends_on_torchs_seed_and_leaves_the_verdict_as_it_is():
    discriminator = Discriminator(Config(size=32, **NARROW)).eval()
    x = torch.rand(8, 3, 32, 32)

    def loss(seed):
        torch.manual_seed(seed)
        return discriminator.forward_with_reconstruction(x)[1].item()

    assert loss(1) == loss(1)
    assert len({loss(seed) for seed in range(5)}) > 1
    torch.testing.assert_close(discriminator.forward_with_reconstruction(x)[0], discriminator(x))


def test_bf16_agrees_with_fp32():
    torch.manual_seed(0)
    config = Config(size=32, **NARROW)
    generator, discriminator = Generator(config).eval(), Discriminator(config).eval()
    z = torch.randn(2, generator.latent_dim)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = generator(z)
        heads = discriminator(images)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, generator(z), atol=0.05, rtol=0.05)
    assert all(torch.isfinite(head).all() for head in heads)
