"""What a phantom dataset or pool is like: options that need nothing to be imported."""

from dataclasses import dataclass, field
from typing import Literal

from dermsynth.errors import UserError
from dermsynth.options import OutputOptions

Quality = Literal["oracle", "broken"]


@dataclass(frozen=True)
class PhantomOptions:
    """The phantom's patients."""

    patients: int = 800  # about 2.2 lesions each, 1.33 images a lesion: 2,300 images
    prevalence: float = 0.15  # share of malignant lesions, 0..1
    best_auc: float = 0.90  # difficulty: AUC of the true probability of malignancy, 0.5..0.99


@dataclass(frozen=True)
class PhantomConfig(PhantomOptions):
    """What a phantom dataset is like. Raises UserError for what no dataset can be."""

    size: int = 128  # side of the images, pixels

    def __post_init__(self) -> None:
        for name, ok, expected in (
            ("patients", self.patients >= 1, "at least 1"),
            ("prevalence", 0 < self.prevalence < 1, "between 0 and 1"),
            ("best_auc", 0.5 < self.best_auc <= 0.99, "above 0.5, at most 0.99"),
            ("size", 32 <= self.size <= 1024, "32 to 1024 pixels"),
        ):
            if not ok:
                raise UserError(f"phantom: {name} {getattr(self, name)}: expected {expected}")


@dataclass(frozen=True)
class PhantomPoolOptions:
    """Options of `python -m data.phantom`."""

    output: OutputOptions = field(default_factory=OutputOptions)
    count: int = 500  # number of images
    seed: int = 1  # another seed, other images
    size: int = 128  # side of the images, pixels
    quality: Quality = "oracle"  # oracle: a perfect generator; broken: one that must never help
    prevalence: float = PhantomOptions.prevalence  # of the phantom dataset that this pool is to fit
    best_auc: float = PhantomOptions.best_auc  # of the phantom dataset that this pool is to fit
