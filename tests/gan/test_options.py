import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

import gan.loop
import gan.trainer
import gan.training_run
from dermsynth import checkpoint
from dermsynth.errors import UserError
from dermsynth.options import replace
from gan.train import train
from gan.training_run import resolve_config

ROOT = Path(__file__).parents[2]


def test_a_recipe_changes_the_config(options):
    train(replace(options, recipe=("ngf=8", "loss=non-saturating", "penalty=r1")))
    config = json.loads((options.run.out / "generator.json").read_text())["architecture"]["config"]
    assert (config["ngf"], config["ndf"], config["batch"]) == (8, 4, 4)
    assert (config["loss"], config["penalty"]) == ("non-saturating", "r1")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ngf", "expected NAME=VALUE"),
        ("size=64", "other than size"),
        ("colour=red", "unknown key colour.*known:.*lr_generator"),
        ("ngf=many", "ngf"),
        ("loss=cosine", "loss"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(options, word, message):
    with pytest.raises(UserError, match=rf"--recipe {word}.*{message}"):
        train(replace(options, recipe=(word,)))
    assert not options.run.out.exists()


@pytest.mark.parametrize(
    ("word", "when"),
    [
        ("penalty_weight=2", "penalty=gp, r1 or r1r2"),
        ("penalty_every=4", "penalty=gp, r1 or r1r2"),
        ("ada_target=0.5 augment=translation", "augment=ada or adaptive"),
        ("ada_kimg=9 augment=none", "augment=ada or adaptive"),
        ("class_weight=2", "--arch acgan"),
    ],
)
def test_a_recipe_without_effect_is_refused(options, word, when):
    first, *rest = word.split()
    with pytest.raises(UserError, match=rf"--recipe {first}.*: has an effect with .*{when} only"):
        train(replace(options, recipe=(first, *rest)))
    assert not options.run.out.exists()


def test_a_recipe_beside_what_it_needs_is_taken(options):
    for recipe in (
        ("penalty=r1", "penalty_weight=2", "penalty_every=4"),
        ("augment=ada", "ada_target=0.5", "ada_kimg=9"),
    ):
        config = resolve_config(replace(options, recipe=recipe), 32, 0)
        assert config.penalty_weight in (0, 2)
    config = resolve_config(replace(options, arch="acgan", recipe=("class_weight=2",)), 32, 2)
    assert config.class_weight == 2


def test_the_batch_is_the_architectures_unless_given(options):
    for given, expected in ((None, 8), (6, 6)):
        plan = replace(options, arch="fastgan", batch=given)
        assert resolve_config(plan, 64, 0).batch == expected


def test_parts_that_do_not_divide_the_batch_are_refused(options):
    for accumulate in (3, 4):
        with pytest.raises(UserError, match=f"--batch 4, {accumulate} part"):
            train(replace(options, accumulate=accumulate))


@pytest.mark.slow
def test_a_batch_in_parts_trains_and_resumes(options, monkeypatch, tmp_path):
    options = replace(options, batch=8, accumulate=2, kimg=0.048)
    whole = train(options)
    broken = replace(options, out=tmp_path / "broken")
    step = gan.trainer.Trainer.step
    with monkeypatch.context() as patch:

        def stop_at_3(trainer, *batch):
            step(trainer, *batch)
            if trainer.steps == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(gan.trainer.Trainer, "step", stop_at_3)
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    train(replace(broken, resume=True))
    assert (broken.run.out / "generator.safetensors").read_bytes() == (
        whole / "generator.safetensors"
    ).read_bytes()


def test_a_checkpoint_of_another_recipe_is_refused_with_the_difference(options, monkeypatch):
    """As after a change of the code: the options are the same, what they mean is not."""
    train(options)
    make = gan.training_run.make_config
    monkeypatch.setattr(
        gan.training_run, "make_config", lambda *a: dataclasses.replace(make(*a), lr_generator=0.5)
    )
    with pytest.raises(UserError, match=r"--resume .*\n  lr_generator: was 0.0002, now 0.5"):
        train(replace(options, resume=True, kimg=0.04))


def test_ctrl_c_leaves_a_checkpoint_and_exit_code_130(options):
    code = (
        "import os, signal, gan.trainer as g; from gan.train import *; step = g.Trainer.step\n"
        "def stop(trainer, *batch):\n"
        "    step(trainer, *batch); trainer.steps == 2 and os.kill(os.getpid(), signal.SIGINT)\n"
        "g.Trainer.step = stop; cli.run(TrainOptions, train, 'gan.train', '')"
    )
    words = ["--data", options.images.data, "--minutes", "5", "--batch", "4", "--recipe", "ngf=4"]
    words += [
        "--recipe",
        "ndf=4",
        "--tracking",
        "none",
        "--device",
        "cpu",
        "--out",
        options.run.out,
    ]
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 130, result.stderr
    assert "--resume" in result.stderr
    assert (options.run.out / "checkpoint" / "newest.safetensors").exists()


def test_a_full_disk_is_said_and_leaves_the_checkpoint_before(options, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(gan.loop, "CHECKPOINT_SECONDS", 0.0)
    save, calls = checkpoint.save_file, []

    def full_the_third_time(*args, **words):
        calls.append(1)
        (full if len(calls) == 3 else save)(*args, **words)

    monkeypatch.setattr(checkpoint, "save_file", full_the_third_time)
    with pytest.raises(OSError, match=r"No space left.*checkpoint"):
        train(options)
    assert checkpoint.load(options.run.out / "checkpoint")["step"] == 2
