import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

import gan.trainer
from dermsynth import checkpoint
from dermsynth.device import Compute
from dermsynth.distributed import Processes
from dermsynth.errors import UserError
from gan.ada import ADAPTIVE, STEPS, TAKES_OVER, AdaptiveP
from gan.hyperparameters import Hyperparameters
from gan.networks import ARCHITECTURES, Architecture, make_config
from gan.trainer import Trainer

CPU = Compute(torch.device("cpu"), "fp32")


class Constant(nn.Module):
    """A generator that draws one picture of 32 px, whatever z: nothing in it is random."""

    latent_dim = 2

    def __init__(self, config):
        super().__init__()
        torch.manual_seed(1)
        self.picture = nn.Parameter(torch.randn(3, 32, 32) / 10)

    def forward(self, z, labels=None):
        return self.picture.expand(len(z), -1, -1, -1).tanh()


class Linear(nn.Module):
    def __init__(self, config):
        super().__init__()
        torch.manual_seed(2)
        self.last = nn.Linear(3 * 32 * 32, 1)

    def forward(self, x, labels=None):
        return [self.last(x.flatten(1))]


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "plain", Architecture(Hyperparameters, Constant, Linear))
    return Hyperparameters(size=32, batch=4, augment="none", betas=(0.5, 0.9))


def reals(count, size=32, seed=0):
    numbers = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(numbers)


def weights(trainer):
    networks = trainer.generator, trainer.discriminator
    return torch.cat([p.detach().flatten() for n in networks for p in n.parameters()])


def play(config, steps=3, name="plain", **options):
    trainer = Trainer(name, config, 0, CPU, **options)
    for step in range(steps):
        trainer.step(reals(trainer.images_a_step, config.size, step))
    return trainer


def test_one_step_is_what_the_papers_say(plain):
    """Against the same step written out, with torch's own Adam."""
    config = dataclasses.replace(plain, loss="non-saturating", penalty="r1", penalty_weight=0.5)
    trainer = play(config, steps=1)
    generator, discriminator = Constant(config), Linear(config)
    x = reals(4).permute(0, 3, 1, 2).float() / 127.5 - 1
    fake = generator(torch.zeros(4, 2))
    optimizer = torch.optim.Adam(discriminator.parameters(), config.lr_discriminator, (0.5, 0.9))
    on_real, on_fake = discriminator(x)[0], discriminator(fake.detach())[0]
    loss = nn.functional.softplus(-on_real).mean() + nn.functional.softplus(on_fake).mean()
    loss = loss + 0.5 / 2 * discriminator.last.weight.square().sum()  # the gradient is the weight
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(trainer.discriminator.last.weight, discriminator.last.weight)
    optimizer = torch.optim.Adam(generator.parameters(), config.lr_generator, (0.5, 0.9))
    nn.functional.softplus(-discriminator(fake)[0]).mean().backward()
    optimizer.step()
    torch.testing.assert_close(trainer.generator.picture, generator.picture)


@pytest.mark.parametrize("recipe", [{}, {"loss": "relativistic"}, {"penalty": "r1r2"}])
def test_parts_of_a_batch_add_up_to_the_batch(plain, recipe):
    config = dataclasses.replace(plain, **recipe, penalty_weight=1.0)
    whole, parts = play(config), play(config, accumulate=2)
    torch.testing.assert_close(weights(whole), weights(parts))
    ours, theirs = whole.take_means(3), parts.take_means(3)
    assert {k: v for k, v in ours.items() if k != "diversity"} == pytest.approx(
        {k: v for k, v in theirs.items() if k != "diversity"}, rel=1e-4, abs=1e-5
    )


def test_a_critic_takes_its_steps_on_fresh_images(plain):
    config = dataclasses.replace(plain, critic_steps=3)
    trainer = Trainer("plain", config, 0, CPU)
    assert trainer.images_a_step == 12
    seen, steps = [], {"d": 0, "g": 0}
    trainer.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    for name in ("generator", "discriminator"):
        optimizer = getattr(trainer, f"{name}_optimizer")
        optimizer.register_step_post_hook(
            lambda *_, key=name[0]: steps.update({key: steps[key] + 1})
        )
    x = reals(12)
    trainer.step(x)
    assert steps == {"d": 3, "g": 1}
    assert trainer.images_seen == 12
    shown = torch.cat(seen[0:6:2]).add(1).mul(127.5).round().to(torch.uint8)
    assert (shown.permute(0, 2, 3, 1) == x).all()


def test_a_lazy_penalty_comes_rarely_and_weighs_as_much(plain, monkeypatch):
    calls = []

    def one(critic, real, fake):
        calls.append(len(real))
        return torch.ones(())

    monkeypatch.setitem(gan.trainer.PENALTIES, "r1", one)
    config = dataclasses.replace(plain, penalty="r1", penalty_weight=1.0, penalty_every=4)
    trainer = play(config, steps=8)
    assert calls == [4, 4]
    assert trainer.take_means(8)["penalty"] == pytest.approx(1.0)
    (settings,) = trainer.discriminator_optimizer.param_groups  # a penalty step counts as two
    assert settings["lr"] == pytest.approx(0.8 * config.lr_discriminator)
    assert settings["betas"] == pytest.approx([beta**0.8 for beta in config.betas])
    (settings,) = trainer.generator_optimizer.param_groups
    assert settings["lr"] == config.lr_generator


def test_penalties_are_computed_in_float32(plain, monkeypatch):
    kinds = []

    def watch(critic, real, fake):
        kinds.extend(head.dtype for head in critic(real))
        return real.sum() * 0

    monkeypatch.setitem(gan.trainer.PENALTIES, "r1", watch)
    config = dataclasses.replace(plain, penalty="r1", penalty_weight=1.0)
    Trainer("plain", config, 0, Compute(torch.device("cpu"), "bf16")).step(reals(4))
    assert kinds == [torch.float32]


def test_the_average_halves_its_distance_in_a_half_life(plain):
    config = dataclasses.replace(plain, ema_kimg=0.004, ema_share=1e9)  # one step
    trainer = Trainer("plain", config, 0, CPU)
    before = trainer.ema.picture.clone()
    trainer.step(reals(4))
    torch.testing.assert_close(trainer.ema.picture, (before + trainer.generator.picture) / 2)


def test_nothing_waits_for_the_device(plain, monkeypatch):
    """A step that reads a number back would stall an accelerator."""
    config = dataclasses.replace(plain, penalty="r1", penalty_weight=1.0, loss="relativistic")
    trainer = Trainer("plain", config, 0, CPU)
    trainer.step(reals(4))  # Adam makes its state in the first step

    def refuse(*_):
        raise AssertionError("the step reads a tensor back")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    for optimizer in (trainer.generator_optimizer, trainer.discriminator_optimizer):
        optimizer.step = lambda: None  # torch's Adam on a CPU reads its step count
    trainer.step(reals(4))


def test_a_state_of_another_architecture_or_version_is_refused(plain):
    trainer = play(plain)
    state = trainer.state()
    wider = Trainer("plain", dataclasses.replace(plain, lr_generator=1e-3), 0, CPU)
    with pytest.raises(UserError, match=r"another architecture.*\n  lr_generator: was 0.0002, now"):
        wider.restore(state)
    with pytest.raises(UserError, match="version 1"):
        trainer.restore(state | {"version": 1})


PLAIN = ("sngan", "dcgan", "wgan-gp", "acgan")  # have no state that the others have not


@pytest.mark.parametrize(
    "arch",
    [pytest.param(a, marks=[pytest.mark.slow] if a in PLAIN else []) for a in ARCHITECTURES],
)
def test_a_state_that_went_through_a_file_continues_to_the_same_bits(arch, narrow, tmp_path):
    config = dataclasses.replace(narrow(arch, 32), batch=4)
    if config.labels != "never":
        config = dataclasses.replace(config, classes=2)
    if config.penalty != "none":
        config = dataclasses.replace(config, penalty_every=2)
    if config.augment in ADAPTIVE:
        config = dataclasses.replace(config, ada_target=-1.5, ada_kimg=0.04)  # p goes up at once
    labels = torch.arange(4 * config.critic_steps) % 2 if config.classes else None

    def go_on(trainer, steps):
        for _ in range(steps):
            trainer.step(reals(trainer.images_a_step, 32, trainer.steps), labels)
        return trainer

    def begin(trainer):
        shown = reals(8, 32).numpy()
        trainer.begin_from(shown, np.arange(8) % 2 if config.classes else None)
        return trainer

    whole = go_on(begin(Trainer(arch, config, 0, CPU)), 5)
    checkpoint.save(tmp_path, go_on(begin(Trainer(arch, config, 0, CPU)), 3).state())
    later = Trainer(arch, config, 0, CPU)
    later.restore(checkpoint.load(tmp_path))
    go_on(begin(later), 2)
    assert (weights(later) == weights(whole)).all()
    means = whole.take_means(5)
    assert later.take_means(5) == means
    assert means.get("augment_p", 1.0) > 0.3
    for name, value in whole.ema.state_dict().items():
        assert (later.ema.state_dict()[name] == value).all()


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["lesiongan", "acgan"])
def test_labels_are_learned(arch, narrow):
    """Dark images of class 0, bright ones of class 1: soon the generator tells them apart."""
    config = dataclasses.replace(
        narrow(arch, 32),
        classes=2,
        batch=8,
        lr_generator=2e-3,
        lr_discriminator=2e-3,
        augment="none",
        ema_kimg=0.1,
        spectrum_weight=0.0,
    )
    trainer, labels = Trainer(arch, config, 0, CPU), torch.arange(8) % 2
    for step in range(80):
        level = torch.where(labels == 1, 200, 50)[:, None, None, None]
        noise = reals(8, 32, step) // 8
        trainer.step((level + noise.int() - 16).to(torch.uint8), labels)
    with torch.no_grad():
        made = trainer.generator(torch.randn(8, trainer.generator.latent_dim), labels)
    dark, bright = (made[labels == label].mean().item() for label in (0, 1))
    assert bright - dark > 0.4
    assert all(math.isfinite(value) for value in trainer.take_means(80).values())


def test_the_class_loss_is_of_logits(narrow):
    """ln(classes) where nothing is known; a softmax before it could not go below 0.55 of two."""
    config = dataclasses.replace(narrow("acgan", 32), classes=4, batch=4)
    trainer = Trainer("acgan", config, 0, CPU)
    nn.init.zeros_(trainer.discriminator.name.weight)
    nn.init.zeros_(trainer.discriminator.name.bias)
    trainer.step(reals(4), torch.arange(4))
    assert trainer.take_means(1)["loss_class"] == pytest.approx(2 * math.log(4), rel=1e-5)


def test_ada_moves_its_p_with_the_signs_of_real_logits(plain):
    config = dataclasses.replace(plain, augment="ada", ada_target=0.6, ada_kimg=0.16)
    follows = AdaptiveP(config, CPU.device)
    for signs, expected in ((1.0, 0.1), (1.0, 0.2), (0.5, 0.1), (-1.0, 0.0), (-1.0, 0.0)):
        logits = torch.full((4,), -1.0).masked_fill(torch.arange(4) < 2 + 2 * signs, 1.0)
        for _ in range(STEPS):
            follows.note([logits], 1)
        follows.move(4, Processes())
        assert follows.p.item() == pytest.approx(expected, abs=1e-6)
        assert follows.state()["ada_signs"].item() == 0


def test_adaptive_augmentation_leaves_images_alone_until_the_discriminator_overfits(
    plain, monkeypatch
):
    seen = []
    augmented = gan.trainer.augmented
    monkeypatch.setattr(
        gan.trainer,
        "augmented",
        lambda images, how, p: seen.append((how, p is not None)) or augmented(images, how, p),
    )
    config = dataclasses.replace(plain, augment="adaptive", ada_target=1.0, ada_kimg=1.0)
    trainer = Trainer("plain", config, 0, CPU)

    def rows(target, count):
        trainer.ada.config = dataclasses.replace(config, ada_target=target)
        for _ in range(count):
            for _ in range(STEPS):
                trainer.step(reals(trainer.images_a_step, 32, trainer.steps))
            yield trainer.take_means(STEPS)["augment_p"]

    assert all(p == 0 for p in rows(1.0, 3))  # never so sure of its real images
    assert set(seen) == {("adaptive", False)}
    *_, p = rows(-1.5, 3)  # always surer
    assert p == pytest.approx(3 * STEPS * trainer.images_a_step / 1000)
    assert trainer.ada.acts == (p >= TAKES_OVER)
    *_, p = rows(-1.5, math.ceil(TAKES_OVER * 1000 / STEPS / trainer.images_a_step))
    seen.clear()
    *_, p = rows(-1.5, 1)
    assert set(seen) == {("adaptive", True)}
    later = Trainer("plain", config, 0, CPU)
    later.restore(trainer.state())
    assert later.ada.acts
    *_, p = rows(1.5, 100)  # and back
    assert p == 0
    assert not trainer.ada.acts


def test_make_config_is_the_recipe_of_every_architecture():
    for name in ARCHITECTURES:
        config = make_config(name, 64)
        assert isinstance(config, Hyperparameters)
        assert config.loss in gan.trainer.LOSSES
        assert config.penalty == "none" or config.penalty in gan.trainer.PENALTIES
