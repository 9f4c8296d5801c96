"""Where and in which precision a command computes: `--device`, `--precision`."""

import contextlib
import ctypes
import importlib
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from dermsynth import xla_operators
from dermsynth.errors import UserError
from dermsynth.options import DeviceName, PrecisionName


@dataclass(frozen=True)
class Compute:
    """A resolved device and precision."""

    device: torch.device
    precision: Literal["fp32", "bf16"]

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """bf16 autocast where the precision says so, else nothing. Keep penalties outside."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def step(self) -> None:
        """End of an optimizer step: torch_xla compiles what was queued, once, and starts it.

        Nothing waits for it. torch_tpu runs what it is told as it comes.
        """
        if self.device.type == "xla":
            import torch_xla

            torch_xla.sync()

    def filled(self, rows: np.ndarray, size: int) -> np.ndarray:
        """int64 [n] rows of a batch; on a TPU, which compiles for each shape anew, [size]: the last
        row again. The first n results are those of the batch.
        """
        if self.device.type not in ("xla", "tpu") or not 0 < len(rows) < size:
            return rows
        return np.pad(rows, (0, size - len(rows)), mode="edge")

    def __str__(self) -> str:
        name = self.device.type
        if name == "cuda":
            name = f"cuda ({torch.cuda.get_device_name(self.device)})"
        elif name == "cpu":
            name = f"cpu ({torch.get_num_threads()} threads)"
        elif name == "xla":
            name = f"xla ({_xla_hardware()})"
        return f"{name}, {self.precision}"


def resolve(
    device: DeviceName, precision: PrecisionName, cpu_auto: Literal["fp32", "bf16"] = "fp32"
) -> Compute:
    """Pick the device and precision, once, at the start of a command.

    `auto` takes CUDA where there is one, else the CPU. Precision `auto` is bf16 on accelerators
    that have it; on a CPU it is `cpu_auto`, the caller's measured choice, if the CPU has bf16
    arithmetic (convolution GANs gain, depthwise convolutions lose). Raises UserError naming the
    option where the device or the precision is not to be had.
    """
    place = _device(device)
    if place.type == "cpu":
        _keep_freed_memory()
    if precision == "auto":
        precision = _auto_precision(place, cpu_auto)
    return Compute(place, precision)


def _device(name: DeviceName) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device cuda: {_why_no_cuda()}; use --device cpu or auto")
        return torch.device("cuda")
    package = {"xla": "torch_xla", "tpu": "torch_tpu"}[name]
    try:
        _check_versions(package)
        chosen = "PJRT_DEVICE" in os.environ  # torch_xla sets it itself where it finds no TPU
        module = importlib.import_module(package)
        place: torch.device = module.device() if name == "xla" else torch.device("tpu")
        torch.zeros(1, device=place)  # torch_tpu looks for its chips only now
        if name == "xla" and not chosen and _xla_hardware() == "CPU":
            reason, mend = "torch_xla finds no TPU", "PJRT_DEVICE=CPU compiles for the CPU, or use"
        else:
            if name == "xla":
                xla_operators.register()
            return place
    except _Unfit as unfit:
        reason, mend = str(unfit), f"make one with `pip install -e '.[{name}]'`, or use"
    except (ImportError, OSError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason, mend = f"{package} does not start: {lines[0]}", "mend that, or use"
    raise UserError(f"--device {name}: {reason}; {mend} --device auto")


class _Unfit(Exception):
    """An environment that a device's package is not in, or in which it cannot work."""


def _check_versions(package: str) -> None:
    """torch_xla is built for one minor version of torch and dies of an undefined symbol in others.

    Raises _Unfit.
    """
    try:
        version = importlib.metadata.version(package.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        raise _Unfit(f"{package} is not installed in this environment") from None
    wanted, found = (text.split(".")[:2] for text in (version, torch.__version__))
    if package == "torch_xla" and wanted != found:
        raise _Unfit(
            f"torch_xla {version} works with torch {'.'.join(wanted)} only, and this environment "
            f"has torch {torch.__version__}: it needs an environment of its own"
        )


def _why_no_cuda() -> str:
    """Why torch has no GPU: it was built without, or it sees none."""
    built = torch.version.cuda or torch.version.hip
    if built is None:
        return f"torch {torch.__version__} is a build without CUDA"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    said = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES is '{hidden}')"
    return f"torch {torch.__version__}, built for CUDA {built}, sees no CUDA GPU{said}"


def _xla_hardware() -> str:
    """What torch_xla compiles for: TPU, or CPU."""
    runtime: Any = importlib.import_module("torch_xla.runtime")
    return str(runtime.device_type())


def tpu_chips() -> int:
    """TPU chips of this machine, which are not taken hold of; 0 where torch_xla sees none.

    For a process that does not compute on them itself.
    """
    given = os.environ.get("PJRT_DEVICE")
    if given not in (None, "TPU"):
        return 0
    try:
        tpu: Any = importlib.import_module("torch_xla._internal.tpu")
        return int(tpu.num_available_chips())
    except (ImportError, OSError):
        return 0
    finally:
        if given is None:
            os.environ.pop("PJRT_DEVICE", None)  # set by the import; those we start choose anew


def _auto_precision(
    device: torch.device, cpu_auto: Literal["fp32", "bf16"]
) -> Literal["fp32", "bf16"]:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if device.type == "cpu":
        return cpu_auto if torch.cpu._is_avx512_bf16_supported() else "fp32"
    # XLA on a CPU computes bf16 in float32 and rounds
    return "fp32" if device.type == "xla" and _xla_hardware() == "CPU" else "bf16"


def _keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks: 5-9 times fewer page faults in a training step."""
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
