"""Devices that are not there, tracking that never prompts nor stalls, and the torchvision mend."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dermsynth import device
from dermsynth.errors import UserError
from dermsynth.tracking import Tracker


@pytest.mark.parametrize("name", ["cuda", "xla", "tpu"])
def test_an_absent_device_is_named_with_a_way_out(name: str, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torch_xla", None)
    monkeypatch.setitem(sys.modules, "torch_tpu", None)
    with pytest.raises(UserError, match=f"--device {name}.*auto"):
        device.resolve(name, "auto")


def test_precision_is_obeyed():
    layer = torch.nn.Linear(8, 8)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        compute = device.resolve("cpu", precision)
        with compute.autocast():
            assert layer(torch.ones(1, 8)).dtype == dtype
    assert device.resolve("cpu", "auto", cpu_auto="fp32").precision == "fp32"


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_file_of_a_resumed_run_equals_an_unbroken_one(tmp_path: Path):
    with Tracker(tmp_path, "none", {}, "gan") as tracker:
        for step in range(5):
            tracker.log(step, loss=step / 2)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    with Tracker(tmp_path, "none", {}, "gan", resume_step=2) as tracker:
        tracker.log(3, loss=9.0)
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        (0, 0.0),
        (1, 0.5),
        (2, 1.0),
        (3, 9.0),
    ]


@pytest.mark.parametrize("mode", ["auto", "offline"])
def test_without_a_key_wandb_works_offline(tmp_path: Path, mode: str, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    with Tracker(tmp_path, mode, {"lr": 1}, "gan") as tracker:
        tracker.log(1, auc=0.5)
    assert rows(tmp_path) == [{"step": 1, "auc": 0.5}]
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


UNREACHABLE = """
import sys
from pathlib import Path
from dermsynth import tracking
tracking.PATIENCE = 3
with tracking.Tracker(Path(sys.argv[1]), "auto", {}, "gan") as tracker:
    tracker.log(1, auc=0.5)
"""


def test_with_a_key_but_no_server_the_run_goes_on_offline(tmp_path: Path):
    environment = {
        "WANDB_API_KEY": "0" * 40,
        "WANDB_BASE_URL": "http://127.0.0.1:9",  # the discard port: nobody answers
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "going on offline" in done.stdout
    assert rows(tmp_path) == [{"step": 1, "auc": 0.5}]
    assert time.monotonic() - start < 60


def test_torchvision_imports_beside_a_cpu_build_of_torch():
    code = "from dermsynth.vision import library\n"
    code += "for name in ('transforms', 'models', 'utils'): library(f'torchvision.{name}')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
