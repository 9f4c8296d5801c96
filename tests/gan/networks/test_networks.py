import dataclasses

import pytest
import torch

from data.provenance import ArchitectureRecord
from dermsynth.errors import UserError
from gan.networks import ARCHITECTURES, SIZES, describe, make_config, restore_generator

CONDITIONAL = [name for name, a in ARCHITECTURES.items() if a.config.labels != "never"]
FORCED = [name for name, a in ARCHITECTURES.items() if a.config.labels == "always"]


@pytest.fixture
def build(narrow):
    """Narrow networks of an architecture, conditional where they must be."""

    def both(name, size, classes=0):
        torch.manual_seed(0)
        config = dataclasses.replace(narrow(name, size), classes=classes or 2 * (name in FORCED))
        parts = ARCHITECTURES[name]
        return parts.generator(config), parts.discriminator(config)

    return both


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_makes_and_judges_every_size(name, size, build):
    generator, discriminator = build(name, size)
    labels = torch.tensor([0, 1]) if name in FORCED else None
    images = generator(torch.randn(2, generator.latent_dim), labels)
    assert images.shape == (2, 3, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert images.std() > 0.001
    logits = discriminator(images, labels)
    assert all(len(head) == 2 for head in logits)
    sum(head.square().sum() for head in logits).backward()
    unused = [name for name, p in generator.named_parameters() if p.grad is None]
    assert unused == []


@pytest.mark.parametrize("name", ["lesiongan", "sngan"])
def test_discriminator_layers_have_spectral_norm_one(name):
    config = make_config(name, 64)
    discriminator = ARCHITECTURES[name].discriminator(config)
    for _ in range(30):  # power iterations
        discriminator(torch.rand(2, 3, 64, 64))
    for module in discriminator.modules():
        learns = any(p.requires_grad for p in module.parameters())
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and learns:
            largest = torch.linalg.matrix_norm(module.weight.detach().flatten(1), ord=2)
            assert largest == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_eval_mode_images_do_not_depend_on_the_rest_of_the_batch(name, build):
    generator = build(name, 32, 2 * (name in CONDITIONAL))[0].eval()
    z, labels = torch.randn(4, generator.latent_dim), torch.tensor([0, 1, 1, 0])
    few = generator(z[:2], labels[:2])
    torch.testing.assert_close(generator(z, labels)[:2], few, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_the_same_latent_looks_different_in_another_class(name, build):
    generator, _ = build(name, 32, 3)
    z = torch.randn(1, generator.latent_dim).expand(3, -1)
    made = generator(z, torch.arange(3))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (made[first] - made[second]).abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(set(CONDITIONAL) - {"acgan"}))  # it judges, then names
def test_the_same_image_is_judged_differently_in_another_class(name, build):
    discriminator = build(name, 32, 2)[1].eval()
    image = torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1)
    for head in discriminator(image, torch.arange(2)):
        assert (head[0] - head[1]).abs().max() > 1e-4


def test_acgan_names_classes_from_the_pass_that_judges(build):
    discriminator = build("acgan", 32, 5)[1].eval()
    images = torch.rand(4, 3, 32, 32)
    heads, classes = discriminator.forward_with_classes(images)
    assert classes.shape == (4, 5)
    torch.testing.assert_close(heads, discriminator(images))


def test_the_wgan_critic_has_no_batch_norm(build):
    _, critic = build("wgan-gp", 32)
    x = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(critic(x)[0][:2], critic(x[:2])[0], atol=1e-5, rtol=1e-4)


PUBLISHED = {  # loss, penalty, its strength, critic steps, rates of G and D, betas
    "sngan": ("hinge", "none", 0, 5, 2e-4, 2e-4, (0.0, 0.9)),
    "dcgan": ("non-saturating", "none", 0, 1, 2e-4, 2e-4, (0.5, 0.999)),
    "wgan-gp": ("wasserstein", "gp", 10, 5, 1e-4, 1e-4, (0.0, 0.9)),
    "acgan": ("non-saturating", "none", 0, 1, 2e-4, 2e-4, (0.5, 0.999)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_baselines_have_their_published_recipe(name):
    c = make_config(name, 128)
    rates = c.lr_generator, c.lr_discriminator
    found = (c.loss, c.penalty, c.penalty_strength, c.critic_steps, *rates, c.betas)
    assert found == PUBLISHED[name]


def test_dcgan_has_the_papers_widths():
    config = make_config("dcgan", 64)
    discriminator = ARCHITECTURES["dcgan"].discriminator(config)
    convs = [m.out_channels for m in discriminator.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convs == [64, 128, 256, 512, 1]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_generator_comes_back_from_its_description(name, narrow):
    config = narrow(name, 32)
    if config.labels == "always":
        config = dataclasses.replace(config, classes=2)
    made = restore_generator(describe(name, config), "generator.json")
    shapes = {key: value.shape for key, value in made.state_dict().items()}
    expected = ARCHITECTURES[name].generator(config).state_dict()
    assert shapes == {key: value.shape for key, value in expected.items()}


@pytest.mark.parametrize(
    "wrong",
    [
        *({"colour": "red"}, {"size": 63}, {"size": "64"}, {"ngf": 1.5}, {"ngf": 10**9}),
        *({"betas": [0.1]}, {"betas": 1.0}, {"loss": "cosine"}, {"ngf": {"a": 1}}, {"ngf": None}),
        *({"lr_generator": -1.0}, {"ngf": True}, {"--help": 1}, {"labels": "always"}),
    ],
)
def test_hyperparameters_that_are_wrong_are_named_in_one_line(wrong):
    known = describe("lesiongan", make_config("lesiongan", 64))
    description = ArchitectureRecord(name="lesiongan", config={**known.config, **wrong})
    with pytest.raises(UserError, match=r"^run/generator\.json: .*another version") as caught:
        restore_generator(description, "run/generator.json")
    assert next(iter(wrong)).replace("_", "-") in str(caught.value).replace("_", "-")
    assert "\n" not in str(caught.value)


def test_what_is_not_known_is_refused():
    with pytest.raises(UserError, match=r"--arch biggan.*lesiongan, sngan"):
        make_config("biggan", 64)
    with pytest.raises(UserError, match="100 px"):
        make_config("sngan", 100)
    with pytest.raises(UserError, match=r"architecture 'biggan'.*another version"):
        restore_generator(ArchitectureRecord(name="biggan", config={}), "generator.json")
