"""One file an architecture, chosen by name.

Every `gan/networks/NAME.py` has three classes:

- `Config(Hyperparameters)`: what it is trained with and its widths. A class variable `labels` says
  whether it can be ("optional"), must be ("always") or cannot be ("never") conditional on a class.
- `Generator(config)(z, labels=None)`: z float [n, generator.latent_dim] from N(0, 1), labels int64
  [n] below `config.classes`, to float32 [n, 3, size, size] in -1..1. A function of its arguments
  alone: noise planes are part of z. Where they are, `content_dim` counts the numbers before them.
  One that truncates in another place than z takes `truncation=1.0` too. It may have
  `begin_from(images)`, float as it makes them: called before the first step with training images.
- `Discriminator(config)(x, labels=None)`: float [n, 3, size, size] in -1..1, to a list of logit
  tensors [n, ...], one a head. It may have

  - `forward_with_reconstruction(real) -> (heads, scalar)`: a loss of drawing the (augmented) real
    images again, added to its own,
  - `forward_with_classes(x) -> (heads, class logits [n, classes])`: an auxiliary classifier,
  - frozen feature networks: buffers with `persistent=False`, so that neither the optimizer nor the
    checkpoint holds what a package ships.
"""

import dataclasses
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from dermsynth.errors import UserError
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


def describe(name: str, config: Any) -> dict[str, Any]:
    """The JSON form of an architecture, as `generator.json` keeps it."""
    return {"name": name, "config": dataclasses.asdict(config)}


def restore_generator(description: dict[str, Any]) -> nn.Module:
    """A generator, not yet with its weights, from `describe`'s form.

    Raises UserError where this version of the code does not know it.
    """
    try:
        chosen = ARCHITECTURES[description["name"]]
        return chosen.generator(chosen.config(**description["config"]))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"architecture {description!r} is not known here ({error}): the generator was made by "
            "another version of this code; train it again"
        ) from None
