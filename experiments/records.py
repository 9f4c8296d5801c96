"""What an experiment's folder holds, as typed records: comparisons.json and experiment.json."""

from typing import Literal

from pydantic import ConfigDict, Field, RootModel

from dermsynth.manifest import Identity
from dermsynth.records import Json, Record

KIND = "experiment"
COMPARISONS, EXPERIMENT, PAIRED = "comparisons.json", "experiment.json", "paired.json"
TRIALS, PREDICTIONS, REPORT = "trials.parquet", "predictions.parquet", "report.html"
TRIAL_COLUMNS = ("arm", "fold", "seed", "gan_seed", "status", "seconds", "auc_val")
PREDICTION_COLUMNS = (
    *("arm", "seed", "gan_seed", "test_set", "image_id", "group", "fold", "target", "score"),
)


class TrainingRecord(Record):
    """One training of an arm beside that of its reference."""

    fold: int
    seed: int
    gan_seed: int | None
    delta_auc: float


class ComparisonRecord(Record):
    """An arm against its reference on one test set; intervals are of AUC differences.

    None: not known, because no verdict is possible or, of the margins of error, no such source.
    """

    arm: str
    reference: str
    test_set: str
    family: Literal["primary", "secondary", "external-primary", "external-secondary"]
    scope: Literal["arms", "pool", "method"]  # what the verdict is about
    auc_arm: float | None  # mean of single trainings
    auc_reference: float | None
    delta_auc: float | None
    ci_low: float | None  # 95%: groups, seeds, and generators where `scope` is the method
    ci_high: float | None
    ci90_low: float | None
    ci90_high: float | None
    p: float | None
    p_holm: float | None  # within its family
    ci_low_models: float | None  # 95%, given the trained models
    ci_high_models: float | None
    p_models: float | None
    p_delong: float | None
    se_groups: float | None  # standard errors by source
    se_seeds: float | None
    se_gans: float | None
    df_groups: float | None
    df_seeds: float | None
    df_gans: float | None
    se_crossed: float | None  # of se_groups, what se_seeds holds as well
    mde: float | None  # the larger one
    mde_helps: float | None
    mde_hurts: float | None
    mde_level: float  # two-sided, at which it is tested
    verdict: Literal["helps", "hurts", "equivalent", "inconclusive", "undecidable"]
    why_undecidable: str | None
    margin: float
    n: int
    n_malignant: int
    n_groups: int
    n_malignant_groups: int
    n_folds: int
    n_seeds: int
    n_gan_seeds: int  # generators a fold; 0: none was trained here
    n_trainings: int  # pairs
    left_out: int  # planned pairs that are missing
    folds_left_out: list[int]
    note: str | None
    trainings: list[TrainingRecord]
    made_by: str = ""  # what made the arm's synthetic images; "": it has none, or an old record
    reference_made_by: str = ""
    gate_failed: list[str] = Field(default_factory=list)  # codes of the quality gate, of the arm
    reference_gate_failed: list[str] = Field(default_factory=list)


class Comparisons(RootModel[list[ComparisonRecord]]):
    """`comparisons.json`: the primary comparison first."""

    model_config = ConfigDict(strict=True, frozen=True)


class MetricRecord(Record):
    """A metric of an arm and its reference; None: undefined, or its interval unknown."""

    name: str
    arm: float | None  # mean of single trainings
    reference: float | None
    delta: float | None
    ci_low: float | None  # 95%, all that varies counted
    ci_high: float | None


class NetBenefitRecord(MetricRecord):
    """Net benefit at one threshold of a decision curve."""

    threshold: float
    treat_all: float  # of calling every image malignant


class SubgroupRecord(Record):
    """The AUC difference among the test images of a subgroup; None: too few to say."""

    variable: str
    name: str
    n: int
    n_malignant: int
    n_malignant_groups: int  # of the folds that count
    folds_left_out: int  # where it lacks a class
    few: bool  # fewer than 10 malignant or benign groups
    auc_arm: float | None = None
    auc_reference: float | None = None
    delta_auc: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


class PairedRecord(Record):
    """What a comparison shows beside the AUC."""

    arm: str
    reference: str
    test_set: str
    replicates: int  # of groups
    metrics: list[MetricRecord]
    decision_curve: list[NetBenefitRecord]
    subgroups: list[SubgroupRecord]  # of the first comparison


class PairedRecords(RootModel[list[PairedRecord]]):
    """`paired.json`."""

    model_config = ConfigDict(strict=True, frozen=True)


class RateRecord(Record):
    """A share of images with its 95% interval over patients or lesions; None: unknown."""

    value: float | None
    low: float | None = None  # of these trained models
    high: float | None = None


class OperatingRecord(Record):
    """What an arm reaches at a threshold that each of its models chose on validation."""

    arm: str
    test_set: str
    threshold: str  # of choose_thresholds: specificity_95, sensitivity_95, youden
    n_models: int
    n: int  # images
    n_malignant: int
    n_groups: int
    n_malignant_groups: int
    sensitivity: RateRecord
    specificity: RateRecord


class MistakeRecord(Record):
    """A test image that most models of the primary arm call wrongly: one a lesion."""

    file: str  # its picture, a path in the experiment's folder
    image_id: str
    diagnosis: str | None
    target: int
    wrong: int  # models of the arm that call it wrongly at the threshold for 95% sensitivity
    n_models: int
    wrong_reference: int
    n_models_reference: int


class PartRecord(Record):
    """Who and what is in a part, and what is not known of them: all counts are of images."""

    images: int
    malignant: int
    groups: int  # not images: patients, lesions or look-alikes that are kept together
    lesions: int  # lesion ids
    patients: int  # patient ids
    without_lesion: int
    without_patient: int
    missing: dict[str, int] = Field(default_factory=dict)  # by column: age, sex, site ...


class DatasetFacts(Record):
    """The dataset of an experiment, for the report."""

    path: str
    folds_hash: str = ""
    identity: Identity | None = None
    info: dict[str, Json] = Field(default_factory=dict)  # dataset.json


class GeneratorFacts(Record):
    """A generator of an experiment and the pool that it made, for the report."""

    seed: int | None  # None: a pool from elsewhere
    fold: int  # of the split that it was trained and is evaluated for
    run: str  # the pool's folder within the experiment, or its path
    evaluated: str | None = None  # where its evaluation lies in the experiment; None: not done
    kimg: float | None = None
    seconds: float | None = None  # of training
    evaluation: dict[str, Json] | None = None  # evaluation.json
    generator: dict[str, Json] | None = None  # generator.json without its training ids


class LabelRecord(Record):
    """How malignant a pool's synthetic lesions look to a classifier of real images alone."""

    arm: str  # the first that trains on the pool
    fold: int
    gan_seed: int | None
    reference: str  # the classifier's arm
    auc: float | None  # of the synthetic lesions against real benign test images
    auc_real: float  # of the real malignant test images against the same
    n_synthetic: int


class ShortcutRecord(Record):
    """Whether a classifier takes benign synthetic images for malignant ones."""

    arm: str
    fold: int
    gan_seed: int | None
    own: bool = True  # images of its own generator; of another one of the fold where it makes none
    auc: float | None  # of benign synthetic against benign real images; 0.5: no shortcut
    reference: str | None  # the arm without synthetic images
    auc_reference: float | None  # by its classifier: how malignant those images look
    n_synthetic: int


class ExpectationRecord(Record):
    """How often an arm's classifiers expect target 1: raw probabilities, means over trainings."""

    arm: str
    test_set: str
    trained_on: float  # share of target 1 among all training images, synthetic and duplicated too
    expected: float  # mean score of the test images
    observed: float  # share of target 1 among them


class FailureRecord(Record):
    """A task that could not be done, and is left out."""

    task: str
    log: str  # its log, a path in the experiment's folder
    reason: str  # in a line


class ExperimentRecord(Record):
    """`experiment.json`: all that the report says beside the comparisons and the trials."""

    name: str
    file: str | None = None
    config: dict[str, Json] = Field(default_factory=dict)
    command: str | None = None
    dataset: DatasetFacts | None = None
    counts: dict[str, dict[str, int]] = Field(default_factory=dict)
    parts: dict[str, PartRecord] = Field(default_factory=dict)  # test: of all folds tested
    operating: list[OperatingRecord] = Field(default_factory=list)
    mistakes: list[MistakeRecord] = Field(default_factory=list)
    machine: dict[str, Json] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    started: str | None = None  # when it was planned: later calls with --resume go on with it
    seconds: float | None = None
    gan: list[GeneratorFacts] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)  # of the generators, for the verdict
    data_warnings: list[str] = Field(default_factory=list)  # of images without ids: clauses
    labels: list[LabelRecord] = Field(default_factory=list)
    shortcuts: list[ShortcutRecord] = Field(default_factory=list)
    expectations: list[ExpectationRecord] = Field(default_factory=list)
    failures: list[FailureRecord] = Field(default_factory=list)
    differences: list[dict[str, Json]] = Field(default_factory=list)  # of the arms compared
    plan: dict[str, Json] | None = None  # plan.json
    learning_curve: dict[str, Json] | None = None  # learning_curve.LearningCurve
    overlaps: dict[str, dict[str, Json]] = Field(default_factory=dict)  # by external set
    likeness: dict[str, dict[str, Json]] = Field(default_factory=dict)  # by external set
    roc: dict[str, dict[str, Json]] = Field(default_factory=dict)
    grids: dict[str, str] = Field(default_factory=dict)
