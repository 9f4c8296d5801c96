"""Options of training and evaluation, in groups. Loads no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from dermsynth.cli import Repeatable
from dermsynth.options import Between, ComputeOptions, RunOptions, Seed, TrackingMode

ClassesName = Literal["none", "target", "diagnosis"]
LabelName = Literal["malignant", "benign"]
NetworkName = Literal["diagnosis", "imagenet"]
LEAST_SYNTHETIC = 10  # images that an evaluation needs
Fold = Annotated[int, Between(0, 999)]
Share = Annotated[float, Between(0, 1, above=True)]
Batch = Annotated[int, Between(1, 100_000)]
Scored = Annotated[int, Between(LEAST_SYNTHETIC, 1_000_000)]
Evaluations = Annotated[int, Between(0, 1000)]
Budget = Annotated[float, Between(0, 1_000_000, above=True)]


@dataclass(frozen=True)
class ImageOptions:
    """What it learns from."""

    data: Path | None = None  # prepared dataset; without it the phantom, prepared on the way
    fold: Fold = 0  # train on the other folds; never on this one nor on the test part
    test_fold: Fold | None = None  # the fold that is the test part; none: the one prepared
    malignant_share: Share = 1.0  # of the malignant training groups, for learning curves
    classes: Literal["auto", ClassesName] = "auto"  # none: malignant images only; else all, by this


@dataclass(frozen=True)
class ModelOptions:
    """What is trained, and how."""

    arch: str = "lesiongan"  # or sngan, dcgan, wgan-gp, acgan, fastgan, projected, stylegan2
    recipe: Repeatable = ()  # NAME=VALUE, repeatable: another value in the architecture's config
    batch: Batch | None = None  # images a step, over all processes; default the architecture's
    accumulate: Batch = 1  # parts in which a batch is computed, to save memory
    seed: Seed = 0  # of the weights and every random choice


@dataclass(frozen=True)
class BudgetOptions:
    """When it ends."""

    minutes: Budget | None = None  # training time, over all resumes; default 10 on a CPU, else 60
    kimg: Budget | None = None  # or: thousands of real images to show the discriminator


@dataclass(frozen=True)
class MonitorOptions:
    """What is looked at on the way."""

    evaluations: Evaluations = 4  # scores on held-out images, evenly over the budget; they choose
    # which generator is shipped; 0: none, and the last is
    divergence: Literal["stop", "warn"] = "stop"  # when D wins outright or all images look the same


@dataclass(frozen=True)
class TrainOptions:
    """Options of `python -m gan.train`."""

    images: ImageOptions = field(default_factory=ImageOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    budget: BudgetOptions = field(default_factory=BudgetOptions)
    monitor: MonitorOptions = field(default_factory=MonitorOptions)
    compute: ComputeOptions = field(default_factory=ComputeOptions)
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `python -m gan.evaluate`."""

    generator: Path | None = None  # run folder of gan.train; either this or --pool
    pool: Path | None = None  # pool folder of gan.generate or data.prepare
    data: Path | None = None  # prepared dataset; default the one that the generator was trained on
    fold: Fold | None = None  # whose validation part is held out; default the generator's
    test_fold: Fold | None = None  # the fold that is the test part; default as the generator's
    label: LabelName | None = None  # of a conditional generator: its benign images, or (default)
    # its malignant ones; a pool is scored as what it is
    count: Scored = 500  # synthetic images to score, at most
    network: NetworkName | None = None  # default diagnosis; imagenet where none are told apart
    out: Path | None = None  # folder to write, replaced; default evaluation/ in the run or pool
    inception: Path | None = None  # torch-fidelity's Inception weights: adds FID, and minutes
    seed: Seed = 0  # of the latents and the subsets
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline
    compute: ComputeOptions = field(default_factory=ComputeOptions)
