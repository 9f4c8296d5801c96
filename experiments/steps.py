"""The steps of an experiment: check, generators, pools, trials, results; each once."""

import time
from pathlib import Path
from typing import cast

from classifier.options import parse_share
from classifier.train import train as train_classifier
from classifier.training.setup import build_model
from classifier.training.setup import resolve as resolve_setup
from classifier.training.training_set import extra_count
from classifier.training.trunk_cache import FeatureCache
from data.phantom.config import PhantomPoolOptions, Quality
from data.phantom.sampling import write_phantom_pool
from data.prepare import default_dataset
from data.store import Dataset, load_dataset
from dermsynth.cli import find_config, read_yaml
from dermsynth.errors import UserError
from dermsynth.files import read_json, write_json
from dermsynth.options import OutputOptions, flat, replace
from dermsynth.runs import finish_run, open_run
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
from experiments.results import write_results
from gan.evaluate import EvaluateOptions, evaluate
from gan.generate import GenerateOptions, generate
from gan.train import TrainOptions as GanOptions
from gan.train import train as train_gan


def run_steps(options: ExperimentOptions) -> Path:
    """Run what is not done yet and return the path of the report.

    Raises UserError for a bad experiment file, dataset or folder before anything is computed.
    """
    started = time.time()
    file = find_config(str(options.experiment), CONFIGS, "experiment")
    experiment, arms, gan_options = read_experiment(file)
    dataset = load_dataset(options.data or default_dataset())
    _check(dataset, experiment, arms)
    out = options.run.out or Path("runs/exp") / file.stem
    _open(out, options, file, dataset)
    trials = [
        Trial(arm, seed, gan_seed)
        for seed in experiment.seeds
        for arm in arms
        for gan_seed in arm.gan_seeds(experiment)
    ]
    uses_gan = any(arm.pool == "gan" for arm in arms)
    print(
        f"{file.stem}: {len(trials)} trials of {len(arms)} arms, "
        f"{len(experiment.gan_seeds) if uses_gan else 0} generators, on {dataset.path}, "
        f"fold {experiment.fold}\n  results go to {out}; --resume goes on after a kill"
    )
    if uses_gan:
        for seed in experiment.gan_seeds:
            _generator(out, options, experiment, dataset, gan_options, seed)
    _pools(out, options, experiment, dataset, arms)
    _run_trials(out, options, experiment, dataset, trials)
    report = write_results(out, experiment, dataset, trials, file, started)
    finish_run(out)
    return report


def _check(dataset: Dataset, experiment: Experiment, arms: list[Arm]) -> None:
    """Find out now, not after the generators are trained, what would stop a trial."""
    test = dataset.rows("test", experiment.fold)
    if len(set(dataset.targets(test).tolist())) < 2:
        raise UserError(
            f"{dataset.path}: its test part has {len(test)} images and needs both classes; "
            "prepare it again with --test-fraction 0.2"
        )
    for arm in arms:
        real_only = replace(arm.options, data=dataset.path, fold=experiment.fold, synthetic="0")
        build_model(resolve_setup(real_only))


def _open(out: Path, options: ExperimentOptions, file: Path, dataset: Dataset) -> None:
    """Make or enter the folder; a resumed experiment must be the same one on the same folds."""
    resume = options.run.resume and (out / "plan.json").exists()
    plan = {"experiment": read_yaml(file), "folds_hash": dataset.folds_hash}
    if resume and read_json(out / "plan.json") != plan:
        raise UserError(
            f"--resume {out}: {file} or the dataset's folds changed since it began; "
            "give a new --out or --overwrite"
        )
    compute_place = ("device", "precision", "tracking", "out", "experiment", "data")
    open_run(out, options, resume, options.run.overwrite, may_change=compute_place)
    if not resume:
        write_json(out / "plan.json", plan)


def _generator(
    out: Path,
    options: ExperimentOptions,
    experiment: Experiment,
    dataset: Dataset,
    gan_options: GanOptions,
    seed: int,
) -> None:
    """Train and evaluate one generator, unless that is done."""
    run_folder = gan_folder(out, seed)
    if not (run_folder / "generator.json").exists():
        print(f"generator, seed {seed}")
        train_gan(
            replace(
                gan_options,
                data=dataset.path,
                fold=experiment.fold,
                seed=seed,
                out=run_folder,
                resume=(run_folder / "config.yaml").exists(),
                **_place(options),
            )
        )
    if not (run_folder / "evaluation.json").exists():
        evaluate(EvaluateOptions(generator=run_folder, data=dataset.path, compute=options.compute))


def _pools(
    out: Path, options: ExperimentOptions, experiment: Experiment, dataset: Dataset, arms: list[Arm]
) -> None:
    """Make every pool that an arm needs, as large as the largest need, unless it is there."""
    targets = dataset.targets(dataset.rows("train", experiment.fold))
    needs: dict[str, int] = {}
    for arm in arms:
        if arm.pool is not None:
            synthetic = arm.options.training_set.synthetic
            share = parse_share(f"arm {arm.name}: synthetic", synthetic)
            needs[arm.pool] = max(extra_count(targets, share), needs.get(arm.pool, 0))
    for source, count in needs.items():
        for seed in experiment.gan_seeds if source == "gan" else [0]:
            folder = pool_folder(out, source, seed)
            if (folder / "pool.json").exists():
                continue
            if source == "gan":
                generate(
                    GenerateOptions(
                        generator=gan_folder(out, seed),
                        count=count,
                        seed=seed,
                        output=OutputOptions(folder),
                        compute=options.compute,
                    )
                )
            elif source in SAMPLERS:
                _sampler_pool(folder, cast(Quality, source), count, dataset)


def _sampler_pool(folder: Path, quality: Quality, count: int, dataset: Dataset) -> None:
    """A pool of fresh draws from the sampler that drew the dataset: a perfect or a broken GAN."""
    prepared = dataset.info["options"]
    if prepared["source"] != "phantom":
        raise UserError(
            f"pool: {quality} draws from the phantom's sampler, but {dataset.path} was prepared "
            f"from {prepared['source']}; use --data with a phantom, or `pool: gan`"
        )
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
        folder = trial.folder(out)
        if (folder / "trial.json").exists():
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
                pool=trial.pool_folder(out),
                out=folder,
                resume=(folder / "config.yaml").exists(),
                **_place(options),
            ),
            cache,
        )
        spent.append(time.monotonic() - start)
        write_json(folder / "trial.json", {"seconds": round(spent[-1], 1)})


def _place(options: ExperimentOptions) -> dict[str, str]:
    """Where and how every training of the experiment computes and logs, by flat names."""
    return flat(options.compute) | {"tracking": options.run.tracking}
