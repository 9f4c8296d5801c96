"""What a phantom dataset or pool is like: options that need nothing to be imported."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from dermsynth.options import Between, Seed, TrackedOptions, check_bounds

Quality = Literal["oracle", "broken"]
Side = Annotated[int, Between(32, 1024)]  # px
Count = Annotated[int, Between(1, 1_000_000)]
Share = Annotated[float, Between(0, 1, above=True, below=True)]
Auc = Annotated[float, Between(0.5, 0.99, above=True)]


@dataclass(frozen=True)
class PhantomOptions:
    """The phantom's patients."""

    patients: Count = 800  # about 2.2 lesions each, 1.33 images a lesion: 2,300 images
    prevalence: Share = 0.15  # share of malignant lesions, 0..1
    best_auc: Auc = 0.90  # difficulty: AUC of the true probability of malignancy, 0.5..0.99


@dataclass(frozen=True)
class PhantomConfig(PhantomOptions):
    """What a phantom dataset is like. Raises UserError for what no dataset can be."""

    size: Side = 128  # side of the images, pixels

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class PhantomPoolOptions:
    """Options of `python -m data.phantom`."""

    output: TrackedOptions = field(default_factory=TrackedOptions)
    count: Count = 500  # number of images
    seed: Seed = 1  # another seed, other images
    size: Side = 128  # side of the images, pixels
    quality: Quality = "oracle"  # oracle: a perfect generator; broken: one that must never help
    prevalence: Share = PhantomOptions.prevalence  # of the phantom dataset that this pool is to fit
    best_auc: Auc = PhantomOptions.best_auc  # of the phantom dataset that this pool is to fit
