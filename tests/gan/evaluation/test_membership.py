import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from dermsynth import checkpoint
from dermsynth.device import resolve
from dermsynth.symmetries import COUNT, turn
from gan.evaluation.membership import NO_DISCRIMINATOR, discriminator_scores, membership, words
from gan.networks import make_config
from gan.trainer import Trainer
from gan.weights import CHECKPOINT

CPU = resolve("cpu", "fp32")


def spaces(distances):
    return {"features": distances, "pixels": distances[:, ::1]}


def test_a_memorising_generator_is_caught_and_a_fair_one_is_not():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(75), 2)
    fair = rng.uniform(1, 2, (60, 150))
    found = membership(spaces(fair), NO_DISCRIMINATOR, groups, 100)
    assert found.pool_features.low < 0.5 < found.pool_features.high
    copied = fair.copy()
    copied[np.arange(60), np.arange(60)] = 0.1  # 60 of 100 members have a copy
    caught = membership(spaces(copied), NO_DISCRIMINATOR, groups, 100)
    assert caught.pool_features.low > 0.6
    member = np.arange(150) < 100
    expected = roc_auc_score(member, -copied.min(0))
    assert caught.pool_pixels.auc == pytest.approx(expected)
    assert (caught.pool_pixels.n_other, caught.pool_pixels.n_real) == (100, 50)
    assert "discriminator" not in words(caught)


def test_a_discriminator_that_saw_its_images_too_often_gives_them_away(make_lesions, tmp_path):
    real = make_lesions(60, 32, seed=1)
    config = dataclasses.replace(make_config("dcgan", 32), width=16, augment="none", batch=20)
    trainer = Trainer("dcgan", config, 0, CPU)
    checkpoint.save(tmp_path / "young" / CHECKPOINT, trainer.state())
    other = make_lesions(60, 32, seed=2)
    optimizer = torch.optim.Adam(trainer.discriminator.parameters(), 2e-3)
    for step in range(60):  # as against a generator that is no match for it
        images = np.concatenate([real[:20], other[np.arange(20) + 20 * (step % 3)]])
        shown = torch.from_numpy(turn(images, step % COUNT).copy()).permute(0, 3, 1, 2)
        (logits,) = trainer.discriminator(shown / 127.5 - 1)
        loss = F.relu(1 - logits[:20]).mean() + F.relu(1 + logits[20:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    checkpoint.save(tmp_path / "old" / CHECKPOINT, trainer.state())
    distances = spaces(np.ones((10, 60)))
    aucs = []
    for run in ("young", "old"):
        scores = discriminator_scores(tmp_path / run, real, CPU)
        found = membership(distances, scores, np.arange(60), 20)
        aucs.append(found.discriminator)
    assert aucs[0].low < 0.5 < aucs[0].high
    assert aucs[1].low > 0.6
    assert "discriminator" in words(found)


def test_a_checkpoint_of_another_version_is_not_asked(make_lesions, tmp_path):
    config = dataclasses.replace(make_config("dcgan", 32), width=4)
    state = Trainer("dcgan", config, 0, CPU).state()
    checkpoint.save(tmp_path / CHECKPOINT, state | {"version": 2})
    assert "another version" in discriminator_scores(tmp_path, make_lesions(3, 32), CPU)


def test_without_a_checkpoint_the_reason_is_given(make_lesions, tmp_path):
    reason = discriminator_scores(tmp_path, make_lesions(4, 32), CPU)
    found = membership(spaces(np.ones((3, 4))), reason, np.arange(4), 2)
    assert found.discriminator is None
    assert "checkpoint" in found.no_discriminator


@pytest.mark.slow
def test_a_training_of_fifty_images_without_augmentation_is_found_out(make_lesions, tmp_path):
    real = make_lesions(150, 32, seed=1)
    config = dataclasses.replace(make_config("dcgan", 32), width=16, augment="none", batch=25)
    trainer, rng = Trainer("dcgan", config, 0, CPU), np.random.default_rng(0)
    for _ in range(1000):  # 500 epochs
        trainer.step(torch.from_numpy(real[rng.permutation(50)[:25]]))
    checkpoint.save(tmp_path / CHECKPOINT, trainer.state())
    scores = discriminator_scores(tmp_path, real, CPU)
    found = membership(spaces(np.ones((10, 150))), scores, np.arange(150), 50)
    assert found.discriminator.low > 0.55
