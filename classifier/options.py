"""Options of the training, and which values they may have."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from classifier.model.classifier import BatchNormMode
from classifier.model.heads import HeadName
from classifier.published_augment import AugmentName
from classifier.targets import TargetName
from classifier.training.losses import LossName
from dermsynth.device import DeviceName, PrecisionName
from dermsynth.errors import UserError
from dermsynth.tracking import TrackingMode

RECIPES = Path(__file__).parent / "recipes"  # published pipelines, for --config
ScheduleName = Literal["one-cycle", "constant", "cosine", "plateau", "exponential"]
Monitor = Literal["auc", "loss", "balanced-accuracy"]


@dataclass(frozen=True)
class TrainOptions:
    """Options of `python -m classifier.train`."""

    data: Path | None = None  # prepared dataset folder; none: the phantom, prepared on the way
    fold: int | Literal["all"] = 0  # validate on it, train on the others; all: each in turn
    target: TargetName = "binary"  # what is predicted: malignant or not, or the diagnosis
    # the model
    backbone: str = "efficientnet-b3"  # efficientnet-b0..b7, -lite0..2, timm:NAME, vanilla-cnn ...
    weights: str = "imagenet"  # imagenet, none (random), or a .safetensors or .pth FILE
    frozen: int | None = None  # blocks frozen after the stem; none: b3 18, 0 with random weights
    batch_norm: BatchNormMode = "fixed"  # in frozen blocks: adapt keeps training it, fixed does not
    head: HeadName = "linear"  # what turns feature maps (and metadata) into logits
    metadata: str = "age,sex,site"  # columns that the metadata head is given
    dropout: float = 0.2  # before the last layer of the linear, max and multi-level heads
    size: int = 128  # side in pixels of what the network sees; all images are resized to it
    # what it trains on
    synthetic: str = "0"  # share of the final training set that is synthetic, or balanced
    oversample: str = "0"  # the same with duplicates of real malignant images instead
    pool: Path | None = None  # folder of synthetic images
    generator: Path | None = None  # gan.train run to make the pool with; none: the newest that fits
    allow_leakage: bool = False  # train on a pool that saw validation images; marks every output
    external: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()  # NAME=FOLDER to test on
    cap: int = 0  # most real training images of a class, drawn at random; 0: all
    upsample: bool = False  # repeat images of the smaller classes up to the largest
    sampler: Literal["shuffle", "balanced"] = "shuffle"  # balanced: classes equally often, drawn
    augment: AugmentName = "dihedral-colour"  # how training images are varied
    cutmix: float = 0.0  # share of the batches mixed by CutMix
    mixup: float = 0.0  # share of the batches mixed by MixUp
    views: int = 8  # fixed views an image whose trunk features are kept; 0: fresh ones each time
    # the loss
    loss: LossName = "cross-entropy"
    gamma: float = 2.0  # of the focal loss
    alpha: float = 0.8  # of the focal loss: weight of malignant images; benign ones have the rest
    label_smoothing: float = 0.0  # share of a label given to all classes alike
    class_weights: Literal["none", "balanced"] = "none"  # balanced: against their frequency
    positive_weight: float = 1.0  # of malignant images
    miss_cost: float = 1.0  # how many times more a melanoma taken for a nevus costs
    # the steps
    epochs: int = 5  # each ceil(real training images / batch) steps, however many extra there are
    batch: int = 64  # images a step
    accumulate: int = 1  # parts a batch is computed in, where memory is short
    lr: float = 1e-3  # highest learning rate of AdamW
    weight_decay: float = 0.05  # of AdamW (0: Adam); not on biases and batch norm
    clip: float = 0.0  # largest norm of the gradient; 0: any
    schedule: ScheduleName = "one-cycle"  # of the learning rate
    warm_up: float = 1.0  # epochs of rising rate, of all schedules but one-cycle
    lr_start: float = 0.0  # exponential: rate of the first epoch
    hold: int = 0  # exponential: epochs at the highest rate
    decay: float = 0.8  # exponential: factor an epoch after that
    lr_min: float = 0.0  # exponential: rate it ends at
    factor: float = 0.5  # plateau: of the rate where the monitored figure does not improve
    plateau_patience: int = 5  # plateau: epochs without improvement before that
    head_epochs: int = 0  # first epochs in which the head alone trains
    head_lr: float = 1e-3  # learning rate in them
    ema: float = 0.0  # decay a step of the average of the weights that is tested; 0: no average
    monitor: Monitor = "auc"  # validation figure that chooses the checkpoint
    patience: int = 0  # epochs without a better one before it stops; 0: never
    min_delta: float = 0.0  # smallest change of it that counts as better, in stopping and plateaus
    # the rest
    tta: int = 1  # views an image whose scores are averaged in the end: 1, 8 (flips, turns) or more
    cache_gib: float = 4.0  # memory for kept features in GiB; where too little, slower, same result
    seed: int = 0  # of first weights, data order, augmentation and dropout
    device: DeviceName = "auto"  # where to compute
    precision: PrecisionName = "auto"  # auto on a CPU: bf16 in the frozen trunk alone
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline
    out: Path | None = None  # run folder; none: a free name under runs/cls
    resume: bool = False  # go on in --out from its last checkpoint
    overwrite: bool = False  # replace a run that --out holds
    smoke: bool = False  # try a recipe out: random weights, small images, two steps


def check_numbers(options: TrainOptions) -> None:
    """Raises UserError where a number is out of range, or two options exclude each other."""
    whole = {"epochs": 1, "batch": 2, "size": 32, "patience": 0, "views": 0, "cap": 0}
    if options.fold != "all":
        _expect(options, "fold", lambda x: x >= 0, "0 or more, or all")
    whole |= {"accumulate": 1, "head_epochs": 0, "hold": 0, "plateau_patience": 0}
    above = ("lr", "head_lr", "positive_weight", "miss_cost", "decay", "factor")
    least = ("weight_decay", "cache_gib", "clip", "warm_up", "lr_start", "lr_min", "gamma")
    shares = ("cutmix", "mixup", "alpha")
    for name, lowest in whole.items():
        _expect(options, name, lambda x, low=lowest: x >= low, f"{lowest} or more")
    for name in above:
        _expect(options, name, lambda x: 0 < x < float("inf"), "a number above 0")
    for name in (*least, "min_delta"):
        _expect(options, name, lambda x: 0 <= x < float("inf"), "0 or more")
    for name in shares:
        _expect(options, name, lambda x: 0 <= x <= 1, "0 to 1")
    for name in ("dropout", "ema", "label_smoothing"):
        _expect(options, name, lambda x: 0 <= x < 1, f"0 <= {name.replace('_', '-')} < 1")
    if options.cutmix + options.mixup > 1:
        raise UserError("--cutmix and --mixup: shares of the batches, together at most 1")
    if options.head_epochs >= options.epochs:
        raise UserError(
            f"--head-epochs {options.head_epochs}: expected fewer than --epochs {options.epochs}"
        )
    if options.accumulate > options.batch // 2:
        raise UserError(
            f"--accumulate {options.accumulate}: expected at most half of --batch {options.batch}"
        )
    if options.monitor == "balanced-accuracy" and options.target == "binary":
        raise UserError("--monitor balanced-accuracy: of --target diagnosis only; use auc or loss")


def _expect(options: TrainOptions, name: str, holds: Callable[[Any], bool], words: str) -> None:
    if not holds(value := getattr(options, name)):
        raise UserError(f"--{name.replace('_', '-')} {value}: expected {words}")
