import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import gan.loop
import gan.train
import gan.trainer
import gan.training_run
import gan.weights
from dermsynth import manifest
from dermsynth.errors import UserError
from dermsynth.locks import locked
from dermsynth.options import replace
from dermsynth.verify import verify
from gan.train import train
from gan.training_images import training_rows
from gan.weights import load_generator, open_generator, read_description

ROOT = Path(__file__).parents[2]


def weights(run):
    return (run / "generator.safetensors").read_bytes()


def interrupt_after(monkeypatch, steps):
    """Ctrl-C during step number `steps`."""
    play = gan.trainer.Trainer.step

    def play_then_stop(trainer, real, labels=None):
        play(trainer, real, labels)
        if trainer.steps == steps:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(gan.trainer.Trainer, "step", play_then_stop)


def test_a_finished_run_holds_what_the_others_read(run, dataset):
    description = json.loads((run / "generator.json").read_text())
    table = dataset.table.set_index("image_id")
    folds = table.loc[description["training_ids"], "fold"]
    assert set(folds) == {1, 2, 3}  # neither its own fold 0 nor the test part
    assert len(folds) == 36
    assert description["folds_hash"] == dataset.folds_hash
    assert (description["fold"], description["seed"], description["size"]) == (0, 0, 32)
    assert description["targets"] == "malignant"
    assert description["kimg"] == 0.024
    assert (run / "samples" / "reals.png").exists()
    assert (run / "samples" / "00000024.png").exists()
    state = load_file(run / "generator.safetensors")
    assert all(torch.isfinite(t).all() for t in state.values())


def test_only_malignant_images_are_learnt_from(tmp_path, make_dataset):
    target = [i % 2 for i in range(100)]
    dataset = make_dataset(tmp_path / "both", 100, target=target)
    rows = training_rows(dataset, 1)
    assert set(dataset.targets(rows)) == {1}
    assert set(dataset.table["fold"].to_numpy()[rows]) == {0, 2, 3}


@pytest.mark.parametrize(("arch", "kimg"), [("lesiongan", 0.024), ("sngan", 0.12)])  # 6 steps
def test_an_interrupted_run_resumes_to_the_same_bits(options, monkeypatch, tmp_path, arch, kimg):
    options = replace(options, arch=arch, kimg=kimg)
    monkeypatch.setattr(gan.loop, "LOG_STEPS", 2)
    whole = train(options)
    broken = replace(options, out=tmp_path / "broken")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)  # between two rows of the log
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            train(broken)
    assert not (broken.run.out / "generator.json").exists()
    train(replace(broken, resume=True))
    assert weights(broken.run.out) == weights(whole)
    logs = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, broken.run.out)
    ]
    for row in (*logs[0], *logs[1]):
        row.pop("seconds")
    assert logs[0] == logs[1]
    assert [row["step"] for row in logs[0]] == [1, 2, 4, 6]


def test_a_killed_process_resumes_to_the_same_bits(options, run):
    code = (
        "import dataclasses, gan.loop as l, gan.training_run as t; from dermsynth import cli; "
        "from gan.train import *; "
        "make = t.make_config; "
        "t.make_config = lambda *a: dataclasses.replace(make(*a), ngf=4, ndf=4); "
        "l.CHECKPOINT_SECONDS = 0.0; cli.run(TrainOptions, train, 'gan.train', '')"
    )
    words = [
        "--data",
        str(options.images.data),
        "--kimg",
        "0.024",
        "--batch",
        "4",
        "--device",
        "cpu",
    ]
    words += ["--precision", "fp32", "--tracking", "none", "--out", str(options.run.out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (options.run.out / "checkpoint" / "newest.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    train(replace(options, resume=True))
    assert weights(options.run.out) == weights(run)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(options, monkeypatch, run):
    monkeypatch.setattr(gan.loop, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(options)
    newest = options.run.out / "checkpoint" / "newest.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    train(replace(options, resume=True))
    assert weights(options.run.out) == weights(run)


def test_resume_with_a_larger_budget_goes_on(options, tmp_path):
    train(options)
    longer = replace(options, kimg=0.032, resume=True)
    train(longer)
    straight = train(replace(options, kimg=0.032, out=tmp_path / "straight"))
    assert weights(options.run.out) == weights(straight)
    assert "kimg: 0.032" in (options.run.out / "config.yaml").read_text()


def test_minutes_count_over_resumes(options, monkeypatch):
    timed = replace(options, kimg=None, minutes=0.05)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(timed)
    train(replace(timed, resume=True))
    description = json.loads((options.run.out / "generator.json").read_text())
    assert 0.05 <= description["minutes"] < 0.2
    seen = description["kimg"]
    train(replace(timed, resume=True))  # nothing is left to do
    assert json.loads((options.run.out / "generator.json").read_text())["kimg"] == seen


def test_other_seeds_give_other_generators(options, tmp_path, run):
    other = train(replace(options, seed=1, out=tmp_path / "other"))
    assert weights(other) != weights(run)


def test_divergence_stops_and_keeps_the_last_good_checkpoint(options, monkeypatch):
    monkeypatch.setattr(gan.loop, "CHECKPOINT_SECONDS", 0.0)
    play = gan.trainer.Trainer.step

    def poisoned(trainer, real, labels=None):
        play(trainer, real, labels)
        if trainer.steps == 3:
            next(trainer.generator.parameters()).data.fill_(torch.nan)

    monkeypatch.setattr(gan.trainer.Trainer, "step", poisoned)
    with pytest.raises(UserError, match=r"diverged.*--seed"):
        train(options)
    state = load_file(options.run.out / "checkpoint" / "newest.safetensors")
    assert all(torch.isfinite(t).all() for t in state.values())
    assert not (options.run.out / "generator.json").exists()


def test_every_image_is_seen_once_an_epoch(options, monkeypatch):
    seen = []

    def watch(trainer, real, labels=None):
        seen.extend(real.sum((1, 2, 3)).tolist())  # no symmetry changes the sum
        trainer.steps += 1

    monkeypatch.setattr(gan.trainer.Trainer, "step", watch)
    monkeypatch.setattr(gan.trainer.Trainer, "take_means", lambda *_: {})
    train(replace(options, kimg=0.072))
    assert len(seen) == 72
    first, second = sorted(seen[:36]), sorted(seen[36:])
    assert first == second
    assert seen[:36] != seen[36:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": 7}, "--fold 7"),
        ({"data": Path("nowhere")}, "nowhere: no prepared dataset"),
        ({"arch": "biggan"}, "--arch biggan"),
        ({"kimg": 0.0}, "--kimg"),
        ({"kimg": float("nan")}, "--kimg"),
        ({"minutes": 1.0}, "give one of them"),
        ({"batch": 1}, "--batch 1"),
        ({"resume": True}, "--resume"),
        ({"device": "cuda"}, "--device cuda"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(options, change, message):
    if change.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=message):
        train(replace(options, **change))
    assert not options.run.out.exists()


def test_too_few_images_are_refused(tmp_path, options, make_dataset):
    dataset = make_dataset(tmp_path / "few", 60, target=[int(i < 9) for i in range(60)])
    with pytest.raises(UserError, match="5 malignant images"):
        train(replace(options, data=dataset.path))


def test_changed_options_are_refused_on_resume(options):
    train(options)
    with pytest.raises(UserError, match="seed: was 0, now 5"):
        train(replace(options, resume=True, seed=5))


def test_a_dataset_that_was_prepared_anew_is_refused_on_resume(options, make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "mine")
    options = replace(options, data=dataset.path)
    train(options)
    shutil.rmtree(dataset.path)
    make_dataset(dataset.path, 61)
    with pytest.raises(UserError, match="dataset: other ids, targets, groups, folds, images"):
        train(replace(options, resume=True, kimg=0.04))


def test_an_existing_run_is_kept_unless_overwrite(options):
    train(options)
    before = weights(options.run.out)
    with pytest.raises(UserError, match="--overwrite"):
        train(options)
    assert weights(options.run.out) == before
    train(replace(options, seed=3, overwrite=True))
    assert weights(options.run.out) != before
    assert sorted(path.name for path in options.run.out.parent.iterdir()) == ["run"]


def test_the_command_line_reports_bad_input_with_code_2(tmp_path):
    words = ["-m", "gan.train", "--data", str(tmp_path / "none"), "--minutes", "1"]
    result = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "no prepared dataset" in result.stderr
    assert "Traceback" not in result.stderr


def test_sample_grids_have_the_reals_first_images(run, dataset):
    from PIL import Image

    grid = np.asarray(Image.open(run / "samples" / "reals.png"))
    first = dataset.images[training_rows(dataset, 0)[0]]
    assert (grid[:32, :32] == first).all()


@pytest.mark.slow
def test_a_finished_run_can_be_used_while_it_goes_on(options, monkeypatch, capsys):
    run = train(options)
    before = weights(run)
    longer = replace(options, kimg=0.04, resume=True)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            train(longer)
    _, record = load_generator(run)  # the one that was finished
    assert record.kimg == 0.024
    assert weights(run) == before
    train(longer)
    assert read_description(run).kimg == 0.04
    assert open_generator(run).manifest.options["kimg"] == 0.04
    assert not [check for check in verify(run) if check.faults]
    capsys.readouterr()
    train(replace(longer, divergence="warn"))
    said = capsys.readouterr().out
    assert "finished, 0.04 kimg" in said
    assert "divergence: was stop, now warn" in said


def test_damaged_weights_are_written_again_by_a_resume(options):
    run = train(options)
    before = weights(run)
    (run / "generator.safetensors").write_bytes(before[:-7])
    with pytest.raises(UserError, match="--resume"):
        load_generator(run)
    train(replace(options, resume=True))
    assert weights(run) == before
    load_generator(run)


def test_a_finished_run_without_its_checkpoint_does_not_go_on(options):
    run = train(options)
    shutil.rmtree(run / "checkpoint")
    load_generator(run)
    train(replace(options, resume=True))  # nothing to do
    with pytest.raises(UserError, match="holds no checkpoint"):
        train(replace(options, resume=True, kimg=0.04))
    load_generator(run)


def test_a_run_and_its_dataset_can_be_moved(options, monkeypatch, make_dataset, tmp_path, run):
    options = replace(options, data=make_dataset(tmp_path / "mine").path)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(options)
    (tmp_path / "far").mkdir()
    moved = {"data": tmp_path / "far" / "mine", "out": tmp_path / "far" / "run"}
    options.images.data.rename(moved["data"])
    options.run.out.rename(moved["out"])
    monkeypatch.chdir(tmp_path / "far")
    train(replace(options, data=Path("mine"), out=Path("run"), device="auto", resume=True))
    assert weights(moved["out"]) == weights(run)


def test_an_overwritten_run_stays_until_the_new_one_is_finished(options, monkeypatch):
    run = train(options)
    before = weights(run)
    other = replace(options, seed=3, overwrite=True)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(other)
    assert weights(run) == before
    assert load_generator(run)[1].seed == 0
    beside = run.with_name(".run.unfinished")
    assert (beside / "checkpoint" / "newest.safetensors").exists()
    train(replace(other, overwrite=False, resume=True))
    assert load_generator(run)[1].seed == 3
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.slow
def test_a_kill_while_the_generator_is_written_leaves_a_run_that_goes_on(options, monkeypatch, run):
    def killed(*_):
        raise SystemExit(9)

    for name in ("write_generator", "manifest.seal"):
        target = gan.training_run if "." not in name else manifest
        with monkeypatch.context() as patch:
            patch.setattr(target, name.rpartition(".")[2], killed)
            with pytest.raises(SystemExit):
                train(replace(options, overwrite=True))
        with pytest.raises(UserError, match="not finished"):
            load_generator(options.run.out)
    train(replace(options, resume=True))
    assert weights(options.run.out) == weights(run)


def test_a_full_disk_keeps_the_checkpoint_before(options, monkeypatch, run):
    """The generator does not fit any more; the checkpoint did."""

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(gan.weights, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            train(options)
    train(replace(options, resume=True))
    assert weights(options.run.out) == weights(run)


def test_two_processes_do_not_write_one_folder(options):
    with locked(options.run.out.parent / "other"):
        train(options)  # another folder's lock is no hindrance
    code = (
        "import sys, time; from pathlib import Path; from dermsynth.locks import locked\n"
        "with locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(options.run.out)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"locked\n"
        for change in ({"overwrite": True}, {"resume": True, "kimg": 0.04}):
            with pytest.raises(UserError, match=f"process {holder.pid} .*is at work there"):
                train(replace(options, **change))
    finally:
        holder.kill()
        holder.wait()
    train(replace(options, resume=True, kimg=0.04))
