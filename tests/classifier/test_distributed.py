"""Several processes train the classifier that one would have trained."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from classifier.model.shared_norm import share_statistics
from classifier.options import TrainOptions
from classifier.training.follow import run_loop
from classifier.training.loop import Loop
from classifier.training.setup import build_model, resolve
from classifier.training.trunk_cache import FeatureCache
from data.store import write_dataset
from dermsynth.device import Compute
from dermsynth.distributed import Processes, check_shares
from dermsynth.errors import UserError
from dermsynth.options import replace
from dermsynth.vision import library

ROOT = Path(__file__).parents[2]
COUNT = 2


class Table:
    """Where threads put their values down for each other."""

    def __init__(self) -> None:
        self.values, self.barrier = [None] * COUNT, threading.Barrier(COUNT, timeout=120)

    def exchange(self, rank, value):
        self.values[rank] = value
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found

    def __deepcopy__(self, memo):
        return self  # the one table, also of a network that is copied


@dataclass(frozen=True)
class Threads(Processes):
    """Processes that are threads: the same exchanges, without the start of a Python each."""

    table: Table = field(default_factory=Table)

    def sum_(self, tensor):
        return tensor.copy_(sum(self.table.exchange(self.rank, tensor.clone())))

    def rank0_gives(self, value):
        return self.table.exchange(self.rank, value)[0]

    rank0_decides = rank0_gives

    def gather(self, value):
        return self.table.exchange(self.rank, value)


def together(work):
    """What `work(processes)` gives in each thread."""
    table = Table()

    def guarded(rank):
        try:
            return work(Threads(rank, COUNT, table))
        except BaseException:
            table.barrier.abort()  # the other one would wait for this one
            raise

    with ThreadPoolExecutor(COUNT) as pool:
        return list(pool.map(guarded, range(COUNT)))


@pytest.fixture(scope="module")
def many(tmp_path_factory, make_images, make_table):
    """480 images of 32 px in three parts; 160 are three blocks of scoring."""
    targets = np.arange(480) % 4 == 0
    table = make_table(targets.astype(int), np.repeat(np.arange(120) % 3 - 1, 4))
    return write_dataset(
        tmp_path_factory.mktemp("data") / "many", make_images(targets, 32), table, {}
    )


@pytest.fixture
def options(many, tmp_path):
    return replace(
        TrainOptions(),
        data=many.path,
        backbone="vanilla-cnn",
        weights="none",
        size=32,
        dropout=0.0,
        epochs=3,
        batch=40,
        lr=0.01,
        device="cpu",
        precision="fp32",
        tracking="none",
        out=tmp_path / "run",
    )


@pytest.fixture
def in_float64(monkeypatch):
    """In float32 rounding turns maxima over, and is a percent of some gradients in one step."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


# --- batch norm ----------------------------------------------------------------------------------


def network():
    library("timm")
    from timm.layers.norm_act import BatchNormAct2d

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3)]
    layers += [BatchNormAct2d(4, act_layer=nn.SiLU), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))


def passed(model, images):
    """What two passes give: outputs, gradients with respect to the images, and the model."""
    for _ in range(2):
        inputs = images.clone().requires_grad_()
        outputs = model(inputs)
        outputs.square().mean().backward()
    return outputs.detach(), inputs.grad, model


def test_batch_norm_over_shares_is_that_of_the_whole_batch():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(20, 1, (8, 3, 9, 9)).astype(np.float32))
    outputs, gradients, whole = passed(network(), images)

    models = [network() for _ in range(COUNT)]  # seeds are all threads' own

    def share(processes):
        model = models[processes.rank]
        share_statistics(model, processes)
        result = passed(model, images[processes.share(8)])
        processes.mean_gradients(model.parameters())
        return result

    shares = together(share)
    torch.testing.assert_close(torch.cat([each[0] for each in shares]), outputs)
    # a share's loss is the mean over its own images
    by_images = torch.cat([each[1] for each in shares]) / COUNT
    torch.testing.assert_close(by_images, gradients, rtol=1e-4, atol=1e-6)
    for _, _, model in shares:
        assert list(model.state_dict()) == list(whole.state_dict())
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, msg=name)
        for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.eval()(images), whole.eval()(images))


# --- the loop ------------------------------------------------------------------------------------


def trained(setup, model, folder, processes=None):
    """The loop after its training in float64, and what its best model predicts."""
    place = Compute(torch.device("cpu"), "fp32")
    loop = Loop(setup, model.double(), place, FeatureCache(), folder, processes)
    return loop, run_loop(loop, 0, None)


KINDS = {
    "mixed": {"cutmix": 0.5, "mixup": 0.3, "clip": 0.1, "ema": 0.5},
    "parts": {"accumulate": 4, "sampler": "balanced", "class_weights": "balanced", "tta": 8},
    "kept": {"backbone": "efficientnet-lite0", "weights": "imagenet", "frozen": 13, "views": 2},
    "styles": {"backbone": "vanilla-cnn", "frozen": 2, "mixstyle": 0.7, "accumulate": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_shares_train_the_model_of_the_whole_batch(kind, options, tmp_path, in_float64):
    setup = resolve(replace(options, **KINDS[kind], epochs=2, out=None))
    models = [build_model(setup)[0] for _ in range(COUNT + 1)]
    if kind == "kept":  # drop connect has dice of its own in each process
        for net in (model.backbone.net for model in models):
            net._global_params = net._global_params._replace(drop_connect_rate=0.0)
    whole, predicted = trained(setup, models.pop(), tmp_path / "one")

    def share(processes):
        rank = processes.rank
        return trained(setup, models[rank], tmp_path / f"rank{rank}", processes)

    loops = together(share)
    state = whole.model.state_dict()
    for loop, rows in loops:
        pd.testing.assert_frame_equal(rows, predicted, rtol=1e-5, atol=1e-6)
        for row, expected in zip(loop.history, whole.history, strict=True):
            assert row == pytest.approx(expected, rel=1e-5)
        for name, value in loop.model.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=1e-5, atol=1e-6, msg=name)
    (one, rows), (other, _) = loops
    assert all(
        (value == other.model.state_dict()[name]).all()
        for name, value in one.model.state_dict().items()
    )
    assert (tmp_path / "rank0" / "checkpoint").is_dir()
    assert not (tmp_path / "rank1").exists()
    if kind == "kept":  # what this process looked at
        stores = [loop.trunk._store(loop.batches.real) for loop, _ in loops]
        assert all(0 < store.known.mean() < 1 for store in stores)
    assert len(rows) == 320


def test_blocks_are_all_rows_once_and_cut_where_one_process_cuts():
    for n, size in ((0, 4), (1, 4), (160, 64), (161, 16), (7, 1)):
        cuts = [Processes(rank, 3).blocks(n, size) for rank in range(3)]
        assert [row for cut in cuts for row in range(n)[cut]] == list(range(n))
        assert all(cut.start % size == 0 or cut.start == n for cut in cuts)


def test_a_batch_that_cannot_be_shared_is_refused_with_those_that_can():
    check_shares(40, 4, Processes(0, 5))
    with pytest.raises(UserError, match="--batch 40 or 48 would do"):
        check_shares(42, 4, Processes(0, 2))
    with pytest.raises(UserError, match="2 images or more, for batch norm; --batch 12 would do"):
        check_shares(6, 1, Processes(0, 6), least=2)


# --- torchrun ------------------------------------------------------------------------------------

COMMAND = """
import os, runpy, signal, sys
import torch
from classifier.training.loop import Loop

def in_float64(loop, setup, model, *more):
    init(loop, setup, model.double(), *more)

def faulty(loop, number):
    if number == 6 and os.environ.get("RANK") == "1":
        if os.environ["FAULT"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("a fault of process 1")
    step(loop, number)

step, init = Loop.step, Loop.__init__
if "FLOAT64" in os.environ:
    torch.Tensor.float, Loop.__init__ = torch.Tensor.double, in_float64
if "FAULT" in os.environ:
    Loop.step = faulty
runpy.run_module("classifier.train", run_name="__main__")
"""


@pytest.fixture
def command(options, tmp_path):
    """Runs the command, by `count` processes; returns how it ended."""
    script = tmp_path / "command.py"
    script.write_text(COMMAND)

    def run(count, out, *words, **environment):
        given = f"--data {options.task.data} --backbone vanilla-cnn --weights none --size 32"
        given += " --dropout 0 --epochs 3 --batch 40 --lr 0.01 --cutmix 0.5 --device cpu"
        given += f" --precision fp32 --tracking none --out {out}"
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        started = torchrun if count > 1 else []
        return subprocess.run(
            [sys.executable, *started, str(script), *given.split(), *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
        )

    return run


def results(out):
    return json.loads((out / "metrics.json").read_text()), load_file(out / "model.safetensors")


@pytest.mark.slow
def test_torchrun_gives_what_one_process_gives(command, other, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    external = ("--external", f"far={other.path}")
    assert command(1, one, *external, FLOAT64="").returncode == 0
    ended = command(2, two, *external, FLOAT64="")
    assert ended.returncode == 0, ended.stderr
    for line in ("2 processes", "next:", "trunk  "):
        assert ended.stdout.count(line) == 1
    assert ended.stderr.count("training: 100%") == 1
    (expected, weights), (metrics, shared) = results(one), results(two)
    assert list(metrics) == ["val", "test", "external/far"]
    for part, figures in expected.items():
        assert metrics[part] == pytest.approx(figures, rel=1e-5, abs=1e-6)
    for name, value in weights.items():
        torch.testing.assert_close(shared[name], value, rtol=1e-5, atol=1e-6, msg=name)
    rows, expected_rows = (pd.read_parquet(out / "predictions.parquet") for out in (two, one))
    pd.testing.assert_frame_equal(rows, expected_rows, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "raised"])
def test_all_end_with_one_and_go_on_from_its_checkpoint(fault, command, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    began = time.monotonic()
    ended = command(2, broken, FAULT=fault)
    assert ended.returncode != 0
    assert time.monotonic() - began < 180  # the start of two Pythons and torchrun's included
    assert ended.stderr.count("a fault of process 1") == (fault == "raised")
    assert ended.stderr.count("another process of this run has ended") <= 1
    left = {path.name for path in broken.rglob("*")}
    assert "metrics.json" not in left
    assert not [name for name in left if name.endswith(".partial")]
    ended = command(2, broken, "--resume")
    assert ended.returncode == 0, ended.stderr
    assert command(2, whole).returncode == 0
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_what_is_wrong_is_said_once_by_several(command, tmp_path):
    ended = command(2, tmp_path / "run", "--batch", "41")
    assert ended.returncode != 0
    assert ended.stderr.count("error: --batch 41") == 1
    assert "--batch 40 or 42 would do" in ended.stderr
    assert "exitcode  : 2" in ended.stderr
    assert not (tmp_path / "run").exists()
