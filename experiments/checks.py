"""Everything that would stop an experiment, found out before a generator trains."""

from pathlib import Path

import numpy as np

from classifier.training.pools import open_pool
from classifier.training.setup import build_model
from classifier.training.setup import resolve as resolve_setup
from data.store import Dataset
from data.view import view
from dermsynth.errors import UserError, counted
from dermsynth.manifest import Input
from dermsynth.options import replace
from experiments.config import ROTATE, SAMPLERS, Arm, Experiment, Source, Split, Trial
from experiments.tasks import phantom_options, pool_sizes, trial_options
from gan.options import TrainOptions as GanOptions
from gan.training_images import LEAST_HELD_OUT, held_out_rows, training_part
from gan.training_run import resolve_classes, resolve_config

WORDS = {"train": "training", "val": "validation", "test": "test"}


def find_splits(experiment: Experiment, dataset: Dataset) -> list[Split]:
    """What is tested and validated on, each with both classes in every part.

    Raises UserError for folds that are not there, too few to rotate, and a part of one class.
    """
    known = sorted({int(fold) for fold in dataset.table["fold"] if fold >= 0})
    rotates = not isinstance(experiment.folds, int)
    if rotates and len(known) < 3:
        raise UserError(
            f"folds: {ROTATE}: {dataset.path} has {counted(len(known), 'fold')}; one is tested "
            "on, one chooses the checkpoint and the rest is trained on, so it takes three: prepare "
            "it again with --folds 5"
        )
    if rotates and experiment.folds != ROTATE and (odd := set(experiment.folds) - set(known)):
        raise UserError(f"folds: {sorted(odd)}: {dataset.path} has folds {known}")
    splits = experiment.splits(known)
    for split in splits:
        seen = view(dataset, split.fold, split.test_fold)
        for part, name in WORDS.items():
            targets = seen.targets(seen.rows(part, split.fold))  # type: ignore[arg-type]
            if len(np.unique(targets)) == 2:
                continue
            mend = "prepare it again with fewer --folds"
            if split.test_fold is None and part == "test":
                mend = "prepare it again with --test-fraction 0.2, or use `folds: rotate`"
            words = dataset.info.target.words
            kind = "no" if not len(targets) else f"only {words[int(targets[0])]}"
            place = f"fold {split.number} of {dataset.path}"
            raise UserError(
                f"{place}: its {name} part has {kind} images ({len(targets)}), and an AUC needs "
                f"both classes; {mend}"
            )
    return splits


def check(
    dataset: Dataset, arms: list[Arm], splits: list[Split], trials: list[Trial]
) -> dict[str, Input]:
    """What an experiment is made from. Raises UserError for what would stop one of its tasks."""
    inputs = {"dataset": dataset.as_input}
    for arm in arms:
        first = Trial(arm, splits[0], trials[0].seed, None)
        options = trial_options(first, dataset.path)
        setup = resolve_setup(replace(options, synthetic="0", synthetic_only=False))
        build_model(setup)
        for name, external in setup.externals.items():
            inputs[f"external/{name}"] = external.as_input
    sources = {arm.source.pool: arm.source for arm in arms if arm.source is not None}
    for source in sources.values():
        if source.pool in SAMPLERS:
            phantom_options(source.pool, dataset)
        elif source.pool != "gan":
            inputs[f"pool/{source.pool}"] = _check_pool(dataset, source, trials)
    gans = {arm.source.name: arm.source.gan for arm in arms if arm.source and arm.source.gan}
    for gan in gans.values():
        for split in splits:
            _check_generator(dataset, gan, split)
    return inputs


def _check_pool(dataset: Dataset, source: Source, trials: list[Trial]) -> Input:
    """A pool that somebody made before is fit for every training that uses it."""
    needed = pool_sizes(dataset, trials)[source.pool]
    for trial in trials:
        if trial.arm.source == source and trial.seed == trials[0].seed:
            split = trial.split
            seen = view(dataset, split.fold, split.test_fold)
            options = trial_options(trial, dataset.path)
            pool, _ = open_pool(options, seen, Path(source.pool), needed)
    return pool.as_input


def _check_generator(dataset: Dataset, options: GanOptions, split: Split) -> None:
    """The split has images to train a generator on, and others to evaluate it on."""
    images = options.images
    seen = view(dataset, split.fold, split.test_fold, images.malignant_share)
    part = training_part(seen, split.fold, resolve_classes(options))
    resolve_config(options, dataset.size, len(part.classes))
    if len(held_out := held_out_rows(seen, split.fold)) < LEAST_HELD_OUT:
        raise UserError(
            f"{dataset.path}: {counted(len(held_out), f'{dataset.info.target.one} image')} in the "
            f"validation part of fold {split.fold}; the evaluation of a generator needs "
            f"{LEAST_HELD_OUT} at the very least: prepare it again with fewer --folds, or bring "
            "more images"
        )
