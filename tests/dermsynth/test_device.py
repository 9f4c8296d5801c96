"""Devices that are not there, and the torchvision mend."""

import importlib
import importlib.metadata
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from dermsynth import device
from dermsynth.errors import UserError


def _pretend(monkeypatch, versions: dict[str, str]) -> None:
    """As if these packages were installed, and no others."""

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize("name", ["xla", "tpu"])
def test_a_package_that_is_not_installed_is_named_with_a_way_out(name: str, monkeypatch):
    _pretend(monkeypatch, {})
    with pytest.raises(UserError, match=f"--device {name}: torch_{name} is not installed.*auto"):
        device.resolve(name, "auto")


def test_torch_xla_beside_another_torch_names_both_versions(monkeypatch):
    _pretend(monkeypatch, {"torch-xla": "2.9.0"})
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    monkeypatch.setitem(sys.modules, "torch_xla", None)  # is not even tried
    with pytest.raises(UserError, match=r"torch_xla 2\.9\.0 .*torch 2\.9 only.*2\.13\.0\+cpu"):
        device.resolve("xla", "auto")


@pytest.mark.parametrize("name", ["xla", "tpu"])
def test_what_else_keeps_a_package_from_starting_is_said_verbatim(name: str, monkeypatch):
    def fail(package: str) -> None:
        raise ImportError("libfoo.so: cannot open shared object file\nand more")

    _pretend(monkeypatch, {"torch-xla": torch.__version__, "torch-tpu": "0.2.0"})
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(UserError, match=r"does not start: libfoo\.so: cannot open [a-z ]*; mend"):
        device.resolve(name, "auto")


def test_a_machine_without_the_device_is_told_apart_from_an_environment_without_it(monkeypatch):
    def no_chip() -> torch.device:
        raise RuntimeError("TPU initialization failed: No ba16c7433 device found.")

    _pretend(monkeypatch, {"torch-xla": torch.__version__})
    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(device=no_chip))
    with pytest.raises(UserError, match=r"--device xla: .*No ba16c7433 device found"):
        device.resolve("xla", "auto")


def test_the_cpu_is_not_taken_for_a_tpu_unless_it_is_asked_for(monkeypatch):
    cpu = SimpleNamespace(device=lambda: torch.device("cpu"), device_type=lambda: "CPU")
    _pretend(monkeypatch, {"torch-xla": torch.__version__})
    monkeypatch.setattr(importlib, "import_module", lambda _: cpu)
    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    assert device.resolve("xla", "fp32").device == torch.device("cpu")
    monkeypatch.delenv("PJRT_DEVICE")
    with pytest.raises(UserError, match=r"--device xla: .*finds no TPU; PJRT_DEVICE=CPU"):
        device.resolve("xla", "fp32")


@pytest.mark.parametrize(
    ("built", "hidden", "words"),
    [
        (None, None, "is a build without CUDA"),
        ("12.8", None, "built for CUDA 12.8, sees no CUDA GPU; "),
        ("12.8", "", r"sees no CUDA GPU \(CUDA_VISIBLE_DEVICES is ''\)"),
    ],
)
def test_why_there_is_no_gpu(built: str | None, hidden: str | None, words: str, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    with pytest.raises(UserError, match=f"--device cuda: torch .*{words}.*auto"):
        device.resolve("cuda", "auto")


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
