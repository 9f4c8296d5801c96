"""Make `import torchvision` work where its compiled operators do not match the torch build.

A CPU build of torch beside the registry's torchvision (built for CUDA) cannot load torchvision's
operators, and the import dies with `operator torchvision::nms does not exist`. Declaring the
schemas that it asks for lets transforms, models and `utils.save_image` work. `torchvision.io` and
`ops.nms` stay broken; nothing here uses them.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[object] = []  # a torch.library.Library takes its definitions with it when collected


class _MendOnImport(MetaPathFinder):
    """Runs once, when torchvision is first looked for; then steps aside for the normal import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None:
            _declare_missing_operators(spec)
        return spec


def _declare_missing_operators(spec: ModuleSpec) -> None:
    import torch

    for folder in spec.submodule_search_locations or []:
        for library in Path(folder).glob("_C.*"):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                continue
            return  # the builds match: torchvision declares its operators itself
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms" + NMS)
    library.define("qnms" + NMS)
    _declared.append(library)


def install() -> None:
    """Register the mend. Calling it twice, or after torchvision was imported, does nothing."""
    if "torchvision" in sys.modules:
        return
    if not any(type(finder).__name__ == _MendOnImport.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _MendOnImport())
