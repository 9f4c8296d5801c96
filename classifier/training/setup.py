"""Everything that a run needs, found and checked before its folder is made."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from classifier.model.backbones import block_count, default_frozen, multi_level_limit, splits
from classifier.model.classifier import Classifier, ModelSpec
from classifier.model.metadata_inputs import MetadataInputs
from classifier.model.weights import load_weights
from classifier.options import TrainOptions, check_effects, check_values
from classifier.targets import Target, target_of
from classifier.training.pools import pool_for
from classifier.training.training_set import TrainingSet, build_training_set, fit_metadata
from classifier.tta import check_tta
from data.pool import Pool
from data.prepare import default_dataset
from data.store import Dataset, load_dataset
from dermsynth import runs
from dermsynth.cli import read_yaml
from dermsynth.errors import UserError, some
from dermsynth.options import flat, replace
from dermsynth.seeds import seed_torch


@dataclass(frozen=True)
class TrainingSetup:
    """Resolved options and all that they name."""

    options: TrainOptions  # data, frozen, pool and out are set
    fold: int
    target: Target
    spec: ModelSpec
    dataset: Dataset
    externals: dict[str, Dataset]
    training: TrainingSet
    metadata: MetadataInputs | None  # for a model that looks at age, sex and site
    pool: Pool | None
    leak: str | None  # why this run's figures cannot be trusted
    out: Path

    def numbers(
        self, dataset: Dataset, device: torch.device, rows: np.ndarray | None = None
    ) -> torch.Tensor | None:
        """Metadata float32 [n, columns] of some images, or of the training set in its order."""
        if self.metadata is None:
            return None
        rows = self.metadata.training if rows is None else rows
        return torch.from_numpy(self.metadata.numbers(dataset, rows)).to(device)


def resolve(options: TrainOptions) -> TrainingSetup:
    """Check the options and open what they name. Raises UserError; writes no run folder."""
    if options.run.resume:
        options = with_saved_choices(options)
    check_effects(options, _frozen(options), splits(options.model.backbone))
    if options.run.smoke:
        options = _smoke(options)
    check_values(options)
    check_tta(options.choice.tta, options.augmentation.augment)
    fold, frozen, model = options.task.fold, _frozen(options), options.model
    assert fold != "all"
    data = options.task.data or default_dataset()
    dataset = load_dataset(data, model.size)
    _check_classes(dataset, fold, options.choice.monitor)
    externals = _externals(options, dataset, fold)
    target = target_of(dataset, fold, options.task.target)
    training = build_training_set(dataset, target, options)
    pool, leak = pool_for(options, dataset, int(training.synthetic.sum()))
    metadata = fit_metadata(options, dataset, training) if model.head == "metadata" else None
    stem = f"{data.name}-{model.backbone.replace(':', '-')}-fold{fold}-seed{options.compute.seed}"
    out = options.run.out or runs.free_name(Path("runs/cls"), stem)
    pool_path = pool.path if pool else None
    spec = ModelSpec(
        backbone=model.backbone,
        size=model.size,
        frozen=frozen,
        batch_norm=model.batch_norm,
        head=model.head,
        dropout=model.dropout,
        outputs=target.outputs,
        columns=metadata.width if metadata else 0,
    )
    resolved = replace(options, data=data, frozen=frozen, pool=pool_path, generator=None, out=out)
    return TrainingSetup(
        resolved, fold, target, spec, dataset, externals, training, metadata, pool, leak, out
    )


def build_model(setup: TrainingSetup) -> tuple[Classifier, str]:
    """The model with its first weights, and where they come from, in words."""
    options = setup.options.model
    seed_torch(setup.options.compute.seed, "weights")
    model = Classifier(setup.spec)
    words = load_weights(model.backbone, options.backbone, options.weights, options.size)
    return model.to(memory_format=torch.channels_last), words  # type: ignore[call-overload]


def _frozen(options: TrainOptions) -> int:
    backbone, frozen = options.model.backbone, options.model.frozen
    blocks = block_count(backbone)
    if frozen is None:
        return 0 if options.model.weights == "none" else default_frozen(backbone)
    if not 0 <= frozen <= blocks:
        raise UserError(
            f"--frozen {frozen}: {backbone} has {blocks} blocks; expected 0 to {blocks}"
        )
    most = multi_level_limit(backbone) if options.model.head == "multi-level" else None
    if most is not None and frozen > most:
        raise UserError(
            f"--frozen {frozen}: the multi-level head looks at what block {most} gives; "
            f"expected 0 to {most}"
        )
    return frozen


def _smoke(options: TrainOptions) -> TrainOptions:
    """The recipe in seconds: everything runs, nothing is learnt."""
    least = {"size": 64, "head_epochs": 1, "tta": 2, "batch": 8, "views": 1, "accumulate": 4}
    given = flat(options)
    small = {name: min(given[name], value) for name, value in least.items()}
    if options.model.frozen is None:  # else nothing would be, with random weights
        small["frozen"] = default_frozen(options.model.backbone)
    return replace(options, **small, epochs=1 + small["head_epochs"], weights="none")


def with_saved_choices(options: TrainOptions) -> TrainOptions:
    """Choices that the first start made by itself (newest generator, dataset) are kept."""
    out = options.run.out
    if out is None:
        raise UserError("--resume: give the run's folder with --out")
    if not (out / runs.CONFIG).exists():
        raise UserError(f"--resume: {out} holds no {runs.CONFIG}; start it without")
    saved = read_yaml(out / runs.CONFIG)
    data = options.task.data or Path(saved["data"])
    pool = options.training_set.pool or (Path(saved["pool"]) if saved["pool"] else None)
    return replace(options, data=data, pool=pool, generator=None)


def _check_classes(dataset: Dataset, fold: int, monitor: str) -> None:
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
    """The datasets of --external by their names, none of whose images is trained on."""
    externals: dict[str, Dataset] = {}
    own = dataset.table["sha256"].to_numpy()[dataset.rows("train", fold)]
    seen = {digest for digest in own if digest}
    for text in options.training_set.external:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--external {text}: expected NAME=FOLDER of a prepared dataset")
        if name in externals:
            raise UserError(f"--external {text}: the name {name} is given twice")
        externals[name] = load_dataset(Path(folder), options.model.size)
        table = externals[name].table
        met = table.loc[table["sha256"].isin(seen), "image_id"].tolist()
        if met and not options.training_set.allow_leakage:
            raise UserError(
                f"--external {text}: {len(met)} of its images are trained on: {some(met)}; "
                "it cannot test this run"
            )
    return externals
