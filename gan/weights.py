"""A trained generator on disk: `generator.safetensors` and, written last, `generator.json`."""

from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from dermsynth.errors import UserError
from dermsynth.files import read_json, sha256, write_bytes, write_json
from dermsynth.machine import versions
from gan.networks import restore_generator

WEIGHTS, DESCRIPTION, CHECKPOINT = "generator.safetensors", "generator.json", "checkpoint"


def save_generator(run: Path, network: nn.Module, description: dict[str, Any]) -> None:
    """Write the weights, then the description that vouches for them; each whole or not at all."""
    (run / DESCRIPTION).unlink(missing_ok=True)  # it would not fit the new weights
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    write_bytes(run / WEIGHTS, safetensors.torch.save(tensors))
    own = {"versions": versions("torch"), "sha256": sha256(run / WEIGHTS)}
    write_json(run / DESCRIPTION, description | own)


def read_description(run: Path) -> dict[str, Any]:
    """`generator.json` of a finished run. Raises UserError where there is none, and says why."""
    if (run / DESCRIPTION).exists():
        return read_json(run / DESCRIPTION)
    if (run / CHECKPOINT).exists():
        raise UserError(
            f"{run}: its training is not finished; go on with "
            f"`python -m gan.train --out {run} --resume` and the options of {run}/config.yaml"
        )
    raise UserError(f"{run}: no GAN run there (no {DESCRIPTION}); make one: `python -m gan.train`")


def load_generator(run: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The EMA generator of a finished run, in eval mode on the CPU, and its `generator.json`.

    Raises UserError where the run is missing, unfinished or damaged, or of an unknown architecture.
    """
    description = read_description(run)
    try:
        expected, arch = description["sha256"], description["architecture"]
    except (KeyError, TypeError):
        raise UserError(
            f"{run / DESCRIPTION}: not a generator's description; train again"
        ) from None
    if not (run / WEIGHTS).exists() or sha256(run / WEIGHTS) != expected:
        raise UserError(
            f"{run / WEIGHTS}: missing or damaged, its SHA-256 is not the one in {DESCRIPTION}; "
            f"write it again with `python -m gan.train --out {run} --resume` and the options of "
            f"{run}/config.yaml"
        )
    network = restore_generator(arch)
    try:
        network.load_state_dict(safetensors.torch.load_file(run / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{run / WEIGHTS}: does not fit the architecture {arch['name']} of this version of "
            f"the code ({reason}); train it again"
        ) from None
    return network.eval().requires_grad_(False), description
