"""What the folder of a classifier's run holds as JSON: model.json, metrics.json and run.json."""

from typing import Annotated

from pydantic import ConfigDict, Field, RootModel

from classifier.options import AugmentName, BatchNormMode, HeadName, TargetName
from data.store import Look, TargetMeaning
from dermsynth.records import Json, Record, Sha256

VERSION = 1  # of model.json

Probability = Annotated[float, Field(ge=0)]  # a threshold may lie just above 1: nothing reaches it
Channels = tuple[float, float, float]  # of red, green and blue


class SpecRecord(Record):
    """classifier.model.classifier.ModelSpec."""

    backbone: str
    size: int = Field(ge=1, le=4096)  # px
    frozen: int = Field(ge=0)
    batch_norm: BatchNormMode
    head: HeadName
    dropout: float = Field(ge=0, lt=1)
    outputs: int = Field(ge=1, le=100_000)
    columns: int = Field(ge=0, le=100_000)
    read_size: int | None = Field(default=None, ge=1, le=4096)  # px


class TargetRecord(Record):
    """classifier.targets.Target."""

    name: TargetName
    classes: tuple[str, ...] = Field(min_length=2)
    malignant: tuple[bool, ...]
    meaning: TargetMeaning = TargetMeaning()  # of targets 1 and 0; earlier versions did not say


class Thresholds(Record):
    """Scores at or above which an image is called malignant, chosen on validation."""

    specificity_95: Probability
    sensitivity_95: Probability
    youden: Probability


class LikenessRecord(Record):
    """What training images look like, and how far held-out ones are from them.

    classifier.evaluation.likeness says how; features of some training images lie beside it.
    """

    training_images: int = Field(ge=1)  # that were looked at
    held_out_images: int = Field(ge=1)
    shrinkage: float = Field(ge=0, le=1)  # of the covariance of features
    colour_mean: tuple[float, ...] = Field(min_length=6, max_length=6)
    colour_precision: tuple[tuple[float, ...], ...] = Field(min_length=6, max_length=6)
    sharpness_mean: float
    sharpness_deviation: float = Field(gt=0)
    reach: dict[str, Annotated[float, Field(gt=0)]]  # by distance; 95% of held-out pass none
    square: float | None  # share of the training images whose sides are known
    framed: float
    side: float | None  # median of the shorter side as stored, px


class LikenessFacts(Record):
    """How unlike the training images those of a set are: shares of the images looked at."""

    images: int = Field(ge=1)
    held_out_images: int = Field(ge=1)  # behind the scale
    unlike: float = Field(ge=0, le=1)  # farther away than 95% of held-out images
    by: dict[str, float]  # of them in features, colour or sharpness
    square: float | None
    framed: float
    side: float | None  # median of the shorter side as stored, px


class DecisionsRecord(Record):
    """`decisions.json` of two networks' mean score, as a ModelRecord has them of one's."""

    temperature: float | None
    thresholds: Thresholds | None


class ModelRecord(Record):
    """`model.json`: all that a model needs to see an image as in training, but for its weights.

    Temperature and thresholds are for decisions: they make OUT.calls.csv of classifier.predict, and
    change no score.
    """

    schema_version: int
    spec: SpecRecord
    target: TargetRecord
    augment: AugmentName
    leaky: str | None  # why its figures cannot be trusted
    look: Look | None  # how files became pixels; None: the dataset did not say
    mean: Channels  # what the network sees is (pixel / 255 - mean) / std
    std: Channels
    temperature: float | None  # of logit(score) / T; None where validation has one class
    class_temperature: float | None  # of softmax(log p / T), of several diagnoses
    thresholds: Thresholds | None
    columns: tuple[dict[str, Json], ...]  # how age, sex and site become numbers, one after another
    likeness: LikenessRecord | None = None  # None: earlier versions, or too few images


Figures = dict[str, int | float | str | None]  # a text: the reason under `leaky`


class MetricsRecord(RootModel[dict[str, Figures]]):
    """`metrics.json`: figures by part."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class PoolFacts(Record):
    """The pool of a run."""

    path: str  # where it lay
    id: Sha256
    kind: str
    generator_id: Sha256 | None
    seed: int | None


class OverlapFacts(Record):
    """What the labelled images of an external set have in common with the dataset, in any part.

    An image counts once, by the first of data.overlap.REASONS.
    """

    left_out: bool  # False: they are scored, and `leaky` says so
    images: int = Field(ge=0)  # that overlap
    malignant: int = Field(ge=0)  # of them
    reasons: dict[str, int]
    parts: dict[str, int]  # training, validation, test, no part
    equal_ids_of_other_sources: int = Field(ge=0)  # not counted: ids of another namespace
    without_hash: int = Field(ge=0)  # images whose near-duplicates could not be sought
    dataset_without_hash: int = Field(ge=0)  # images of the dataset among which none was sought


class RunRecord(Record):
    """`run.json`: what the options do not say."""

    best_epoch: int
    best_epoch_figures: dict[str, int | float | None] = {}  # its row of metrics.jsonl
    epochs: int
    steps: int
    training_seconds: float
    weights_sha256: Sha256  # of the backbone before the first step
    computed_on: str
    folds_hash: Sha256
    externals: dict[str, Sha256]  # their folds_hash
    overlaps: dict[str, OverlapFacts] = {}  # of the same sets; none in runs of earlier versions
    likeness: dict[str, LikenessFacts] = {}  # by part; none in runs of earlier versions
    training_images: dict[str, int]
    pool: PoolFacts | None
    licence: str | None  # of the training images
    leaky: str | None
    versions: dict[str, str]


class MetadataRunRecord(Record):
    """`run.json` of classifier.metadata, fold by fold."""

    folds_hash: Sha256
    externals: dict[str, Sha256]
    training_images: dict[str, dict[str, int]]
    pool: None
    leaky: None
    fold_metrics: dict[str, dict[str, Figures]]  # of train (none in earlier versions), val, test
    meaning: TargetMeaning = TargetMeaning()  # of targets 1 and 0; earlier versions did not say
    versions: dict[str, str]
