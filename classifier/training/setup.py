"""Everything that a run needs, found and checked before its folder is made."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from classifier.model.backbones import block_count, default_frozen, multi_level_limit
from classifier.model.classifier import Classifier, ModelSpec
from classifier.model.fusion import Fusion
from classifier.model.weights import load_weights
from classifier.options import Monitor, TrainOptions, check_numbers
from classifier.targets import Target, target_of
from classifier.training import training_set
from classifier.training.metadata_inputs import fit_fusion
from classifier.training.training_set import parse_share
from classifier.tta import check_tta
from data.pool import Pool
from data.store import Dataset, load_dataset
from dermsynth import runs
from dermsynth.cli import read_yaml
from dermsynth.errors import UserError, some
from dermsynth.seeds import seed_torch


@dataclass(frozen=True)
class Job:
    """Resolved options and all that they name."""

    options: TrainOptions  # data, frozen, pool and out are set
    fold: int
    target: Target
    spec: ModelSpec
    dataset: Dataset
    externals: dict[str, Dataset]
    training: training_set.TrainingList
    fusion: Fusion | None  # metadata as numbers
    pool: Pool | None
    leak: str | None  # why this run's figures cannot be trusted
    out: Path


def resolve(options: TrainOptions) -> Job:
    """Check the options and open what they name. Raises UserError; writes no run folder."""
    if options.resume:
        options = with_saved_choices(options)
    if options.smoke:
        options = _smoke(options)
    check_numbers(options)
    check_tta(options.tta, options.augment)
    synthetic = parse_share("--synthetic", options.synthetic)
    oversample = parse_share("--oversample", options.oversample)
    if synthetic and oversample:
        raise UserError("--synthetic and --oversample: arms of a comparison; give one of them")
    if (options.pool or options.generator) and not synthetic:
        raise UserError("--pool and --generator: nothing to add; say how much with --synthetic 0.3")
    if options.pool and options.generator:
        raise UserError("--pool and --generator: give one of them")
    fold, frozen = options.fold, _frozen(options)
    assert fold != "all"
    data = options.data or default_dataset()
    dataset = load_dataset(data, options.size)
    _check_classes(dataset, fold, options.monitor)
    externals = _externals(options, dataset, fold)
    target = target_of(dataset, fold, options.target)
    rows = training_set.real_rows(
        dataset, fold, target, options.cap, options.upsample, options.seed
    )
    n_synthetic = training_set.extras_needed(dataset.targets(rows), synthetic)
    n_duplicates = training_set.extras_needed(dataset.targets(rows), oversample)
    pool, leak = _pool(options, dataset, fold, n_synthetic)
    training = training_set.training_list(
        dataset, rows, target, n_synthetic, n_duplicates, options.seed
    )
    fusion = fit_fusion(options, dataset, training) if options.head == "metadata" else None
    stem = f"{data.name}-{options.backbone.replace(':', '-')}-fold{fold}-seed{options.seed}"
    out = options.out or runs.free_name(Path("runs/cls"), stem)
    resolved = dataclasses.replace(
        options, data=data, frozen=frozen, pool=pool.path if pool else None, generator=None, out=out
    )
    spec = ModelSpec(
        backbone=options.backbone,
        size=options.size,
        frozen=frozen,
        batch_norm=options.batch_norm,
        head=options.head,
        dropout=options.dropout,
        outputs=target.outputs,
        columns=fusion.width if fusion else 0,
    )
    places = {"dataset": dataset, "externals": externals, "training": training, "out": out}
    return Job(resolved, fold, target, spec, fusion=fusion, pool=pool, leak=leak, **places)


def build_model(job: Job) -> tuple[Classifier, str]:
    """The model with its first weights, and where they come from, in words."""
    options = job.options
    seed_torch(options.seed, "weights")
    model = Classifier(job.spec)
    words = load_weights(model.backbone, options.backbone, options.weights, options.size)
    return model.to(memory_format=torch.channels_last), words  # type: ignore[call-overload]


def _frozen(options: TrainOptions) -> int:
    blocks = block_count(options.backbone)
    if options.frozen is None:
        return 0 if options.weights == "none" else default_frozen(options.backbone)
    if not 0 <= options.frozen <= blocks:
        raise UserError(
            f"--frozen {options.frozen}: {options.backbone} has {blocks} blocks; "
            f"expected 0 to {blocks}"
        )
    most = multi_level_limit(options.backbone) if options.head == "multi-level" else None
    if most is not None and options.frozen > most:
        raise UserError(
            f"--frozen {options.frozen}: the multi-level head looks at what block {most} gives; "
            f"expected 0 to {most}"
        )
    return options.frozen


def _smoke(options: TrainOptions) -> TrainOptions:
    """The recipe in seconds: everything runs, nothing is learnt."""
    least = {"size": 64, "head_epochs": 1, "tta": 2, "batch": 8, "views": 1, "accumulate": 4}
    small = {name: min(getattr(options, name), value) for name, value in least.items()}
    if options.frozen is None:  # else nothing would be, with random weights
        small["frozen"] = default_frozen(options.backbone)
    return dataclasses.replace(options, **small, epochs=1 + small["head_epochs"], weights="none")


def with_saved_choices(options: TrainOptions) -> TrainOptions:
    """Choices that the first start made by itself (newest generator, dataset) are kept."""
    if options.out is None:
        raise UserError("--resume: give the run's folder with --out")
    if not (options.out / runs.CONFIG).exists():
        raise UserError(f"--resume: {options.out} holds no {runs.CONFIG}; start it without")
    saved = read_yaml(options.out / runs.CONFIG)
    data = options.data or Path(saved["data"])
    pool = options.pool or (Path(saved["pool"]) if saved["pool"] else None)
    return dataclasses.replace(options, data=data, pool=pool, generator=None)


def default_dataset() -> Path:
    """The phantom's folder, prepared on the way."""
    from data.prepare import default_dataset  # here: it draws the phantom, others need not load it

    return default_dataset()


def _check_classes(dataset: Dataset, fold: int, monitor: Monitor) -> None:
    for part, words in (("train", "training"), ("val", "validation")):
        targets = dataset.targets(dataset.rows(part, fold))  # type: ignore[arg-type]
        if len(np.unique(targets)) < 2 and (part == "train" or monitor == "auc"):
            only = "malignant" if targets.any() else "benign"
            raise UserError(
                f"--fold {fold}: the {words} part of {dataset.path} holds only {only} images "
                f"({len(targets)}): no AUC, so no best checkpoint and no early stopping; take "
                "another fold, prepare it with fewer --folds, or choose by --monitor loss"
            )


def _externals(options: TrainOptions, dataset: Dataset, fold: int) -> dict[str, Dataset]:
    found: dict[str, Dataset] = {}
    own = dataset.table["sha256"].to_numpy()[dataset.rows("train", fold)]
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
    options: TrainOptions, dataset: Dataset, fold: int, needed: int
) -> tuple[Pool, str | None] | tuple[None, None]:
    if needed == 0:
        return None, None
    path = options.pool
    if path is None:
        run = options.generator
        if run is None:
            run = training_set.newest_generator(dataset, fold)
            print(f"synthetic images from {run}, the newest generator of this dataset and fold")
        path = training_set.pool_of_generator(
            *(dataset, fold, run, needed, options.seed),
            *(options.device, options.allow_leakage),
        )
    pool, reason = training_set.open_pool(dataset, fold, path, needed, options.allow_leakage)
    if pool.images.shape[1] < min(options.size, dataset.size):
        print(
            f"warning: {path} holds {pool.images.shape[1]} px images, smoother at {options.size} "
            f"px than real ones: --size {pool.images.shape[1]} shows both alike"
        )
    return pool, reason
