"""One file an architecture, chosen by name.

Every `gan/networks/NAME.py` has three classes:

- `Config(Hyperparameters)`: what it is trained with and its widths. A class variable `labels` says
  whether it can be ("optional"), must be ("always") or cannot be ("never") conditional on a class.
- `Generator(config)(z, labels=None)`: z float [n, generator.latent_dim] from N(0, 1), labels int64
  [n] below `config.classes`, to float32 [n, 3, size, size] in -1..1. A function of its arguments
  alone: noise planes are part of z. Where they are, `content_dim` counts the numbers before them.
  One that truncates in another place than z takes `truncation=1.0` too. It may have
  `begin_from(images, labels=None)`, float as it makes them, on the CPU: called before the first
  step with training images, as many of each class.
- `Discriminator(config)(x, labels=None)`: float [n, 3, size, size] in -1..1, to a list of logit
  tensors [n, ...], one a head. It may have

  - `forward_with_reconstruction(real) -> (heads, scalar)`: a loss of drawing the (augmented) real
    images again, added to its own,
  - `forward_with_classes(x) -> (heads, class logits [n, classes])`: an auxiliary classifier,
  - frozen feature networks: buffers with `persistent=False`, so that neither the optimizer nor the
    checkpoint holds what a package ships.
"""

import dataclasses
import json
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from data.provenance import ArchitectureRecord
from dermsynth.errors import UserError, some
from dermsynth.options import check_bounds
from dermsynth.records import canonical
from gan.hyperparameters import Hyperparameters
from gan.networks import acgan, dcgan, fastgan, lesiongan, projected, sngan, stylegan2, wgan_gp

SIZES = (32, 64, 128, 256)  # pixels


@dataclass(frozen=True)
class Architecture:
    """What a name stands for."""

    config: type[Hyperparameters]
    generator: type[nn.Module]
    discriminator: type[nn.Module]


def _of(module: ModuleType) -> Architecture:
    return Architecture(module.Config, module.Generator, module.Discriminator)


ARCHITECTURES = {
    "lesiongan": _of(lesiongan),
    "sngan": _of(sngan),
    "dcgan": _of(dcgan),
    "wgan-gp": _of(wgan_gp),
    "acgan": _of(acgan),
    "fastgan": _of(fastgan),
    "projected": _of(projected),
    "stylegan2": _of(stylegan2),
}


def architecture(name: str) -> Architecture:
    """Raises UserError for a name that is not there."""
    if name not in ARCHITECTURES:
        raise UserError(f"--arch {name}: no such architecture; known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def make_config(name: str, size: int) -> Any:
    """The default config of an architecture at `size` pixels.

    Raises UserError for a size that is not in SIZES.
    """
    if size not in SIZES:
        raise UserError(
            f"{name} makes images of {', '.join(map(str, SIZES))} px, the dataset has {size} px; "
            "prepare it with `--size 128`"
        )
    return architecture(name).config(size=size)


def describe(name: str, config: Hyperparameters) -> ArchitectureRecord:
    """An architecture as `generator.json` keeps it."""
    return ArchitectureRecord(name=name, config=json.loads(json.dumps(dataclasses.asdict(config))))


def restore_generator(description: ArchitectureRecord, source: str) -> nn.Module:
    """A generator, not yet with its weights, from `describe`'s form. Raises as `restore`."""
    chosen, config = restore(description, source)
    return chosen.generator(config)


def restore(description: ArchitectureRecord, source: str) -> tuple[Architecture, Any]:
    """An architecture and its config from `describe`'s form.

    Raises UserError that begins with `source`, where the description was read, for an architecture
    or hyperparameters that this version of the code does not know.
    """
    name, config = description.name, description.config
    mend = "it was made by another version of this code, train it again"
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"{source}: architecture {name!r} is not known here ({known}); {mend}")
    chosen = ARCHITECTURES[name]
    fields = [field.name for field in dataclasses.fields(chosen.config)]
    if unknown := [key for key in config if key not in fields]:
        raise UserError(f"{source}: architecture {name} has no {some(unknown)}; {mend}")
    try:
        made = TypeAdapter(chosen.config).validate_json(canonical(config), strict=True)
        check_bounds(made)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{source}: architecture.config.{key}: {first['msg']}; {mend}") from None
    except UserError as error:
        raise UserError(f"{source}: {error}; {mend}") from None
    if made.size not in SIZES:
        raise UserError(
            f"{source}: size {made.size}, expected one of {', '.join(map(str, SIZES))}; {mend}"
        )
    return chosen, made
