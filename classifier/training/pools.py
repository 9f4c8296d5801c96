"""Synthetic images for a run: a pool that is given, or one that a generator makes on the way."""

from pathlib import Path

import numpy as np

import gan.generate
from classifier.options import TrainOptions
from data.pool import Pool, leak, load_pool
from data.store import Dataset
from dermsynth.errors import UserError
from dermsynth.files import read_json, sha256
from dermsynth.options import ComputeOptions, OutputOptions

GENERATOR_RUNS = Path("runs/gan")


def pool_for(
    options: TrainOptions, dataset: Dataset, needed: int
) -> tuple[Pool, str | None] | tuple[None, None]:
    """The pool of `needed` images that the options mean, and why it leaks where that is allowed."""
    if needed == 0:
        return None, None
    path, size = options.training_set.pool, options.model.size
    if path is None:
        run = options.training_set.generator
        if run is None:
            run = newest_generator(dataset, options.task.fold)  # type: ignore[arg-type]
            print(f"synthetic images from {run}, the newest generator of this dataset and fold")
        path = pool_of_generator(options, dataset, run, needed)
    pool, reason = open_pool(options, dataset, path, needed)
    stored = pool.images.shape[1]
    if stored < min(size, dataset.size):
        print(
            f"warning: {path} holds {stored} px images, smoother at {size} px than real ones: "
            f"--size {stored} shows both alike"
        )
    return pool, reason


def open_pool(
    options: TrainOptions, dataset: Dataset, path: Path, needed: int
) -> tuple[Pool, str | None]:
    """A pool that may be used on this fold, and why not where --allow-leakage lets it pass.

    Raises UserError for a leak, for a pool that is too small or not of malignant images.
    """
    pool = load_pool(path)
    label = pool.info["provenance"].get("label") or "malignant"
    positive = dataset.info.get("options", {}).get("positive", "mel").split(",")
    if label not in ("malignant", *positive):
        raise UserError(
            f"--pool {path}: its images are {label}; synthetic images count as malignant here: "
            "make them with `python -m gan.generate --label malignant`"
        )
    reason = _leak(options, dataset, pool)
    if len(pool.images) < needed:
        made = pool.info["provenance"]["kind"] == "generator"
        bigger = f"make them with `python -m gan.generate --generator RUN --count {needed}`"
        raise UserError(
            f"--pool {path}: holds {len(pool.images)} images, {needed} are needed; "
            f"{bigger if made else 'bring more of them'}, or lower --synthetic"
        )
    return pool, reason


def pool_of_generator(options: TrainOptions, dataset: Dataset, run: Path, count: int) -> Path:
    """The run's pool for the seed of at least `count` images, made by `gan.generate` if need be.

    Raises UserError where the generator saw images of this fold's validation or test part.
    """
    weights, info = run / "generator.safetensors", run / "generator.json"
    if not weights.exists() or not info.exists():
        raise UserError(
            f"--generator {run}: no finished generator there (generator.safetensors and "
            f"generator.json); train one: {_how_to_train(dataset, options.task.fold)}"
        )
    provenance = {"kind": "generator", "generator": read_json(info)}
    _leak(options, dataset, Pool(run, np.empty(0), {"provenance": provenance}))
    made, seed = sha256(weights), options.compute.seed
    for out in (run / "pools").glob(f"*-seed{seed}"):
        pool = load_pool(out)
        # a larger pool of the same seed begins with the same images
        if pool.info["provenance"].get("sha256") == made and len(pool.images) >= count:
            return out
    out = run / "pools" / f"{count}-seed{seed}"
    print(f"making {count} synthetic images: {out}", flush=True)
    gan.generate.generate(
        gan.generate.GenerateOptions(
            generator=run,
            count=count,
            seed=seed,
            output=OutputOptions(out, overwrite=True),
            compute=ComputeOptions(options.compute.device),  # in the precision that is usual there
        )
    )
    return out


def newest_generator(dataset: Dataset, fold: int) -> Path:
    """The newest finished generator run under `runs/gan` trained on this fold of this dataset.

    Raises UserError naming the command that makes one.
    """
    infos = []
    for info in GENERATOR_RUNS.glob("*/generator.json"):
        about = read_json(info)
        fits = about.get("folds_hash") == dataset.folds_hash and about.get("fold") == fold
        if fits and (info.parent / "generator.safetensors").exists():
            infos.append(info)
    if not infos:
        raise UserError(
            f"--synthetic: no generator under {GENERATOR_RUNS} was trained on fold {fold} of "
            f"{dataset.path}; train one: {_how_to_train(dataset, fold)},"
            " or give --pool or --generator"
        )
    return max(infos, key=lambda path: path.stat().st_mtime).parent


def _leak(options: TrainOptions, dataset: Dataset, pool: Pool) -> str | None:
    """Why figures with this pool are no results; an error unless --allow-leakage is given."""
    reason = leak(pool, dataset, options.task.fold)  # type: ignore[arg-type] - a number by now
    if reason and not options.training_set.allow_leakage:
        raise UserError(f"{reason}. (--allow-leakage trains anyway and marks every output)")
    return reason


def _how_to_train(dataset: Dataset, fold: object) -> str:
    return f"`python -m gan.train --data {dataset.path} --fold {fold}`"
