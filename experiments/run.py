"""Compare classifiers trained with and without synthetic lesions, and write the report.

    python -m experiments.run experiments/configs/quick.yaml --data datasets/ham10000

Trains the generators, makes their pools, trains every arm with every seed on the same folds,
data order and number of steps, and compares AUC on the test part. With --resume, what is done is
not done again.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

from classifier.options import parse_share
from classifier.train import train as train_classifier
from classifier.training.setup import build_model
from classifier.training.setup import resolve as resolve_job
from classifier.training.training_set import extra_count
from classifier.training.trunk_cache import FeatureCache
from data.phantom import draw
from data.prepare import default_dataset
from data.store import Dataset, load_dataset
from dermsynth.cli import read_yaml, run
from dermsynth.device import DeviceName, PrecisionName
from dermsynth.errors import UserError
from dermsynth.files import read_json, write_json
from dermsynth.options import replace
from dermsynth.runs import finish_run, open_run
from dermsynth.seeds import derive
from dermsynth.tracking import TrackingMode
from experiments.config import (
    SAMPLERS,
    Arm,
    Experiment,
    Trial,
    gan_folder,
    pool_folder,
    read_experiment,
)
from experiments.report import summary
from experiments.results import write_results
from gan.evaluate import EvaluateOptions, evaluate
from gan.generate import GenerateOptions, generate
from gan.train import TrainOptions as GanOptions
from gan.train import train as train_gan


@dataclass(frozen=True)
class RunOptions:
    """Options of `python -m experiments.run`."""

    experiment: tyro.conf.Positional[Path]  # the experiment's YAML file
    out: Path | None = None  # the experiment's folder (default: runs/exp/ and the file's name)
    data: Path | None = None  # a prepared dataset (default: the phantom, prepared on the way)
    resume: bool = False  # go on where a killed run stopped; start where there is none
    overwrite: bool = False  # replace --out, once the new results are complete
    device: DeviceName = "auto"  # where to compute
    precision: PrecisionName = "auto"  # fp32, bf16, or what is fastest there
    tracking: TrackingMode = "auto"  # W&B where a key is configured, offline otherwise


def run_experiment(options: RunOptions) -> Path:
    """Run what is not done yet and return the path of the report.

    Raises UserError for a bad experiment file, dataset or folder before anything is computed.
    """
    started = time.time()
    experiment, arms, gan_options = read_experiment(options.experiment)
    dataset = load_dataset(options.data or default_dataset())
    _check(dataset, experiment, arms)
    out = options.out or Path("runs/exp") / options.experiment.stem
    _open(out, options, dataset)
    trials = [
        Trial(arm, seed, gan_seed)
        for seed in experiment.seeds
        for arm in arms
        for gan_seed in arm.gan_seeds(experiment)
    ]
    uses_gan = any(arm.pool == "gan" for arm in arms)
    print(
        f"{options.experiment.stem}: {len(trials)} trials of {len(arms)} arms, "
        f"{len(experiment.gan_seeds) if uses_gan else 0} generators, on {dataset.path}, "
        f"fold {experiment.fold}\n  results go to {out}; --resume goes on after a kill"
    )
    if uses_gan:
        for seed in experiment.gan_seeds:
            _generator(out, options, experiment, dataset, gan_options, seed)
    _pools(out, options, experiment, dataset, arms)
    _run_trials(out, options, experiment, dataset, trials)
    report = write_results(out, experiment, dataset, trials, options.experiment, started)
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
        build_model(resolve_job(real_only))


def _open(out: Path, options: RunOptions, dataset: Dataset) -> None:
    """Make or enter the folder; a resumed experiment must be the same one on the same folds."""
    resume = options.resume and (out / "plan.json").exists()
    plan = {"experiment": read_yaml(options.experiment), "folds_hash": dataset.folds_hash}
    if resume and read_json(out / "plan.json") != plan:
        raise UserError(
            f"--resume {out}: {options.experiment} or the dataset's folds changed since it began; "
            "give a new --out or --overwrite"
        )
    compute_place = ("device", "precision", "tracking", "out", "experiment", "data")
    open_run(out, options, resume, options.overwrite, may_change=compute_place)
    if not resume:
        write_json(out / "plan.json", plan)


def _generator(
    out: Path,
    options: RunOptions,
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
        evaluate(
            EvaluateOptions(
                generator=run_folder,
                data=dataset.path,
                device=options.device,
                precision=options.precision,
            )
        )


def _pools(
    out: Path, options: RunOptions, experiment: Experiment, dataset: Dataset, arms: list[Arm]
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
        seeds = experiment.gan_seeds if source == "gan" else [None]
        for seed in seeds:
            folder = pool_folder(out, source, seed)
            if (folder / "pool.json").exists():
                continue
            if source == "gan":
                generate(
                    GenerateOptions(
                        generator=gan_folder(out, seed),
                        count=count,
                        seed=seed,
                        out=folder,
                        device=options.device,
                        precision=options.precision,
                    )
                )
            elif source in SAMPLERS:
                _sampler_pool(folder, source, count, dataset)


def _sampler_pool(folder: Path, quality: draw.Quality, count: int, dataset: Dataset) -> None:
    """A pool of fresh draws from the sampler that drew the dataset: a perfect or a broken GAN."""
    prepared = dataset.info["options"]
    if prepared["source"] != "phantom":
        raise UserError(
            f"pool: {quality} draws from the phantom's sampler, but {dataset.path} was prepared "
            f"from {prepared['source']}; use --data with a phantom, or `pool: gan`"
        )
    draw.write(
        draw.Options(
            out=folder,
            count=count,
            seed=derive(prepared["seed"], "sampler pool"),
            size=dataset.size,
            quality=quality,
            prevalence=prepared["prevalence"],
            best_auc=prepared["best_auc"],
        )
    )


def _run_trials(
    out: Path, options: RunOptions, experiment: Experiment, dataset: Dataset, trials: list[Trial]
) -> None:
    cache, spent = FeatureCache(), []
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


def _place(options: RunOptions) -> dict[str, str]:
    return {
        "device": options.device,
        "precision": options.precision,
        "tracking": options.tracking,
    }


def main(options: RunOptions) -> None:
    """Run and say the verdict last."""
    try:
        report = run_experiment(options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what is done is kept; add --resume to go on") from None
    trials = pd.read_parquet(report.parent / "trials.parquet")
    leaky = sorted(trials.loc[trials["leaky"], "arm"].unique())
    comparisons = read_json(report.parent / "comparisons.json")
    print("\n" + "\n".join(summary(comparisons, leaky)) + f"\n\nreport: {report}")


if __name__ == "__main__":
    run(RunOptions, main, "experiments.run", __doc__)
