"""What an architecture is trained with: the published numbers, as fields of its own Config.

Every `gan/networks/NAME.py` has `class Config(Hyperparameters)` with its paper's values as
defaults, beside the widths of its networks. The one training step (gan.trainer) reads nothing else.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

Loss = Literal["hinge", "non-saturating", "wasserstein", "relativistic"]
Penalty = Literal["none", "gp", "r1", "r1r2"]
Augment = Literal["diffaugment", "translation", "ada", "none"]


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """How to train; a subclass overrides what its paper has otherwise."""

    labels: ClassVar[Literal["never", "optional", "always"]] = "never"  # conditional on a class?

    size: int = 128  # side of the images, pixels
    classes: int = 0  # classes to tell apart; 0: unconditional
    batch: int = 16  # real images a step, over all processes
    lr_generator: float = 2e-4  # Adam
    lr_discriminator: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.99)
    loss: Loss = "hinge"
    penalty: Penalty = "none"  # on the discriminator's gradient, always in fp32
    penalty_weight: float = 0.0  # lambda of gp; gamma of r1 and r1r2 (which halve it)
    penalty_every: int = 1  # steps; lazy regularisation multiplies the weight by as much
    critic_steps: int = 1  # discriminator steps before one of the generator
    class_weight: float = 1.0  # of the cross-entropy, where a discriminator names classes (acgan)
    augment: Augment = "diffaugment"  # on real and fake, before the discriminator
    ada_target: float = 0.6  # ada: mean sign of the logits of real images to steer for
    ada_kimg: float = 500.0  # ada: thousand real images in which its p may go from 0 to 1
    ema_kimg: float = 10.0  # half-life of the generator's average, thousand images,
    ema_share: float = 0.1  # but at most this share of the images seen so far

    @property
    def penalty_strength(self) -> float:
        """`penalty_weight`, or what an architecture computes from its size and batch."""
        return self.penalty_weight

    @property
    def penalty_share(self) -> float:
        """What is left of the discriminator's rate and betas where the penalty is lazy.

        A step with a penalty counts as two (Karras et al. 2020b, B): k / (k + 1).
        """
        lazy = self.penalty != "none" and self.penalty_every > 1
        return self.penalty_every / (self.penalty_every + 1) if lazy else 1.0
