import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from classifier.options import TrainOptions
from classifier.run_folder import open_run, read_facts
from classifier.train import train
from classifier.trained import load_trained
from classifier.training import outputs, scoring, setup
from classifier.training.batches import Batches
from classifier.training.loop import Loop
from classifier.training.losses import Loss
from classifier.training.schedule import learning_rate
from classifier.training.trunk_cache import FeatureCache
from data.pool import write_pool
from data.provenance import Provenance
from data.store import write_dataset
from dermsynth import cli
from dermsynth.device import resolve
from dermsynth.errors import UserError
from dermsynth.options import replace


@pytest.fixture
def options(tiny, tmp_path):
    return replace(
        TrainOptions(),
        data=tiny.path,
        backbone="efficientnet-lite0",
        frozen=11,
        size=32,
        epochs=3,
        batch=16,
        views=2,
        device="cpu",
        precision="fp32",
        tracking="none",
        out=tmp_path / "run",
    )


@pytest.fixture(autouse=True)
def no_plots(monkeypatch, request):
    """Drawing takes longer than these trainings; the end-to-end test does it."""
    if "end_to_end" not in request.node.name:
        monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)


@pytest.fixture
def pool(tiny, tmp_path, make_images):
    images = make_images(np.ones(80), 32, seed=5)
    return write_pool(
        tmp_path / "pool", images, Provenance(kind="declared", statement="drawn")
    ).path


def change(options, **changes):
    return replace(options, **changes)


def test_a_run_from_end_to_end(options, tiny, other, pool, capsys):
    options = change(
        options, epochs=6, lr=2e-3, synthetic="0.3", pool=pool, external=(f"far={other.path}",)
    )
    metrics = train(options)
    out = options.run.out
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert list(metrics) == ["val", "test", "external/far"]
    assert metrics["test"]["auc"] > 0.8  # the dark square is easy to see
    table = pd.read_parquet(out / "predictions.parquet")
    assert list(table.columns) == ["image_id", "group", "fold", "part", "target", "score"]
    assert table["score"].between(0, 1).all()
    for part, of in metrics.items():
        rows = table[table["part"] == part]
        assert of["auc"] == pytest.approx(roc_auc_score(rows["target"], rows["score"]))
        assert of["n"] == len(rows)
    assert (table.loc[table["part"] == "val", "fold"] == 0).all()
    assert metrics["external/far"]["n"] == 40
    saved = yaml.safe_load((out / "config.yaml").read_text())
    assert saved["pool"] == str(pool)
    for name in ("curves", "roc", "pr", "augmented"):
        assert (out / "plots" / f"{name}.png").stat().st_size > 5000
    sheet = np.asarray(Image.open(out / "plots" / "augmented.png"))  # 3 of each class, 3 synthetic
    assert sheet.shape == (20 + 9 * (32 + 20), 330, 3)
    facts = read_facts(open_run(out))
    epochs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    chosen = next(row for row in epochs if row.get("epoch") == facts.best_epoch)
    assert facts.best_epoch_figures.items() <= chosen.items()
    assert 0.8 < chosen["train_auc"] <= 1
    val = table[table["part"] == "val"]
    right = (val["score"] >= 0.5) == (val["target"] == 1)
    assert chosen["val_accuracy"] == pytest.approx(right.mean()) == metrics["val"]["accuracy"]
    assert chosen["val_loss"] == pytest.approx(metrics["val"]["log_loss"], rel=1e-3)
    assert f"epoch {facts.best_epoch} of 6, the best: training loss" in capsys.readouterr().out
    assert not (out / "checkpoint").exists()
    assert_rebuilds(out, tiny, table)


def assert_rebuilds(out, dataset, table):
    """model.safetensors and model.json give the same scores as predictions.parquet."""
    trained = load_trained(out)
    scores = trained.scores(dataset.images[dataset.rows("test", 0)], resolve("cpu", "fp32"))
    expected = table.loc[table["part"] == "test", "score"].to_numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-3)


class Killed(Exception):
    pass


def slow(*values):
    """A case for `make test-all`."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "kind",
    [
        {"oversample": "0.3"},
        {"views": 0, "backbone": "efficientnet-b0", "weights": "none", "frozen": 14}
        | {"augment": "strong-colour", "mixstyle": 0.5},
        slow({"batch_norm": "adapt", "epochs": 2, "views": 0}),
        slow(
            {"head_epochs": 1, "ema": 0.9, "clip": 1.0}
            | {"schedule": "plateau", "plateau_patience": 0}
        ),
        slow(
            {"cutmix": 0.5, "mixup": 0.3, "augment": "flips", "views": 0}
            | {"sampler": "balanced", "accumulate": 2}
        ),
    ],
    ids=["cached", "fresh", "adapt", "staged", "mixed"],
)
def test_resume_after_a_kill_equals_an_unbroken_run(options, kind, monkeypatch, tmp_path):
    options = change(options, **kind)
    whole = train(change(options, out=tmp_path / "whole"))
    step = Loop.step

    def dies(self, number):
        if number == self.per_epoch + 2:
            raise Killed
        return step(self, number)

    monkeypatch.setattr(Loop, "step", dies)
    with pytest.raises(Killed):
        train(options)
    monkeypatch.setattr(Loop, "step", step)
    assert train(change(options, resume=True)) == whole
    assert_same_run(options.run.out, tmp_path / "whole")


def test_ctrl_c_mid_epoch_saves_and_resumes_exactly(options, monkeypatch, tmp_path, capsys):
    import os
    import signal

    whole = train(change(options, out=tmp_path / "whole"))
    step = Loop.step

    def interrupted(self, number):
        if number == self.per_epoch + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, number)

    monkeypatch.setattr(Loop, "step", interrupted)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        train(options)
    assert not (options.run.out / "metrics.json").exists()
    monkeypatch.setattr(Loop, "step", step)
    assert train(change(options, resume=True)) == whole
    assert_same_run(options.run.out, tmp_path / "whole")
    assert train(change(options, resume=True)) == whole
    assert "finished already" in capsys.readouterr().out


def assert_same_run(one: Path, two: Path):
    for name in ("model.safetensors", "metrics.jsonl", "predictions.parquet", "metrics.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_memory_changes_speed_and_not_the_result(options, pool, tmp_path):
    options = change(options, epochs=2, synthetic="0.3", pool=pool)
    train(options)
    train(change(options, cache_gib=0.0, out=tmp_path / "slow"))
    assert_same_run(options.run.out, tmp_path / "slow")


def test_resume_refuses_other_options(options, monkeypatch):
    monkeypatch.setattr(Loop, "run", Killed)
    with pytest.raises(Exception):  # noqa: B017, PT011 - any way to die will do
        train(options)
    with pytest.raises(UserError, match="lr: was"):
        train(change(options, resume=True, lr=0.1))
    with pytest.raises(UserError, match="exists already"):
        train(options)
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        train(change(options, resume=True, out=options.run.out.parent / "absent"))


def test_arms_share_steps_and_order(options, pool, monkeypatch):
    seen = {}
    step = Loop.step

    def watch(self, number):
        seen.setdefault(arm, []).append(self.batches.order.positions(number)[0])
        return step(self, number)

    monkeypatch.setattr(Loop, "step", watch)
    arms = {"real": {}, "oversampled": {"oversample": "0.3"}, "synthetic": {"synthetic": "0.3"}}
    arms["synthetic"]["pool"] = pool
    cache = FeatureCache(1)
    for arm, changes in arms.items():
        train(change(options, epochs=2, out=options.run.out / arm, **changes), cache)
    assert len({len(steps) for steps in seen.values()}) == 1
    assert np.array_equal(seen["oversampled"], seen["synthetic"])


def test_early_stopping_keeps_the_best_epoch(options, monkeypatch):
    values = iter([0.6, 0.9, 0.7, 0.8, 0.95])
    monkeypatch.setattr(scoring, "roc_auc_score", lambda *_: next(values))
    monkeypatch.setattr(scoring.Scorer, "training_figures", lambda *_: {})
    train(change(options, epochs=5, patience=2))
    rows = [
        json.loads(line) for line in (options.run.out / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["val_auc"] for row in rows if "val_auc" in row] == [0.6, 0.9, 0.7, 0.8]
    facts = json.loads((options.run.out / "run.json").read_text())
    assert (facts["best_epoch"], facts["epochs"]) == (2, 4)


def test_an_allowed_leak_marks_every_output(options, tiny, tmp_path, make_images, generator_record):
    held_out = tiny.table["image_id"].to_numpy()[tiny.rows("val", 0)].tolist()
    made = generator_record(tiny, 1, held_out)
    provenance = Provenance(kind="generator", generator=made, generator_id="0" * 64, seed=0)
    pool = write_pool(tmp_path / "leaky", make_images(np.ones(30), 32), provenance).path
    options = change(options, synthetic="0.3", pool=pool, epochs=1)
    with pytest.raises(UserError, match=held_out[0]):
        train(options)
    assert not options.run.out.exists()
    metrics = train(change(options, allow_leakage=True))
    assert all(held_out[0] in of["leaky"] for of in metrics.values())
    assert pd.read_parquet(options.run.out / "predictions.parquet")["leaky"].all()
    config = (options.run.out / "config.yaml").read_text()
    assert config.startswith("# LEAKY")
    assert yaml.safe_load(config)["allow_leakage"] is True
    for name in ("model.json", "run.json"):
        assert held_out[0] in json.loads((options.run.out / name).read_text())["leaky"]


def test_a_loss_that_is_not_finite_stops_with_the_last_good_state(options, monkeypatch):
    loss, calls = Loss.__call__, []

    def breaks(self, logits, targets):
        calls.append(1)
        return loss(self, logits, targets) * (float("nan") if len(calls) > 8 else 1)

    monkeypatch.setattr(Loss, "__call__", breaks)
    with pytest.raises(UserError, match=r"loss became nan at step .* lower --lr"):
        train(options)
    batch = json.loads((options.run.out / "bad_batch.json").read_text())
    assert len(batch["images"]["real"]) == options.steps.batch
    assert batch["images"]["real"][0].startswith("s0-")
    assert (options.run.out / "checkpoint" / "newest.safetensors").exists()


def test_out_of_memory_says_what_would_fit(options, monkeypatch):
    load, limit = Batches.load, 5

    def fails(self, key, positions, rounds):
        if len(positions) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return load(self, key, positions, rounds)

    monkeypatch.setattr(Batches, "load", fails)
    with pytest.raises(UserError, match=r"out of memory at --batch 16.*--accumulate 4 computes 4"):
        train(options)
    limit = 0
    with pytest.raises(UserError, match=r"out of memory.*lower --size"):
        train(change(options, overwrite=True))


def test_a_batch_in_parts_takes_the_same_steps(options, tmp_path):
    # no batch norm and no dropout: else the parts see other statistics and other dice
    plain = {
        "backbone": "timm:test_vit",
        "weights": "none",
        "frozen": 0,
        "dropout": 0.0,
        "epochs": 1,
    }
    plain |= {"size": 160, "views": 0}
    whole = train(change(options, **plain))
    parts = train(change(options, **plain, accumulate=4, out=tmp_path / "parts", augment="none"))
    same = train(change(options, **plain, out=tmp_path / "same", augment="none"))
    assert parts["val"]["auc"] == pytest.approx(same["val"]["auc"], abs=0.02)
    scores = [
        pd.read_parquet(tmp_path / name / "predictions.parquet")["score"]
        for name in ("parts", "same")
    ]
    np.testing.assert_allclose(*scores, atol=2e-3)
    assert whole != same  # augmentation does something


def test_a_dataset_without_test_part(options, tiny, tmp_path):
    rows = np.concatenate([tiny.rows("train", 0), tiny.rows("val", 0)])
    table = tiny.table.iloc[rows].reset_index(drop=True)
    data = write_dataset(tmp_path / "d", tiny.images[rows], table, {}).path
    metrics = train(change(options, data=data, epochs=1))
    assert metrics["test"]["auc"] is None
    assert metrics["test"]["n"] == 0


def test_one_class_in_validation_is_an_error(options, tmp_path, make_images, make_table):
    targets = np.r_[np.zeros(20), np.arange(20) % 2].astype(int)
    folds = np.repeat([0, 1], 20)
    write_dataset(tmp_path / "d", make_images(targets, 32), make_table(targets, folds), {})
    with pytest.raises(
        UserError, match=r"all 20 images of the validation part .* are not malignant"
    ):
        train(change(options, data=tmp_path / "d"))
    metrics = train(change(options, data=tmp_path / "d", monitor="loss", epochs=1))
    undefined = ("auc", "balanced_accuracy", "threshold", "partial_auc_tpr80")
    assert [metrics["val"][name] for name in undefined] == [None] * 4
    assert metrics["val"]["brier"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"synthetic": "1.0"}, r"--synthetic 1\.0: expected a share"),
        ({"oversample": "-0.1"}, "--oversample -0.1"),
        ({"synthetic": "0.1", "oversample": "0.1"}, "give one of them"),
        ({"pool": Path("x")}, "say how much with --synthetic"),
        ({"synthetic": "0.1", "pool": Path("x"), "generator": Path("y")}, "give one of them"),
        ({"backbone": "efficientnet-b3", "frozen": 27}, "--frozen 27: efficientnet-b3 has 26"),
        ({"frozen": -1}, "--frozen -1"),
        ({"backbone": "resnet18"}, "--backbone resnet18: unknown; choose one of efficientnet-b0"),
        ({"fold": 9}, r"--fold 9: .* has folds \[0, 1, 2\]"),
        ({"fold": -1}, "--fold -1"),
        ({"size": 16}, "--size 16: expected a whole number from 32"),
        ({"epochs": 0}, "--epochs 0"),
        ({"batch": 1}, "--batch 1"),
        ({"lr": -1.0}, "--lr -1.0"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"views": -1}, "--views -1"),
        ({"data": Path("nowhere")}, "no prepared dataset there"),
        ({"external": ("far",)}, "expected NAME=FOLDER"),
        ({"external": ("far=nowhere",)}, "no prepared dataset there"),
        ({"resume": True, "out": None}, "--resume: give the run's folder"),
        ({"weights": "absent.pth"}, "no such file"),
    ],
)
def test_bad_input(options, changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        train(change(options, **changes))
    assert not (tmp_path / "runs").exists()
    assert not options.run.out.exists()


def test_bad_externals(options, other):
    twice = (f"a={other.path}", f"a={other.path}")
    with pytest.raises(UserError, match="given twice"):
        setup.resolve(change(options, external=twice))


def test_synthetic_without_any_generator_names_the_command(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"python -m gan.train --data \S+ --fold 0"):
        setup.resolve(change(options, synthetic="balanced"))


@pytest.mark.parametrize("schedule", ["one-cycle", "constant"])
def test_learning_rate(options, schedule):
    options = change(options, schedule=schedule, epochs=4, lr=1e-3)
    rates = [learning_rate(options.steps, step, 25, 1e-3) for step in range(100)]
    assert max(rates) == pytest.approx(1e-3, rel=1e-3)
    assert rates[0] < 1e-4
    assert int(np.argmax(np.isclose(rates, max(rates)))) in range(23, 27)
    assert rates[-1] == pytest.approx(0 if schedule == "one-cycle" else 1e-3, abs=1e-9)


def test_command_line_and_its_config_agree(options, tmp_path):
    argv = ["--data", "d", "--synthetic", "0.3", "--external", "a=x", "--external", "b=y"]
    parsed = cli.parse(TrainOptions, argv, "p", "d")
    assert parsed.training_set.external == ("a=x", "b=y")
    cli.save_options(parsed, tmp_path)
    again = cli.parse(TrainOptions, ["--config", str(tmp_path / "config.yaml")], "p", "d")
    assert again == parsed


def test_rerun_replaces_only_when_asked(options):
    train(change(options, epochs=1))
    before = (options.run.out / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        train(change(options, epochs=1, seed=1))
    train(change(options, epochs=1, seed=1, overwrite=True))
    assert (options.run.out / "model.safetensors").read_bytes() != before
    assert [path.name for path in options.run.out.parent.iterdir()] == ["run"]
    shutil.rmtree(options.run.out)


def test_a_test_fold_is_tested_on_and_never_trained_on(tiny, options, tmp_path):
    folds = tiny.table["fold"].where(tiny.table["fold"] >= 0, 3)  # no test part of its own
    whole = write_dataset(tmp_path / "d", tiny.images[:], tiny.table.assign(fold=folds), {})
    asked = replace(options, data=whole.path, fold=1, test_fold=0, malignant_share=0.5, epochs=1)
    found = setup.resolve(asked)
    trained = set(found.dataset.table["fold"].iloc[found.training.rows])
    assert trained == set(folds) - {0, 1}
    train(asked)
    predictions = pd.read_parquet(options.run.out / "predictions.parquet")
    tested = set(predictions.loc[predictions["part"] == "test", "image_id"])
    assert tested == set(whole.table.loc[folds == 0, "image_id"])
