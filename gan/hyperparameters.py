"""What an architecture is trained with: the published numbers, as fields of its own Config.

Every `gan/networks/NAME.py` has `class Config(Hyperparameters)` with its paper's values as
defaults, beside the widths of its networks. The one training step (gan.trainer) reads nothing else.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from dermsynth.options import Between, ZeroToBelowOne, ZeroToOne

Loss = Literal["hinge", "non-saturating", "wasserstein", "relativistic"]
Penalty = Literal["none", "gp", "r1", "r1r2"]
# adaptive: translation, and ADA besides once the discriminator learns its images by heart
Augment = Literal["diffaugment", "translation", "ada", "adaptive", "none"]

Width = Annotated[int, Between(1, 4096)]  # of a layer or a latent
Count = Annotated[int, Between(1, 100_000)]
Rate = Annotated[float, Between(0, 10, above=True)]  # of learning
Betas = tuple[ZeroToBelowOne, ZeroToBelowOne]
Weight = Annotated[float, Between(0, 1_000_000)]  # of a term of the loss
Kimg = Annotated[float, Between(0, 1_000_000, above=True)]


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """How to train; a subclass overrides what its paper has otherwise."""

    labels: ClassVar[Literal["never", "optional", "always"]] = "never"  # conditional on a class?

    size: Annotated[int, Between(32, 1024)] = 128  # side of the images, pixels
    classes: Annotated[int, Between(0, 1000)] = 0  # classes to tell apart; 0: unconditional
    batch: Count = 16  # real images a step, over all processes
    lr_generator: Rate = 2e-4  # Adam
    lr_discriminator: Rate = 2e-4
    betas: Betas = (0.0, 0.99)
    loss: Loss = "hinge"
    penalty: Penalty = "none"  # on the discriminator's gradient, always in fp32
    penalty_weight: Weight = 0.0  # lambda of gp; gamma of r1 and r1r2 (which halve it)
    penalty_every: Count = 1  # steps; lazy regularisation multiplies the weight by as much
    critic_steps: Count = 1  # discriminator steps before one of the generator
    spectrum_weight: Weight = 0.0  # of the distance of power spectra (gan.spectra), in G's loss
    class_weight: Weight = 1.0  # of the cross-entropy, where a discriminator names classes (acgan)
    augment: Augment = "diffaugment"  # on real and fake, before the discriminator
    ada_target: ZeroToOne = (
        0.6  # ada, adaptive: mean sign of the logits of real images to steer for
    )
    ada_kimg: Kimg = 500.0  # ada, adaptive: thousand real images in which its p may go from 0 to 1
    ema_kimg: Kimg = 10.0  # half-life of the generator's average, thousand images,
    ema_share: ZeroToOne = 0.1  # but at most this share of the images seen so far

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
