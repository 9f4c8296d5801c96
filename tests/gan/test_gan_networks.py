import pytest
import torch

from gan.networks import ARCHITECTURES, SIZES, describe, make_config, restore_generator
from runtime.errors import UserError


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_makes_and_judges_every_size(name, size):
    config, parts = make_config(name, size), ARCHITECTURES[name]
    generator, discriminator = parts.generator(config), parts.discriminator(config)
    images = generator(torch.randn(2, generator.latent_dim))
    assert images.shape == (2, 3, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert images.std() > 0.01
    logits = discriminator(images)
    assert all(len(head) == 2 for head in logits)
    sum(head.sum() for head in logits).backward()
    unused = [name for name, p in generator.named_parameters() if p.grad is None]
    assert unused == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_discriminator_layers_have_spectral_norm_one(name):
    config = make_config(name, 64)
    discriminator = ARCHITECTURES[name].discriminator(config)
    for _ in range(30):  # power iterations
        discriminator(torch.rand(2, 3, 64, 64))
    for module in discriminator.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            largest = torch.linalg.matrix_norm(module.weight.detach().flatten(1), ord=2)
            assert largest == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_eval_mode_images_do_not_depend_on_the_rest_of_the_batch(name):
    generator = ARCHITECTURES[name].generator(make_config(name, 32)).eval()
    z = torch.randn(4, generator.latent_dim)
    torch.testing.assert_close(generator(z)[:2], generator(z[:2]), atol=1e-5, rtol=1e-4)


def test_a_generator_comes_back_from_its_description():
    config = make_config("lesiongan", 64)
    assert restore_generator(describe("lesiongan", config)).latent_dim > config.z_dim


def test_what_is_not_known_is_refused():
    with pytest.raises(UserError, match=r"--arch dcgan.*lesiongan, sngan"):
        make_config("dcgan", 64)
    with pytest.raises(UserError, match="100 px"):
        make_config("sngan", 100)
    with pytest.raises(UserError, match="another version"):
        restore_generator({"name": "lesiongan", "config": {"size": 64, "colour": "red"}})
    with pytest.raises(UserError, match="another version"):
        restore_generator({"name": "biggan", "config": {}})
