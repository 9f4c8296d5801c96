"""Synthetic images for a run: a pool that is given, or one that a generator makes on the way."""

import contextlib
from pathlib import Path

import gan.generate
from classifier.options import TrainOptions, parse_share
from data.pool import Pool, is_malignant, leak, load_pool
from data.pool_quality import quality_warning
from data.provenance import GeneratorRecord, Provenance
from data.store import Dataset
from dermsynth import manifest
from dermsynth.errors import UserError, counted
from dermsynth.locks import locked
from dermsynth.manifest import Sealed, open_sealed
from dermsynth.options import ComputeOptions, TrackedOptions

GENERATOR_RUNS = Path("runs/gan")
GENERATOR, DESCRIPTION = "generator", "generator.json"  # a finished generator: its kind, its record


def find_pool(options: TrainOptions) -> None:
    """Raise UserError where the pool or the generator that is named is missing or damaged.

    It needs no dataset: for checks before one is made.
    """
    shares = options.training_set
    if parse_share("--synthetic", shares.synthetic) == 0:
        return
    if shares.pool is not None:
        load_pool(shares.pool)
    elif shares.generator is not None:
        _open_generator(shares.generator, "DATASET", options.task.fold)


def choose_pool(
    options: TrainOptions, dataset: Dataset, needed: int
) -> tuple[Pool | None, str | None, Path | None]:
    """The pool that is given, why it leaks where that is allowed, or the generator to make one.

    Raises UserError for what may not be used on this fold, and where there is nothing to use.
    """
    if needed == 0:
        return None, None, None
    shares, fold = options.training_set, options.task.fold
    if shares.pool is not None:
        pool, reason = open_pool(options, dataset, shares.pool, needed)
        return pool, reason, None
    run = shares.generator
    if run is None:
        run = newest_generator(dataset, fold)  # type: ignore[arg-type] - a number by now
        print(f"synthetic images from {run}, the newest generator of this dataset and fold")
    provenance = _provenance(_open_generator(run, dataset.path, fold))
    return None, _leak(options, provenance, run, dataset), run


def pool_for(options: TrainOptions, dataset: Dataset, needed: int) -> tuple[Pool, str | None]:
    """The pool of `needed` images by `--generator`, made if need be, and why it leaks."""
    run = options.training_set.generator
    assert run is not None
    path = pool_of_generator(options, dataset, run, needed)
    return open_pool(options, dataset, path, needed)


def open_pool(
    options: TrainOptions, dataset: Dataset, path: Path, needed: int, target: str = "malignant"
) -> tuple[Pool, str | None]:
    """A pool that may be used on this fold, and why not where --allow-leakage lets it pass.

    Raises UserError for a leak, for a pool that is too small or of another target than `target`:
    malignant or benign.
    """
    option = "--pool" if target == "malignant" else "--benign-pool"
    pool = load_pool(path)
    provenance, stored = pool.info.provenance, pool.images.shape[1]
    made = "malignant" if is_malignant(provenance, dataset) else "benign"
    if made != target:
        raise UserError(
            f"{option} {path}: its images are {provenance.label}; synthetic images count as "
            f"{target} here: make them with `python -m gan.generate --label {target}`"
        )
    reason = _leak(options, provenance, path, dataset)
    if len(pool.images) < needed:
        bigger = f"make them with `python -m gan.generate --generator RUN --count {needed}`"
        mend = bigger if provenance.kind == "generator" else "bring more of them"
        raise UserError(
            f"{option} {path}: holds {counted(len(pool.images), 'image')}, needed: {needed:,}; "
            f"{mend}, or lower --synthetic"
        )
    if stored < min(options.model.size, dataset.size):
        print(
            f"warning: {path} holds {stored} px images, smoother at {options.model.size} px than "
            f"real ones: --size {stored} shows both alike"
        )
    rows = dataset.rows("train", options.task.fold)  # type: ignore[arg-type] - a number by now
    rows = rows[dataset.targets(rows) == int(target == "malignant")]
    if warning := quality_warning(pool.images, dataset.images, rows):
        print(f"warning: {path}: {warning}")
    return pool, reason


def pool_of_generator(options: TrainOptions, dataset: Dataset, run: Path, count: int) -> Path:
    """The run's pool for the seed of at least `count` images, made by `gan.generate` if need be.

    Where another process is making it, waits for that. Raises UserError where the generator saw
    images of this fold's validation or test part.
    """
    sealed, seed = _open_generator(run, dataset.path, options.task.fold), options.compute.seed
    _leak(options, _provenance(sealed), run, dataset)
    out = run / "pools" / f"{count}-seed{seed}"
    with locked(out, wait=True):
        for made in sorted((run / "pools").glob(f"*-seed{seed}")):
            # a larger pool of the same seed begins with the same images
            if _is_of(made, sealed, seed, count):
                return made
        print(f"making {counted(count, 'synthetic image')}: {out}", flush=True)
        gan.generate.generate(
            gan.generate.GenerateOptions(
                generator=run,
                count=count,
                seed=seed,
                output=TrackedOptions(out, overwrite=True, tracking=options.run.tracking),
                compute=ComputeOptions(options.compute.device),  # in the precision usual there
            )
        )
    return out


def newest_generator(dataset: Dataset, fold: int) -> Path:
    """The newest finished generator run under `runs/gan` trained on this fold of this dataset.

    Raises UserError naming the command that makes one.
    """
    runs = []
    for run in GENERATOR_RUNS.glob("*"):
        with contextlib.suppress(UserError):  # not finished, damaged, of an earlier version
            provenance = _provenance(_open_generator(run, dataset.path, fold))
            record = provenance.generator
            if record and record.fold == fold and not leak(provenance, run, dataset, fold):
                runs.append(run)
    if not runs:
        raise UserError(
            f"--synthetic: no generator under {GENERATOR_RUNS} was trained on fold {fold} of "
            f"{dataset.path}; train one: "
            f"{_how_to_train(dataset.path, f'{fold}{dataset.view.flags}')}, "
            "or give --pool or --generator"
        )
    return max(runs, key=lambda run: (run / manifest.NAME).stat().st_mtime)


def _open_generator(run: Path, dataset: Path | str, fold: object) -> Sealed:
    return open_sealed(
        run,
        GENERATOR,
        f"--generator {run}: no finished generator there; train one: "
        f"{_how_to_train(dataset, fold)}",
        "train it again",
    )


def _provenance(sealed: Sealed) -> Provenance:
    """Of the images that a generator makes."""
    record = sealed.record(DESCRIPTION, GeneratorRecord)
    return Provenance(kind="generator", generator=record, generator_id=sealed.identity.id)


def _is_of(path: Path, sealed: Sealed, seed: int, count: int) -> bool:
    """Whether a pool has at least `count` images of this generator, as they are made here."""
    with contextlib.suppress(UserError):  # damaged, or of an earlier version: made again
        info = load_pool(path).info
        made = info.provenance
        same = (made.generator_id, made.seed) == (sealed.identity.id, seed)
        usual = made.label == "malignant" and made.truncation in (None, 1.0)
        return same and usual and info.count >= count
    return False


def _leak(
    options: TrainOptions, provenance: Provenance, source: Path, dataset: Dataset
) -> str | None:
    """Why figures with these images are no results; an error unless --allow-leakage is given."""
    reason = leak(provenance, source, dataset, options.task.fold)  # type: ignore[arg-type]
    if reason and not options.training_set.allow_leakage:
        raise UserError(f"{reason}. (--allow-leakage trains anyway and marks every output)")
    return reason


def _how_to_train(dataset: Path | str, fold: object) -> str:
    return f"`python -m gan.train --data {dataset} --fold {fold}`"
