"""torchvision and what stands on it (timm, piq, grad-cam, torch-fidelity): imported here alone.

A CPU build of torch beside the registry's torchvision (built for CUDA) cannot load torchvision's
operators, and `import torchvision` dies with `operator torchvision::nms does not exist`. Declaring
the schemas that it asks for lets transforms, models and `utils.save_image` work. `torchvision.io`
and `ops.nms` stay broken then; nothing here uses them.
"""

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def library(name: str) -> Any:
    """Import a module of torchvision, or of a library that imports it: `library("timm")`.

    Raises ImportError where it is not installed.
    """
    _declare_missing_operators()
    return importlib.import_module(name)


@functools.cache
def _declare_missing_operators() -> object:
    """Once a process; returns what must stay alive, for a torch.library takes its schemas along."""
    import torch

    spec = None if "torchvision" in sys.modules else importlib.util.find_spec("torchvision")
    if spec is None:
        return None
    for folder in spec.submodule_search_locations or []:
        for compiled in Path(folder).glob("_C.*"):
            try:
                torch.ops.load_library(str(compiled))
            except OSError:
                continue
            return None  # the builds match: torchvision declares its operators itself
    declared = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        declared.define(operator + NMS)
    return declared
