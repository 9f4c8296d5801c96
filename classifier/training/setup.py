"""Everything that a run needs, found and checked before its folder is made."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from classifier.model.backbones import (
    block_count,
    build_backbone,
    default_frozen,
    multi_level_limit,
    splits,
)
from classifier.model.classifier import Classifier, ModelSpec
from classifier.model.metadata_inputs import MetadataInputs
from classifier.model.weights import load_weights, weights_input
from classifier.options import ModelOptions, TrainOptions, check_effects, check_values, command
from classifier.run_folder import KIND
from classifier.targets import Target, target_of
from classifier.training.externals import ExternalTest, check_externals
from classifier.training.pools import choose_pool, find_pool, open_pool, pool_for
from classifier.training.resume import earlier, with_choices
from classifier.training.training_set import TrainingSet, build_training_set, fit_metadata
from classifier.tta import check_tta
from data.pool import Pool
from data.prepare import default_dataset
from data.store import Dataset, load_dataset
from data.view import view
from dermsynth.errors import UserError
from dermsynth.files import free_name
from dermsynth.folders import check_replaceable
from dermsynth.manifest import Input
from dermsynth.names import check_name
from dermsynth.options import flat, replace
from dermsynth.seeds import seed_torch
from dermsynth.tensors import send

INSTEAD = "efficientnet-lite0"  # its ImageNet weights are installed with the program


@dataclass(frozen=True)
class TrainingSetup:
    """Resolved options and all that they name."""

    options: TrainOptions  # data, frozen, pool and out are set
    fold: int
    target: Target
    spec: ModelSpec
    dataset: Dataset
    externals: dict[str, Dataset]
    external_tests: dict[str, ExternalTest]  # what is scored of them
    training: TrainingSet
    metadata: MetadataInputs | None  # for a model that looks at age, sex and site
    pool: Pool | None
    benign_pool: Pool | None
    leak: str | None  # why this run's figures cannot be trusted
    weights: Input | None  # the file of --weights FILE
    out: Path

    @property
    def kept(self) -> TrainOptions:
        """The options to write down: another start says for itself how it starts."""
        return replace(self.options, resume=False, overwrite=False)

    @property
    def inputs(self) -> dict[str, Input]:
        """What the run is made from, by name."""
        inputs = {"dataset": self.dataset.as_input}
        inputs |= {f"external/{name}": each.as_input for name, each in self.externals.items()}
        if self.pool is not None:
            inputs["pool"] = self.pool.as_input
        if self.benign_pool is not None:
            inputs["benign pool"] = self.benign_pool.as_input
        if self.weights is not None:
            inputs["weights"] = self.weights
        return inputs

    def numbers(
        self, dataset: Dataset, device: torch.device, rows: np.ndarray | None = None
    ) -> torch.Tensor | None:
        """Metadata float32 [n, columns] of some images, or of the training set in its order."""
        if self.metadata is None:
            return None
        rows = self.metadata.training if rows is None else rows
        return send(self.metadata.numbers(dataset, rows), device)


def resolve(options: TrainOptions) -> TrainingSetup:
    """Check the options, open what they name, and make the pool where one is to be made.

    Raises UserError; writes no run folder. What can be refused is refused before a phantom is
    drawn or a pool made.
    """
    setup = look_up(options)
    needed, _ = setup.training.needed
    if needed and setup.pool is None:
        check_weights(options)
        pool, leak = pool_for(setup.options, setup.dataset, needed)
        leak = _all_leaks(setup.leak, leak)
        resolved = replace(setup.options, pool=pool.path, generator=None)
        return dataclasses.replace(setup, options=resolved, pool=pool, leak=leak)
    return setup


def look_up(options: TrainOptions) -> TrainingSetup:
    """As `resolve`, but for a pool that a generator is to make: then `pool` is None."""
    if options.run.resume:
        options = with_choices(options, earlier(options))
    elif options.run.out is not None:
        check_replaceable(options.run.out, KIND, options.run.overwrite)
    options = settle(options)
    fold, model = options.task.fold, options.model
    assert fold != "all"
    externals, weights = _open_externals(options), weights_input(model.weights)
    if options.task.data is None:  # the phantom may be drawn now
        find_pool(options)
        check_weights(options)
    data = options.task.data or default_dataset()
    task = options.task
    dataset = view(_open(data, model), fold, task.test_fold, task.malignant_share)
    _check_classes(dataset, fold, options.choice.monitor)
    tests = check_externals(externals, dataset, options)
    target = target_of(dataset, fold, options.task.target)
    training = build_training_set(dataset, target, options)
    needed, benign_needed = training.needed
    pool, leak, generator = choose_pool(options, dataset, needed)
    benign_pool = None
    if (place := options.training_set.benign_pool) is not None:
        benign_pool, leak_too = open_pool(options, dataset, place, benign_needed, "benign")
        leak = leak or leak_too
    leak = _all_leaks(leak, *(test.leak for test in tests.values()))
    metadata = fit_metadata(options, dataset, training) if model.head == "metadata" else None
    name = data.absolute().name
    folds, backbone = f"fold{fold}{dataset.view.name}", model.backbone.replace(":", "-")
    stem = f"{name}-{backbone}-{folds}-seed{options.compute.seed}"
    out = options.run.out or free_name(Path("runs/cls"), stem)
    spec = ModelSpec(
        backbone=model.backbone,
        size=model.size,
        frozen=_frozen(options),
        batch_norm=model.batch_norm,
        head=model.head,
        dropout=model.dropout,
        outputs=target.outputs,
        columns=metadata.width if metadata else 0,
        read_size=model.read_size,
    )
    path = pool.path if pool else None
    options = replace(options, data=data, pool=path, generator=generator, out=out)
    found = (fold, target, spec, dataset, externals, tests, training, metadata, pool, benign_pool)
    return TrainingSetup(options, *found, leak, weights, out)


def settle(options: TrainOptions) -> TrainOptions:
    """The options with what follows from them alone. Raises UserError where they do not fit."""
    check_effects(options, _frozen(options), splits(options.model.backbone))
    if options.run.smoke:
        options = _smoke(options)
    check_values(options)
    check_tta(options.choice.tta, options.augmentation.augment)
    return replace(options, frozen=_frozen(options))


def build_model(setup: TrainingSetup) -> tuple[Classifier, str]:
    """The model with its first weights, and where they come from, in words."""
    options = setup.options.model
    seed_torch(setup.options.compute.seed, "weights")
    model = Classifier(setup.spec)
    instead = _instead(setup.options)
    words = load_weights(model.backbone, options.backbone, options.weights, options.size, instead)
    return model.to(memory_format=torch.channels_last), words  # type: ignore[call-overload]


def check_weights(options: TrainOptions) -> None:
    """Raises UserError where the first weights cannot be had or do not fit."""
    model = options.model
    backbone = build_backbone(model.backbone, model.size)
    load_weights(backbone, model.backbone, model.weights, model.size, _instead(options))


def _instead(options: TrainOptions) -> str:
    """The same command with a backbone whose weights are installed."""
    frozen = min(_frozen(options), default_frozen(INSTEAD))
    return command(replace(options, backbone=INSTEAD, frozen=frozen, weights="imagenet"))


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
    if options.choice.tta == "clinics":
        del least["tta"]
    small = {name: min(given[name], value) for name, value in least.items()}
    if options.model.frozen is None:  # else nothing would be, with random weights
        small["frozen"] = default_frozen(options.model.backbone)
    return replace(options, **small, epochs=1 + small["head_epochs"], weights="none")


def _all_leaks(*reasons: str | None) -> str | None:
    return "; ".join(reason for reason in reasons if reason) or None


def _check_classes(dataset: Dataset, fold: int, monitor: str) -> None:
    for part, words in (("train", "training"), ("val", "validation")):
        targets = dataset.targets(dataset.rows(part, fold))  # type: ignore[arg-type]
        if len(np.unique(targets)) < 2 and (part == "train" or monitor == "auc"):
            meaning = dataset.info.target
            only = meaning.one if targets.any() else meaning.zero
            raise UserError(
                f"--fold {fold}: all {len(targets)} images of the {words} part of {dataset.path} "
                f"are {only}: no AUC, so no best checkpoint and no early stopping; take "
                "another fold, prepare it with fewer --folds, or choose by --monitor loss"
            )


def _open(path: Path, model: ModelOptions) -> Dataset:
    """A dataset as the model reads it. Raises UserError where --read-size would do nothing."""
    dataset = load_dataset(path, model.read_size or model.size)
    if model.read_size is not None and dataset.size != model.read_size:
        raise UserError(
            f"--read-size {model.read_size}: {path} stores its images at {dataset.size} px; it is "
            "for datasets of --size native, whose real images are sharper than a pool's"
        )
    return dataset


def _open_externals(options: TrainOptions) -> dict[str, Dataset]:
    """The datasets of --external by their names."""
    externals: dict[str, Dataset] = {}
    for text in options.training_set.external:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--external {text}: expected NAME=FOLDER of a prepared dataset")
        check_name(name, f"--external {text}")
        if name in externals:
            raise UserError(f"--external {text}: the name {name} is given twice")
        externals[name] = _open(Path(folder), options.model)
    return externals
