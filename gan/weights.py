"""A trained generator on disk: `generator.safetensors`, `generator.json` and their manifest."""

import shlex
from pathlib import Path

import safetensors.torch
from torch import nn

from data.provenance import CIRCUMSTANCES, GeneratorRecord
from dermsynth import manifest
from dermsynth.errors import UserError
from dermsynth.files import sha256, write_bytes
from dermsynth.manifest import Sealed, digest, open_sealed
from dermsynth.records import write_record
from gan.networks import restore_generator

KIND = "generator"
WEIGHTS, DESCRIPTION, CHECKPOINT = "generator.safetensors", "generator.json", "checkpoint"


def write_generator(folder: Path, network: nn.Module, record: GeneratorRecord) -> dict[str, str]:
    """Write weights and description; returns the parts of the run's identity, for its seal."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    write_bytes(folder / WEIGHTS, safetensors.torch.save(tensors))
    write_record(folder / DESCRIPTION, record)
    said = record.model_dump(exclude=CIRCUMSTANCES)
    return {"weights": sha256(folder / WEIGHTS), "description": digest(said)}


def open_generator(run: Path) -> Sealed:
    """A finished run of gan.train. Raises UserError where there is none, and says what is."""
    go_on = how_to_go_on(run)
    mend = f"write it again from its checkpoint: {go_on}; or train again"
    absent = f"{run}: no GAN run there; make one: `python -m gan.train`"
    if (run / manifest.NAME).exists():
        there = manifest.read_manifest(run, "train again")
        if there.kind == KIND and not there.finished:
            absent = f"Go on with its training: {go_on}"
    return open_sealed(run, KIND, absent, mend)


def how_to_go_on(run: Path) -> str:
    """The command that resumes a run, to be printed."""
    config, out = shlex.quote(str(run / "config.yaml")), shlex.quote(str(run))
    if (run / "config.yaml").exists():
        return f"`python -m gan.train --config {config} --out {out} --resume`"
    return f"`python -m gan.train --out {out} --resume` and the options that it began with"


def read_description(run: Path) -> GeneratorRecord:
    """`generator.json` of a finished run. Raises UserError as `open_generator` does."""
    return open_generator(run).record(DESCRIPTION, GeneratorRecord)


def load_generator(run: Path | Sealed) -> tuple[nn.Module, GeneratorRecord]:
    """The EMA generator of a finished run, in eval mode on the CPU, and its `generator.json`.

    Raises UserError where the run is missing, unfinished or damaged, or of an unknown architecture.
    """
    sealed = run if isinstance(run, Sealed) else open_generator(run)
    record = sealed.record(DESCRIPTION, GeneratorRecord)
    network = restore_generator(record.architecture, str(sealed.path / DESCRIPTION))
    try:
        network.load_state_dict(sealed.tensors(WEIGHTS))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{sealed.path / WEIGHTS}: does not fit the architecture {record.architecture.name} of "
            f"this version of the code ({reason}); train it again"
        ) from None
    return network.eval().requires_grad_(False), record
