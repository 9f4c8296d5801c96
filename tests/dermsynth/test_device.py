"""Devices that are not there, and the torchvision mend."""

import subprocess
import sys

import pytest
import torch

from dermsynth import device
from dermsynth.errors import UserError


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


def test_torchvision_imports_beside_a_cpu_build_of_torch():
    code = "from dermsynth.vision import library\n"
    code += "for name in ('transforms', 'models', 'utils'): library(f'torchvision.{name}')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
