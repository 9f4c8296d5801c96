"""The steps of an experiment: check, generators, pools, trials, results; each once."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from classifier.options import parse_share
from classifier.train import train as train_classifier
from classifier.training.pools import open_pool
from classifier.training.setup import build_model
from classifier.training.setup import resolve as resolve_setup
from classifier.training.training_set import extra_count
from classifier.training.trunk_cache import FeatureCache
from data.phantom.config import PhantomPoolOptions, Quality
from data.phantom.sampling import write_phantom_pool
from data.pool import KIND as POOL
from data.pool import load_pool
from data.prepare import default_dataset
from data.store import Dataset, load_dataset
from dermsynth.cli import find_config
from dermsynth.errors import UserError
from dermsynth.folders import can_resume, check_replaceable, run_folder
from dermsynth.manifest import Identity, Input, check_same, is_finished, open_sealed
from dermsynth.options import OutputOptions, as_plain, flat, replace
from dermsynth.seeds import derive
from experiments.config import (
    CONFIGS,
    SAMPLERS,
    Arm,
    Experiment,
    Trial,
    gan_folder,
    pool_folder,
    read_experiment,
)
from experiments.options import ExperimentOptions
from experiments.records import KIND, REPORT
from experiments.results import write_results
from gan.evaluate import EvaluateOptions, evaluate
from gan.generate import GenerateOptions, generate
from gan.train import TrainOptions as GanOptions
from gan.train import train as train_gan
from gan.training_images import LEAST_HELD_OUT, held_out_rows, training_part
from gan.training_run import resolve_config

CLASSIFIER, GENERATOR, EVALUATION = "classifier", "generator", "generator-evaluation"


def run_steps(options: ExperimentOptions) -> Path:
    """Run what is not done yet and return the path of the report.

    Raises UserError for a bad experiment file, dataset or folder before anything is computed.
    """
    started = time.time()
    file = find_config(str(options.experiment), CONFIGS, "experiment")
    experiment, arms, gan_options = read_experiment(file)
    out = options.run.out or Path("runs/exp") / file.stem
    resume = options.run.resume and can_resume(out)
    if not resume:
        check_replaceable(out, KIND, options.run.overwrite)
    dataset = load_dataset(options.data or default_dataset())
    inputs = _check(dataset, experiment, arms, gan_options)
    trials = [
        Trial(arm, seed, gan_seed)
        for seed in experiment.seeds
        for arm in arms
        for gan_seed in arm.gan_seeds(experiment)
    ]
    plan = as_plain(experiment)
    with run_folder(
        out, KIND, plan, inputs, resume, options.run.overwrite, may_change=("description",)
    ) as run:
        uses_gan = any(arm.pool == "gan" for arm in arms)
        print(
            f"{file.stem}: {len(trials)} trials of {len(arms)} arms, "
            f"{len(experiment.gan_seeds) if uses_gan else 0} generators, on {dataset.path}, "
            f"fold {experiment.fold}\n  results go to {run.path}; --resume goes on after a kill"
        )
        if run.was_finished:
            run.loosen()
        if uses_gan:
            for seed in experiment.gan_seeds:
                _generator(run.path, options, experiment, dataset, gan_options, seed)
        _pools(run.path, options, experiment, dataset, arms)
        _run_trials(run.path, options, experiment, dataset, trials)
        parts = write_results(run.path, experiment, dataset, trials, file, started)
        run.finish(parts)
    return out / REPORT


def _check(
    dataset: Dataset, experiment: Experiment, arms: list[Arm], gan_options: GanOptions
) -> dict[str, Input]:
    """Find out now, not after the generators are trained, what would stop a step.

    Returns what the experiment is made from. Raises UserError.
    """
    inputs = {"dataset": dataset.as_input}
    test = dataset.rows("test", experiment.fold)
    if len(set(dataset.targets(test).tolist())) < 2:
        raise UserError(
            f"{dataset.path}: its test part has {len(test)} images and needs both classes; "
            "prepare it again with --test-fraction 0.2"
        )
    for arm in arms:
        real_only = replace(arm.options, data=dataset.path, fold=experiment.fold, synthetic="0")
        setup = resolve_setup(real_only)
        build_model(setup)
        for name, external in setup.externals.items():
            inputs[f"external/{name}"] = external.as_input
    for source, count in _pool_sizes(dataset, experiment, arms).items():
        if source in SAMPLERS:
            _check_phantom(source, dataset)
        elif source != "gan":
            inputs[f"pool/{source}"] = _check_pool(dataset, experiment, arms, source, count)
    if any(arm.pool == "gan" for arm in arms):
        _check_generator(dataset, experiment, gan_options)
    return inputs


def _check_pool(
    dataset: Dataset, experiment: Experiment, arms: list[Arm], source: str, count: int
) -> Input:
    """A pool that somebody made before is fit for every arm that uses it."""
    users = [arm for arm in arms if arm.pool == source]
    for arm in users:
        mine = replace(arm.options, data=dataset.path, fold=experiment.fold)
        pool, _ = open_pool(mine, dataset, Path(source), count)
    return pool.as_input


def _check_generator(dataset: Dataset, experiment: Experiment, options: GanOptions) -> None:
    """The fold has images to train a generator on, and others to evaluate it on."""
    classes = "none" if options.images.classes == "auto" else options.images.classes
    part = training_part(dataset, experiment.fold, classes)
    resolve_config(options, dataset.size, len(part.classes))
    if len(held_out := held_out_rows(dataset, experiment.fold)) < LEAST_HELD_OUT:
        raise UserError(
            f"{dataset.path}: {len(held_out)} malignant images in the validation part of fold "
            f"{experiment.fold}; the evaluation of a generator needs {LEAST_HELD_OUT} at the very "
            "least: prepare it again with fewer --folds, or bring more images"
        )


def _is_done(folder: Path, kind: str, inputs: Mapping[str, Identity]) -> bool:
    """Whether a step's folder is finished. Raises UserError where it was made from other inputs."""
    if not is_finished(folder, kind):
        return False
    sealed = open_sealed(folder, kind, f"{folder}: missing", "remove it, then --resume")
    made_from = {name: sealed.manifest.inputs[name] for name in inputs}
    check_same(made_from, inputs, str(folder), "remove that folder, then --resume makes it again")
    return True


def _generator(
    out: Path,
    options: ExperimentOptions,
    experiment: Experiment,
    dataset: Dataset,
    gan_options: GanOptions,
    seed: int,
) -> None:
    """Train and evaluate one generator, unless that is done."""
    run = gan_folder(out, seed)
    if not _is_done(run, GENERATOR, {"dataset": dataset.as_input}):
        print(f"generator, seed {seed}")
        train_gan(
            replace(
                gan_options,
                data=dataset.path,
                fold=experiment.fold,
                seed=seed,
                out=run,
                resume=can_resume(run),
                **_place(options),
            )
        )
    if not is_finished(run / "evaluation", EVALUATION):
        evaluate(EvaluateOptions(generator=run, data=dataset.path, compute=options.compute))


def _pool_sizes(dataset: Dataset, experiment: Experiment, arms: list[Arm]) -> dict[str, int]:
    """How many images each pool needs: as many as the arm that takes most."""
    targets = dataset.targets(dataset.rows("train", experiment.fold))
    needs: dict[str, int] = {}
    for arm in arms:
        if arm.pool is not None:
            synthetic = arm.options.training_set.synthetic
            share = parse_share(f"arm {arm.name}: synthetic", synthetic)
            needs[arm.pool] = max(extra_count(targets, share), needs.get(arm.pool, 0))
    return needs


def _pools(
    out: Path, options: ExperimentOptions, experiment: Experiment, dataset: Dataset, arms: list[Arm]
) -> None:
    """Make every pool that an arm needs, unless it is there."""
    for source, count in _pool_sizes(dataset, experiment, arms).items():
        if source in SAMPLERS:
            if not is_finished(pool_folder(out, source, None), POOL):
                _sampler_pool(pool_folder(out, source, None), cast(Quality, source), count, dataset)
        elif source == "gan":
            for seed in experiment.gan_seeds:
                _generated_pool(out, options, count, seed)


def _generated_pool(out: Path, options: ExperimentOptions, count: int, seed: int) -> None:
    run, folder = gan_folder(out, seed), pool_folder(out, "gan", seed)
    sealed = open_sealed(run, GENERATOR, f"{run}: no generator there", "remove it, then --resume")
    if not _is_done(folder, POOL, {"generator": sealed.as_input}):
        generate(
            GenerateOptions(
                generator=run,
                count=count,
                seed=seed,
                output=OutputOptions(folder),
                compute=options.compute,
            )
        )


def _check_phantom(quality: str, dataset: Dataset) -> dict[str, Any]:
    """Options of the phantom that a sampler's pool is to fit. Raises UserError for other data."""
    prepared: dict[str, Any] = dict(dataset.info.options)
    if prepared.get("source") != "phantom":
        raise UserError(
            f"pool: {quality} draws from the phantom's sampler, but {dataset.path} was prepared "
            f"from {dataset.info.source}; use --data with a phantom, or `pool: gan`"
        )
    return prepared


def _sampler_pool(folder: Path, quality: Quality, count: int, dataset: Dataset) -> None:
    """A pool of fresh draws from the sampler that drew the dataset: a perfect or a broken GAN."""
    prepared = _check_phantom(quality, dataset)
    write_phantom_pool(
        PhantomPoolOptions(
            OutputOptions(folder),
            count=count,
            seed=derive(prepared["seed"], "sampler pool"),
            size=dataset.size,
            quality=quality,
            prevalence=prepared["prevalence"],
            best_auc=prepared["best_auc"],
        )
    )


def _run_trials(
    out: Path,
    options: ExperimentOptions,
    experiment: Experiment,
    dataset: Dataset,
    trials: list[Trial],
) -> None:
    cache = FeatureCache()
    spent: list[float] = []
    for number, trial in enumerate(trials, start=1):
        folder, inputs = trial.folder(out), {"dataset": dataset.as_input}
        if (pool := trial.pool_folder(out)) is not None:
            inputs["pool"] = load_pool(pool).as_input
        if _is_done(folder, CLASSIFIER, inputs):
            continue
        left = ""
        if spent:
            minutes = sum(spent) / len(spent) * (len(trials) - number + 1) / 60
            left = f", about {minutes:.0f} min left"
        print(f"trial {number}/{len(trials)}: {trial.name}{left}")
        start = time.monotonic()
        train_classifier(
            replace(
                trial.arm.options,
                data=dataset.path,
                fold=experiment.fold,
                seed=trial.seed,
                pool=pool,
                out=folder,
                resume=can_resume(folder),
                **_place(options),
            ),
            cache,
        )
        spent.append(time.monotonic() - start)


def _place(options: ExperimentOptions) -> dict[str, str]:
    """Where and how every training of the experiment computes and logs, by flat names."""
    return flat(options.compute) | {"tracking": options.run.tracking}
