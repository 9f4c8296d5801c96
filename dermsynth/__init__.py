"""What all other packages stand on and share. Importing it is cheap: no torch.

It makes sure that `data`, `gan`, `classifier` and `experiments` are ours: a working directory may
hold a `data.py` or a folder `experiments/` of the user's, and Python would look there first. It
also says how threads are to wait, which torch reads when it is loaded.
"""

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from dermsynth.threads import choose_waiting

__version__ = "0.4.0"

PACKAGES = ("data", "gan", "classifier", "experiments")


def _claim_packages() -> None:
    """Import the sibling packages (their `__init__` alone) from where this one lies."""
    home = str(Path(__file__).parent.parent)
    for name in PACKAGES:
        if name in sys.modules:
            continue  # begun already: `python -m gan.train`
        spec = PathFinder.find_spec(name, [home])
        if spec is None or spec.loader is None:
            continue
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


choose_waiting()
_claim_packages()
