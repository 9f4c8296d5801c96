"""Options of the training, in groups, and which values they may have. Loads no torch."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from dermsynth.cli import Repeatable, from_mapping
from dermsynth.errors import UserError
from dermsynth.options import (
    HOLDS_PATH,
    Between,
    ComputeOptions,
    RunOptions,
    Seed,
    ZeroToBelowOne,
    ZeroToOne,
    as_plain,
    changed,
    check_bounds,
    flag,
    flat,
    refuse_idle,
    replace,
)

NETWORKS = ("first", "second")  # of --beside: folders of their runs
RECIPES = Path(__file__).parent / "recipes"  # published pipelines, for --config
TargetName = Literal["binary", "diagnosis"]
BatchNormMode = Literal["adapt", "fixed"]
HeadName = Literal["linear", "hidden", "max", "multi-level", "metadata"]
Flipped = Literal["mirror", "flips", "rotate", "rotate-flips"]
Published = Literal["siim", "siim-b3", "siim-b6", "student"]
AugmentName = Literal["none", Flipped, Published, "dihedral-colour", "strong-colour"]
LossName = Literal["cross-entropy", "focal"]
ScheduleName = Literal["one-cycle", "constant", "cosine", "plateau", "exponential"]
Monitor = Literal["auc", "loss", "balanced-accuracy"]
File = Annotated[str, HOLDS_PATH]
TestFold = Annotated[int, Between(0, 999)]
Fold = TestFold | Literal["all"]
Side = Annotated[int, Between(32, 4096)]  # px
Blocks = Annotated[int, Between(0, 1000)]
Views = Annotated[int, Between(0, 1000)]
OneOrMore = Annotated[int, Between(1, 100_000)]
TestViews = OneOrMore | Literal["clinics"]
ScoredViews = TestViews | Literal["tested"]  # as the run was tested
Epochs = Annotated[int, Between(0, 100_000)]
Rate = Annotated[float, Between(0, 10)]  # of learning
RateAboveZero = Annotated[float, Between(0, 10, above=True)]
Factor = Annotated[float, Between(0, 1, above=True)]  # of a rate
Weight = Annotated[float, Between(0, 1_000_000, above=True)]  # in the loss
Large = Annotated[float, Between(0, 100_000)]


@dataclass(frozen=True)
class Times:
    """A multiple of the real malignant images."""

    factor: float


Share = float | Literal["balanced"] | Times


@dataclass(frozen=True)
class TaskOptions:
    """What is learnt, and on which images it is checked."""

    data: Path | None = None  # prepared dataset folder; none: the phantom, prepared on the way
    fold: Fold = 0  # validate on it, train on the others; all: each in turn
    test_fold: TestFold | None = None  # the fold that is the test part; none: the one prepared
    malignant_share: Factor = 1.0  # of the malignant training groups, for learning curves
    target: TargetName = "binary"  # what is predicted: malignant or not, or the diagnosis


@dataclass(frozen=True)
class ModelOptions:
    """The model."""

    backbone: str = "efficientnet-b3"  # efficientnet-b0..b7, -lite0..2, timm:NAME, vanilla-cnn ...
    weights: File = "imagenet"  # imagenet, none (random), or a .safetensors or .pth FILE
    frozen: Blocks | None = None  # frozen after the stem; none: b3 18, 0 with random weights
    batch_norm: BatchNormMode = "fixed"  # in frozen blocks: adapt keeps training it, fixed does not
    head: HeadName = "linear"  # what turns feature maps (and metadata) into logits
    metadata: str = "age,sex,site"  # columns that the metadata head is given
    dropout: ZeroToBelowOne = 0.2  # before the last layer of the linear, max and multi-level heads
    size: Side = 128  # side in pixels of what the network sees; all images are resized to it
    read_size: Side | None = None  # px at which native images are read first; a pool's: as smooth


@dataclass(frozen=True)
class TrainingSetOptions:
    """What it trains and is tested on."""

    synthetic: str = "0"  # synthetic share of the final training set, balanced, or 2x the malignant
    oversample: str = "0"  # the same with duplicates of real malignant images instead
    synthetic_only: bool = False  # of malignant images train on the synthetic ones alone
    pool: Path | None = None  # folder of synthetic malignant images
    benign_pool: Path | None = None  # of benign ones: --synthetic then adds both, as they come
    generator: Path | None = None  # gan.train run to make the pool with; none: the newest that fits
    allow_leakage: bool = False  # train on a pool that saw validation images; marks every output
    external: Annotated[Repeatable, HOLDS_PATH] = ()  # NAME=FOLDER to test on
    external_overlap: Literal["refuse", "leave-out"] = "refuse"  # images that the dataset has
    cap: Annotated[int, Between(0, 10_000_000)] = 0  # most real training images of a class; 0: all
    upsample: bool = False  # repeat images of the smaller classes up to the largest
    upsample_to: Factor = 1.0  # share of the largest class up to which --upsample repeats
    sampler: Literal["shuffle", "balanced"] = "shuffle"  # balanced: classes equally often, drawn


@dataclass(frozen=True)
class AugmentationOptions:
    """How training images are varied."""

    augment: AugmentName = "dihedral-colour"  # how each image is varied
    cutmix: ZeroToOne = 0.0  # share of the images mixed by CutMix, each with a box of its own
    mixup: ZeroToOne = 0.0  # share of the batches mixed by MixUp
    mixstyle: ZeroToOne = 0.0  # share of the images whose frozen features get another's style
    views: Views = 8  # fixed views an image whose trunk features are kept; 0: fresh ones each time

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with each other."""
        return self.cutmix + self.mixup > 0

    @property
    def n_views(self) -> int:
        """Fixed views that an image has."""
        return 1 if self.augment == "none" else max(self.views, 1)


@dataclass(frozen=True)
class LossOptions:
    """The loss."""

    loss: LossName = "cross-entropy"
    gamma: Annotated[float, Between(0, 100)] = 2.0  # focal: how fast easy images lose weight
    alpha: ZeroToOne = 0.8  # focal: weight of malignant images; benign ones have the rest
    label_smoothing: ZeroToBelowOne = 0.0  # share of a label given to all classes alike
    class_weights: Literal["none", "balanced"] = "none"  # balanced: against their frequency
    positive_weight: Weight = 1.0  # of malignant images
    miss_cost: Weight = 1.0  # how many times more a melanoma taken for a nevus costs


@dataclass(frozen=True)
class StepOptions:
    """The steps: how many, how large, how fast."""

    epochs: OneOrMore = 5  # each ceil(real training images / batch) steps, however many extra
    batch: Annotated[int, Between(2, 100_000)] = 64  # images a step
    accumulate: OneOrMore = 1  # parts a batch is computed in, where memory is short
    lr: RateAboveZero = 1e-3  # highest learning rate of AdamW
    weight_decay: Large = 0.05  # of AdamW (0: Adam); not on biases and batch norm
    clip: Large = 0.0  # largest norm of the gradient; 0: any
    schedule: ScheduleName = "one-cycle"  # of the learning rate
    warm_up: Large = 1.0  # epochs of rising rate, of all schedules but one-cycle
    lr_start: Rate = 0.0  # exponential: rate of the first epoch
    hold: Epochs = 0  # exponential: epochs at the highest rate
    decay: Factor = 0.8  # exponential: factor an epoch after that
    lr_min: Rate = 0.0  # exponential: rate it ends at
    factor: Factor = 0.5  # plateau: of the rate where the monitored figure does not improve
    plateau_patience: Epochs = 5  # plateau: epochs without improvement before that
    head_epochs: Epochs = 0  # first epochs in which the head alone trains
    head_lr: RateAboveZero = 1e-3  # learning rate in them


@dataclass(frozen=True)
class ChoiceOptions:
    """Which weights are tested, and how."""

    ema: ZeroToBelowOne = 0.0  # decay a step of the average of weights that is tested; 0: none
    monitor: Monitor = "auc"  # validation figure that chooses the checkpoint
    patience: Epochs = 0  # epochs without a better one before it stops; 0: never
    min_delta: Large = 0.0  # smallest change of it that counts as better, in stopping and plateaus
    tta: TestViews = 1  # views an image, averaged: 1, 8 (flips, turns), more, or clinics (8 others)
    beside: Repeatable = ()  # NAME=VALUE: a second network that differs in these; scores: the mean


@dataclass(frozen=True)
class TrainComputeOptions(ComputeOptions):
    """Where and how it computes."""

    cache_gib: Large = 4.0  # memory for kept features in GiB; where too little, slower, same result
    seed: Seed = 0  # of first weights, data order, augmentation and dropout


@dataclass(frozen=True)
class TrainRunOptions(RunOptions):
    """Where it writes, and how it goes on."""

    smoke: bool = False  # try a recipe out: random weights, small images, two steps


@dataclass(frozen=True)
class TrainOptions:
    """Options of `python -m classifier.train`."""

    task: TaskOptions = field(default_factory=TaskOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training_set: TrainingSetOptions = field(default_factory=TrainingSetOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    objective: LossOptions = field(default_factory=LossOptions)
    steps: StepOptions = field(default_factory=StepOptions)
    choice: ChoiceOptions = field(default_factory=ChoiceOptions)
    compute: TrainComputeOptions = field(default_factory=TrainComputeOptions)
    run: TrainRunOptions = field(default_factory=TrainRunOptions)


def pair(options: TrainOptions) -> dict[str, TrainOptions]:
    """Options of both networks where there is one `beside`, by the names of their folders.

    Raises UserError for what a second network cannot differ in, and where it differs in nothing.
    """
    first = replace(options, beside=())
    groups = (options.augmentation, options.objective, options.steps, options.choice)
    known = {name for group in groups for name in flat(group)} - {"beside"}
    values: dict[str, str] = {}
    for text in options.choice.beside:
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in known or name in values:
            raise UserError(
                f"--beside {text}: expected NAME=VALUE, each name once, of "
                f"{', '.join(sorted(known))}"
            )
        values[name] = value
    second = from_mapping(TrainOptions, as_plain(first) | values, "--beside")
    if second == first:
        raise UserError(
            f"--beside {' '.join(options.choice.beside)}: the first network has that already, so "
            "both would be alike; leave it out"
        )
    return dict(zip(NETWORKS, (first, second), strict=True))


def check_values(options: TrainOptions) -> None:
    """Raises UserError where a number is out of range, or two options exclude each other."""
    check_bounds(options)
    _check_pairs(options)


def check_effects(options: TrainOptions, frozen: int, splits: bool) -> None:
    """Refuse what has no effect beside the other options.

    `frozen` counts the blocks that are frozen, `splits` says whether the backbone can run them
    apart. Nothing is said of --allow-leakage, which permits and does not do; of --overwrite with
    --resume, because a stopped run goes on with the same command; of weak settings such as --lr-min
    with --decay 1; and of `--views 0`, because what is not kept is drawn anew anyway.
    """
    steps, augmentation, head = options.steps, options.augmentation, options.model.head
    pure = splits and frozen > 0 and options.model.batch_norm == "fixed"
    keeps = pure and not augmentation.mixes and augmentation.augment != "none"
    focal = (options.objective.loss == "focal", "--loss focal")
    plateau = (steps.schedule == "plateau", "--schedule plateau")
    exponential = (steps.schedule == "exponential", "--schedule exponential")
    ramp = exponential[0] and steps.warm_up > 0
    linear = head not in ("hidden", "metadata")
    improves = options.choice.patience > 0 or plateau[0]
    trunk = "frozen blocks whose output is kept (--frozen, --batch-norm fixed, no timm model"
    anew = augmentation.views == 0 or options.run.smoke
    needs = {
        "batch_norm": (frozen > 0, "frozen blocks"),
        "metadata": (head == "metadata", "--head metadata"),
        "upsample_to": (options.training_set.upsample, "--upsample"),
        "external_overlap": (bool(options.training_set.external), "--external"),
        "dropout": (linear, "--head linear, max or multi-level"),
        "mixstyle": (splits and frozen > 0, "frozen blocks (--frozen, no timm model)"),
        "views": (keeps or anew, f"{trunk}, no mixed batches, an --augment)"),
        "cache_gib": (pure, f"{trunk})"),
        "warm_up": (steps.schedule != "one-cycle", "a --schedule other than one-cycle"),
        "lr_start": (ramp, "--schedule exponential and --warm-up"),
        "head_lr": (steps.head_epochs > 0, "--head-epochs"),
        "min_delta": (improves, "--patience or --schedule plateau"),
    }
    needs |= dict.fromkeys(("gamma", "alpha"), focal)
    needs |= dict.fromkeys(("hold", "decay", "lr_min"), exponential)
    needs |= dict.fromkeys(("factor", "plateau_patience"), plateau)
    refuse_idle(options, needs)


def command(options: TrainOptions) -> str:
    """The command line of these options, to be printed."""
    words = ["python", "-m", "classifier.train"]
    for name, value in changed(options).items():
        if isinstance(value, bool):
            words.append(flag(name) if value else flag(f"no_{name}"))
        elif isinstance(value, tuple):
            words += [word for item in value for word in (flag(name), str(item))]
        else:
            words += [flag(name), str(value)]
    return shlex.join(words)


def parse_share(option: str, text: str) -> Share:
    """`0.3`, `balanced` or `2x`. Raises UserError unless 0 <= share < 1; `option`: the culprit."""
    if text == "balanced":
        return "balanced"
    if (times := re.fullmatch(r"(\d{1,3}(\.\d+)?)x", text)) and float(times[1]) > 0:
        return Times(float(times[1]))
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(
            f"{option} {text}: expected a share of the final training set, 0 <= share < 1 "
            "(0.3: three images in ten are extra), `balanced`, or a multiple of the real malignant "
            "images, such as 2x"
        )
    return share


def _check_pairs(options: TrainOptions) -> None:
    """What one option says of another."""
    steps, training_set = options.steps, options.training_set
    if options.augmentation.cutmix + options.augmentation.mixup > 1:
        raise UserError("--cutmix and --mixup: shares of the images, together at most 1")
    if steps.head_epochs >= steps.epochs:
        raise UserError(
            f"--head-epochs {steps.head_epochs}: expected fewer than --epochs {steps.epochs}"
        )
    if steps.accumulate > steps.batch // 2:
        raise UserError(
            f"--accumulate {steps.accumulate}: expected at most half of --batch {steps.batch}"
        )
    if options.choice.monitor == "balanced-accuracy" and options.task.target == "binary":
        raise UserError("--monitor balanced-accuracy: of --target diagnosis only; use auc or loss")
    synthetic = parse_share("--synthetic", training_set.synthetic)
    duplicates = parse_share("--oversample", training_set.oversample)
    if synthetic and duplicates:
        raise UserError("--synthetic and --oversample: arms of a comparison; give one of them")
    given = training_set.pool or training_set.generator or training_set.benign_pool
    if (given or training_set.synthetic_only) and not synthetic:
        named = "--pool, --benign-pool, --generator and --synthetic-only"
        raise UserError(f"{named}: nothing to add; say how much with --synthetic 0.3")
    if training_set.benign_pool and not training_set.pool:
        raise UserError("--benign-pool: beside --pool, which holds as many malignant ones; give it")
    if training_set.benign_pool and not isinstance(synthetic, float):
        raise UserError(
            f"--synthetic {training_set.synthetic} with --benign-pool: both classes grow alike, so "
            "expected a share, such as 0.3"
        )
    if training_set.benign_pool and training_set.synthetic_only:
        raise UserError("--benign-pool and --synthetic-only: arms of a comparison; give one")
    if training_set.pool and training_set.generator:
        raise UserError("--pool and --generator: give one of them")
