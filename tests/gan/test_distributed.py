import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dermsynth.distributed import Processes

ROOT = Path(__file__).parents[2]

TWO_PROCESSES = """
import sys, numpy as np, torch, gan.loop
from pathlib import Path
from dermsynth.options import replace
from gan.trainer import Trainer
from gan.train import TrainOptions, train
step, seen = Trainer.step, []
def watched(trainer, real, labels=None):
    step(trainer, real, labels)
    seen.append(len(real))
    if trainer.steps == int(sys.argv[3]):
        raise SystemExit(9)
    if trainer.steps == 6:
        networks = trainer.generator, trainer.ema
        flat = [p.detach().flatten() for n in networks for p in n.parameters()]
        flat += [b.float().flatten() for b in trainer.discriminator.buffers()]
        np.save(f"{sys.argv[2]}-rank{trainer.processes.rank}.npy", torch.cat(flat).numpy())
        assert seen[0] == 4
Trainer.step = watched
gan.loop.CHECKPOINT_SECONDS = 0.0
train(replace(TrainOptions(), data=Path(sys.argv[1]), out=Path(sys.argv[2]), kimg=0.048,
    batch=8, device="cpu", precision="fp32", tracking="none", recipe=("ngf=4", "ndf=4"),
    resume=sys.argv[4] == "resume"))
"""


@pytest.mark.slow
def test_two_processes_train_one_network_and_resume(dataset, tmp_path):
    """Both end with the same weights; killed after step 4, they end there all the same."""
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)

    def launch(out, stop_at=0, resume="new"):
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
        return subprocess.run(
            [sys.executable, *words, str(dataset.path), str(out), str(stop_at), resume],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    result = launch(whole)
    assert result.returncode == 0, result.stderr
    ranks = [np.load(f"{whole}-rank{rank}.npy") for rank in (0, 1)]
    assert (ranks[0] == ranks[1]).all()
    assert np.isfinite(ranks[0]).all()
    assert launch(broken, stop_at=4).returncode != 0
    assert not (broken / "generator.json").exists()
    result = launch(broken, resume="resume")
    assert result.returncode == 0, result.stderr
    assert "going on from" in result.stdout
    assert (whole / "generator.safetensors").read_bytes() == (
        broken / "generator.safetensors"
    ).read_bytes()


def test_a_tensor_is_averaged_in_place_over_one_process():
    alone, tensor = Processes(), torch.ones(3)
    alone.mean_([tensor])
    assert alone.is_rank0
    assert alone.rank0_decides(5) == 5
    assert (tensor == 1).all()


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused_once(dataset, tmp_path):
    out = tmp_path / "run"
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "gan.train"]
    words += ["--data", dataset.path, "--batch", "9", "--device", "cpu", "--out", out]
    result = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode != 0
    assert result.stderr.count("error: --batch 9") == 1
    assert "--batch 8 or 10 would do" in result.stderr
    assert not out.exists()
