"""Everything that a run needs, found and checked before its folder is made."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro

from classifier import mix
from classifier.backbones import BatchNormMode, Classifier, block_count, default_frozen
from classifier.weights import load_weights
from data.mixing import parse_share
from data.pool import Pool
from data.store import Dataset, load_dataset
from runtime import runs
from runtime.cli import read_yaml
from runtime.device import DeviceName, PrecisionName
from runtime.errors import UserError, some
from runtime.seeds import seed_torch
from runtime.tracking import TrackingMode


@dataclass(frozen=True)
class TrainOptions:
    """Options of `python -m classifier.train`."""

    data: Path | None = None  # prepared dataset folder; none: the phantom, prepared on the way
    fold: int = 0  # validate on this fold, train on the others
    backbone: str = "efficientnet-b3"  # efficientnet-b0..b7 or efficientnet-lite0..2
    weights: str = "imagenet"  # imagenet, none (random), or a .safetensors or .pth FILE
    frozen: int | None = None  # blocks frozen after the stem; none: five of the seven stages, b3 18
    batch_norm: BatchNormMode = "fixed"  # in frozen blocks: adapt keeps training it, fixed does not
    size: int = 128  # side in pixels of what the network sees; all images are resized to it
    synthetic: str = "0"  # share of the final training set that is synthetic, or balanced
    oversample: str = "0"  # the same with duplicates of real malignant images instead
    pool: Path | None = None  # folder of synthetic images
    generator: Path | None = None  # gan.train run to make the pool with; none: the newest that fits
    allow_leakage: bool = False  # train on a pool that saw validation images; marks every output
    external: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()  # NAME=FOLDER to test on
    epochs: int = 5  # each ceil(real training images / batch) steps, however many extra there are
    batch: int = 64  # images a step
    lr: float = 1e-3  # highest learning rate of AdamW
    weight_decay: float = 0.05  # of AdamW; not on biases and batch norm
    schedule: Literal["one-cycle", "warm-up"] = "one-cycle"  # warm-up: 1 epoch, then constant
    patience: int = 0  # epochs without a better validation AUC before it stops; 0: never
    dropout: float = 0.2  # before the last layer
    views: int = 8  # fixed views an image whose trunk features are kept; 0: fresh ones each time
    cache_gib: float = 4.0  # memory for them in GiB; where too little, slower, same result
    seed: int = 0  # of first weights, data order, augmentation and dropout
    device: DeviceName = "auto"  # where to compute
    precision: PrecisionName = "auto"  # auto on a CPU: bf16 in the frozen trunk alone
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline
    out: Path | None = None  # run folder; none: a free name under runs/cls
    resume: bool = False  # go on in --out from its last checkpoint
    overwrite: bool = False  # replace a run that --out holds


@dataclass(frozen=True)
class Job:
    """Resolved options and all that they name."""

    options: TrainOptions  # data, frozen, pool and out are set
    dataset: Dataset
    externals: dict[str, Dataset]
    training: mix.TrainingList
    pool: Pool | None
    leak: str | None  # why this run's figures cannot be trusted
    out: Path


def resolve(options: TrainOptions) -> Job:
    """Check the options and open what they name. Raises UserError; writes no run folder."""
    if options.resume:
        options = _with_saved_choices(options)
    _check_numbers(options)
    frozen = default_frozen(options.backbone) if options.frozen is None else options.frozen
    blocks = block_count(options.backbone)
    if not 0 <= frozen <= blocks:
        raise UserError(
            f"--frozen {frozen}: {options.backbone} has {blocks} blocks; expected 0 to {blocks}"
        )
    synthetic = parse_share("--synthetic", options.synthetic)
    oversample = parse_share("--oversample", options.oversample)
    if synthetic and oversample:
        raise UserError("--synthetic and --oversample: arms of a comparison; give one of them")
    if (options.pool or options.generator) and not synthetic:
        raise UserError("--pool and --generator: nothing to add; say how much with --synthetic 0.3")
    if options.pool and options.generator:
        raise UserError("--pool and --generator: give one of them")
    data = options.data or _default_dataset()
    dataset = load_dataset(data, options.size)
    _check_classes(dataset, options.fold)
    externals = _externals(options, dataset)
    n_synthetic = mix.extras_needed(dataset, options.fold, synthetic)
    pool, leak = _pool(options, dataset, n_synthetic)
    stem = f"{data.name}-{options.backbone}-fold{options.fold}-seed{options.seed}"
    out = options.out or runs.free_name(Path("runs/cls"), stem)
    resolved = dataclasses.replace(
        options, data=data, frozen=frozen, pool=pool.path if pool else None, generator=None, out=out
    )
    n_duplicates = mix.extras_needed(dataset, options.fold, oversample)
    training = mix.training_list(dataset, options.fold, n_synthetic, n_duplicates, options.seed)
    return Job(resolved, dataset, externals, training, pool, leak, out)


def build_model(options: TrainOptions) -> tuple[Classifier, str]:
    """The model with its first weights, and where they come from, in words."""
    assert options.frozen is not None
    seed_torch(options.seed, "weights")
    model = Classifier(
        options.backbone, options.size, options.frozen, options.batch_norm, options.dropout
    )
    words = load_weights(model, options.weights)
    return model.to(memory_format=torch.channels_last), words  # type: ignore[call-overload]


def _check_numbers(options: TrainOptions) -> None:
    whole = {"epochs": 1, "batch": 2, "size": 32, "patience": 0, "views": 0, "fold": 0}
    for name, least in whole.items():
        if (value := getattr(options, name)) < least:
            raise UserError(f"--{name} {value}: expected {least} or more")
    if not 0 < options.lr < float("inf"):
        raise UserError(f"--lr {options.lr}: expected a number above 0")
    if not 0 <= options.weight_decay < float("inf"):
        raise UserError(f"--weight-decay {options.weight_decay}: expected 0 or more")
    if not 0 <= options.dropout < 1:
        raise UserError(f"--dropout {options.dropout}: expected 0 <= dropout < 1")
    if not 0 <= options.cache_gib < float("inf"):
        raise UserError(f"--cache-gib {options.cache_gib}: expected 0 or more")


def _with_saved_choices(options: TrainOptions) -> TrainOptions:
    """Choices that the first start made by itself (newest generator, dataset) are kept."""
    if options.out is None:
        raise UserError("--resume: give the run's folder with --out")
    if not (options.out / runs.CONFIG).exists():
        raise UserError(f"--resume: {options.out} holds no {runs.CONFIG}; start it without")
    saved = read_yaml(options.out / runs.CONFIG)
    data = options.data or Path(saved["data"])
    pool = options.pool or (Path(saved["pool"]) if saved["pool"] else None)
    return dataclasses.replace(options, data=data, pool=pool, generator=None)


def _default_dataset() -> Path:
    from data.prepare import default_dataset  # here: it draws the phantom, others need not load it

    return default_dataset()


def _check_classes(dataset: Dataset, fold: int) -> None:
    for part, words in (("train", "training"), ("val", "validation")):
        targets = dataset.targets(dataset.rows(part, fold))  # type: ignore[arg-type]
        if len(np.unique(targets)) < 2:
            only = "malignant" if targets.any() else "benign"
            raise UserError(
                f"--fold {fold}: the {words} part of {dataset.path} holds only {only} images "
                f"({len(targets)}): no AUC, so no best checkpoint and no early stopping; "
                "take another fold or prepare it with fewer --folds"
            )


def _externals(options: TrainOptions, dataset: Dataset) -> dict[str, Dataset]:
    found: dict[str, Dataset] = {}
    own = dataset.table["sha256"].to_numpy()[dataset.rows("train", options.fold)]
    seen = {digest for digest in own if digest}
    for text in options.external:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--external {text}: expected NAME=FOLDER of a prepared dataset")
        if name in found:
            raise UserError(f"--external {text}: the name {name} is given twice")
        found[name] = load_dataset(Path(folder), options.size)
        table = found[name].table
        met = table.loc[table["sha256"].isin(seen), "image_id"].tolist()
        if met and not options.allow_leakage:
            raise UserError(
                f"--external {text}: {len(met)} of its images are trained on: {some(met)}; "
                "it cannot test this run"
            )
    return found


def _pool(
    options: TrainOptions, dataset: Dataset, needed: int
) -> tuple[Pool, str | None] | tuple[None, None]:
    if needed == 0:
        return None, None
    path = options.pool
    if path is None:
        run = options.generator
        if run is None:
            run = mix.newest_generator(dataset, options.fold)
            print(f"synthetic images from {run}, the newest generator of this dataset and fold")
        path = mix.pool_of_generator(
            *(dataset, options.fold, run, needed, options.seed),
            *(options.device, options.allow_leakage),
        )
    pool, reason = mix.open_pool(dataset, options.fold, path, needed, options.allow_leakage)
    if pool.images.shape[1] < min(options.size, dataset.size):
        print(
            f"warning: {path} holds {pool.images.shape[1]} px images, smoother at {options.size} "
            f"px than real ones: --size {pool.images.shape[1]} shows both alike"
        )
    return pool, reason
