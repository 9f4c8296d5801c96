"""What an experiment's folder holds, as typed records: comparisons.json and experiment.json."""

from typing import Literal

from pydantic import ConfigDict, Field, RootModel

from dermsynth.manifest import Identity
from dermsynth.records import Json, Record

KIND = "experiment"
COMPARISONS, EXPERIMENT = "comparisons.json", "experiment.json"
TRIALS, PREDICTIONS, REPORT = "trials.parquet", "predictions.parquet", "report.html"
TRIAL_COLUMNS = ("arm", "fold", "seed", "gan_seed", "status", "seconds", "auc_val")
PREDICTION_COLUMNS = (
    *("arm", "seed", "gan_seed", "test_set", "image_id", "group", "fold", "target", "score"),
)


class ComparisonRecord(Record):
    """An arm against its reference on one test set; intervals are of AUC differences."""

    arm: str
    reference: str
    test_set: str
    auc_arm: float
    auc_reference: float
    delta_auc: float
    ci_low: float
    ci_high: float
    ci90_low: float | None = None
    ci90_high: float | None = None
    ci_low_hierarchical: float | None = None
    ci_high_hierarchical: float | None = None
    hierarchical_note: str | None = None
    p_delong: float | None
    p_bootstrap: float
    p_holm: float
    mde: float | None
    verdict: Literal["helps", "hurts", "equivalent", "inconclusive"]
    margin: float
    n: int
    n_malignant: int
    n_groups: int
    n_malignant_groups: int
    n_seeds: int
    n_gan_seeds: int
    note: str | None = None


class Comparisons(RootModel[list[ComparisonRecord]]):
    """`comparisons.json`: the primary comparison first."""

    model_config = ConfigDict(strict=True, frozen=True)


class DatasetFacts(Record):
    """The dataset of an experiment, for the report."""

    path: str
    folds_hash: str = ""
    identity: Identity | None = None
    info: dict[str, Json] = Field(default_factory=dict)  # dataset.json


class GeneratorFacts(Record):
    """A generator of an experiment, for the report."""

    seed: int
    run: str  # its folder within the experiment
    kimg: float | None = None
    seconds: float | None = None  # of training
    evaluation: dict[str, Json] | None = None  # evaluation.json
    generator: dict[str, Json] | None = None  # generator.json without its training ids


class ExperimentRecord(Record):
    """`experiment.json`: all that the report says beside the comparisons and the trials."""

    name: str
    file: str | None = None
    config: dict[str, Json] = Field(default_factory=dict)
    command: str | None = None
    dataset: DatasetFacts | None = None
    counts: dict[str, dict[str, int]] = Field(default_factory=dict)
    machine: dict[str, Json] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    started: str | None = None
    seconds: float | None = None
    gan: list[GeneratorFacts] = Field(default_factory=list)
    roc: dict[str, dict[str, Json]] = Field(default_factory=dict)
    grids: dict[str, str] = Field(default_factory=dict)
