"""Where synthetic images come from: records that a generator and a pool hold."""

from typing import Literal

from pydantic import Field

from dermsynth.manifest import Identity
from dermsynth.records import Json, Record, Sha256

# of GeneratorRecord: no part of what a generator is
CIRCUMSTANCES = {"dataset", "minutes", "scored"}
ProvenanceKind = Literal["generator", "declared", "phantom", "unknown"]


class ClassRecord(Record):
    """A class of a conditional generator."""

    name: str
    target: Literal[0, 1]  # of most of its images: 1 malignant
    count: int = Field(ge=1)  # training images


class ArchitectureRecord(Record):
    """An architecture and its hyperparameters."""

    name: str
    config: dict[str, Json]


class ScoredRecord(Record):
    """A score of a generator on the way, on held-out lesions of the validation fold."""

    kimg: float = Field(ge=0)  # thousand real images seen until then
    kid: float
    spread: float = Field(ge=0)  # one standard error
    network: str  # by whose features


class GeneratorRecord(Record):
    """`generator.json`: where a generator comes from and what it has seen."""

    architecture: ArchitectureRecord
    dataset: str  # where it lay: a hint for people
    dataset_identity: Identity
    folds_hash: Sha256
    fold: int = Field(ge=0)
    test_fold: int | None = Field(default=None, ge=0)  # None: the dataset's test part
    malignant_share: float = Field(default=1.0, gt=0, le=1)  # of the malignant training groups
    targets: str  # malignant, or what its classes are
    classes: list[ClassRecord]  # none: it makes malignant images only
    training_ids: list[str] = Field(min_length=1)
    seed: int
    size: int = Field(ge=1)  # px
    kimg: float = Field(ge=0)  # thousand real images seen
    minutes: float = Field(ge=0)  # of training
    scored: list[ScoredRecord] = Field(default_factory=list)  # on the way
    shipped_kimg: float | None = None  # where the weights are from; None: the end of the training
    versions: dict[str, str]


class Provenance(Record):
    """How far a pool can be trusted, by its `kind`.

    - `generator`: made by `gan.generate`; `generator` says what the generator was trained on,
    - `declared`: somebody vouches for it; their words are the `statement`,
    - `phantom`: drawn by the phantom's sampler, from no image at all,
    - `unknown`: refused by the classifier.
    """

    kind: ProvenanceKind
    generator: GeneratorRecord | None = None
    generator_id: Sha256 | None = None  # content id of the generator's folder
    statement: str | None = None
    quality: str | None = None  # of the phantom's sampler
    label: str = "malignant"  # what the images show
    seed: int | None = None
    truncation: float | None = None
    options: dict[str, Json] = Field(
        default_factory=dict
    )  # of what made them, where there are more


class PoolRecord(Record):
    """`pool.json`."""

    count: int = Field(ge=0)
    size: int = Field(ge=1)  # px
    provenance: Provenance
    dropped: dict[str, list[str]] = Field(default_factory=dict)  # files left out, by reason
