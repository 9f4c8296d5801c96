"""What an experiment computes, as a plain list of tasks: generators, pools, evaluations, trainings.

A task is a command of another package with its options. Paths within the experiment's folder are
filled in when it runs, so that a task is the same wherever that folder lies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from classifier.options import TrainOptions as ClassifierOptions
from classifier.run_folder import KIND as CLASSIFIER
from classifier.run_folder import PAIR
from classifier.training.training_set import needed_images
from data.phantom.config import PhantomPoolOptions, Quality
from data.pool import load_pool
from data.store import Dataset, load_table
from data.view import view
from dermsynth.errors import UserError
from dermsynth.folders import can_resume
from dermsynth.manifest import Identity, check_same, is_finished, open_sealed
from dermsynth.options import ComputeOptions, TrackedOptions, flat, replace
from dermsynth.seeds import derive
from dermsynth.tracked import within_experiment
from experiments.config import SAMPLERS, Source, Trial
from gan.generate import GenerateOptions
from gan.options import EvaluateOptions
from gan.options import TrainOptions as GanOptions

if TYPE_CHECKING:
    from classifier.training.trunk_cache import FeatureCache

GENERATOR, POOL, EVALUATION = "generator", "pool", "generator-evaluation"
AUDITED = 200  # benign images of a generator that are made to be scored
INPUT_NAMES = {
    (EVALUATION, "pool"): "subject",
    (CLASSIFIER, "benign_pool"): "benign pool",
    (PAIR, "benign_pool"): "benign pool",
}


@dataclass(frozen=True)
class Task:
    """One command, and what it needs."""

    name: str  # its folder in the experiment's
    kind: str  # of that folder
    needs: tuple[str, ...]  # names of tasks that are finished before
    options: Any  # of the command, but for paths within the experiment
    inputs: Mapping[str, Identity] = field(default_factory=dict)  # that it is made from, known now
    links: Mapping[str, str] = field(default_factory=dict)  # option -> task whose folder it names
    labels: Mapping[str, Any] = field(
        default_factory=dict
    )  # by which it is told where it is tracked
    awaits: tuple[Any, ...] | None = None  # what the first task of these makes, for all to wait for

    def folder(self, out: Path) -> Path:
        """Where it writes, in the experiment's folder `out`."""
        return out / self.name

    def resolved(self, out: Path) -> Any:
        """The options as the command takes them."""
        paths = {option: out / name for option, name in self.links.items()}
        return replace(self.options, out=self.folder(out), **paths)


def run_task(task: Task, out: Path, cache: "FeatureCache | None" = None) -> None:
    """Do it; what a kill left of it is gone on with. Raises what the command raises."""
    with within_experiment(out, task.name.removeprefix("trials/"), task.labels):
        _run(task, out, cache)


def _run(task: Task, out: Path, cache: "FeatureCache | None") -> None:
    options, folder = task.resolved(out), task.folder(out)
    if isinstance(options, GanOptions):
        from gan.train import train as train_gan

        train_gan(replace(options, resume=can_resume(folder)))
    elif isinstance(options, GenerateOptions):
        from gan.generate import generate

        generate(options)
    elif isinstance(options, PhantomPoolOptions):
        from data.phantom.sampling import write_phantom_pool

        write_phantom_pool(options)
    elif isinstance(options, EvaluateOptions):
        from gan.evaluate import evaluate

        evaluate(options)
    else:
        from classifier.train import train as train_classifier

        assert isinstance(options, ClassifierOptions)
        train_classifier(replace(options, resume=can_resume(folder)), cache)


def is_done(task: Task, out: Path) -> bool:
    """Whether its folder is finished. Raises UserError where it was made from other inputs."""
    folder = task.folder(out)
    if not is_finished(folder, task.kind):
        return False
    sealed = open_sealed(folder, task.kind, f"{folder}: missing", "remove it, then --resume")
    now = expected_inputs(task, out)
    before = {name: made for name, made in sealed.manifest.inputs.items() if name in now}
    check_same(before, now, str(folder), "remove that folder, then --resume makes it again")
    return True


def expected_inputs(task: Task, out: Path) -> dict[str, Identity]:
    """What it is to be made from, by the names in its manifest; what it needs is finished."""
    inputs = dict(task.inputs)
    for option, name in task.links.items():
        kind = GENERATOR if option == "generator" else POOL
        made = open_sealed(out / name, kind, f"{out / name}: missing", "then --resume makes it")
        inputs[INPUT_NAMES.get((task.kind, option), option)] = made.identity
    return inputs


def task_list(
    trials: list[Trial], dataset: Dataset, compute: ComputeOptions, tracking: str
) -> list[Task]:
    """Every task, each after what it needs.

    Raises UserError for a pool that cannot be made. `dataset` is as it was prepared.
    """
    given = _Given(dataset, flat(compute) | {"tracking": tracking}, pool_sizes(dataset, trials))
    tasks: dict[str, Task] = {}
    for trial in trials:
        for task in [*_synthetic_tasks(trial, given), _training(trial, given)]:
            tasks.setdefault(task.name, task)
    return list(tasks.values())


def pool_names(trial: Trial) -> list[str]:
    """Its pools, the malignant one first: folders in the experiment's, or somebody's path."""
    source = trial.arm.source
    if source is None:
        return []
    if source.pool in SAMPLERS:
        return [f"pools/{source.pool}"]
    if source.pool != "gan":
        return [source.pool]
    truncated = "" if source.truncation == 1 else f"-truncation{source.truncation:g}"
    stem = f"pools/{source.name}{truncated}-fold{trial.split.number}-seed{trial.gan_seed}"
    return [stem, f"{stem}-benign"] if source.both_classes else [stem]


def audit_pool_name(trial: Trial) -> str | None:
    """Benign images of its generator that it does not train on; None where that makes none."""
    source = trial.arm.source
    if source is None or source.gan is None or source.both_classes:
        return None
    makes_benign = source.gan.images.classes == "target"
    return f"{pool_names(trial)[0]}-benign-audit" if makes_benign else None


def evaluation_name(trial: Trial) -> str | None:
    """Where the pool of a trial is evaluated, against the images of its split."""
    source = trial.arm.source
    if source is None:
        return None
    name = pool_names(trial)[0] if source.pool == "gan" else f"{Path(source.pool).name}"
    fold = "" if source.pool == "gan" else f"-fold{trial.split.number}"
    return f"evaluations/{Path(name).name}{fold}"


def pool_sizes(dataset: Dataset, trials: list[Trial]) -> dict[str, int]:
    """How many images each pool needs: as many as the trial that takes most."""
    needs: dict[str, int] = {}
    for trial in trials:
        if trial.arm.source is None:
            continue
        share = trial.arm.options.task.malignant_share
        seen = view(dataset, trial.split.fold, trial.split.test_fold, share)
        targets = seen.targets(seen.rows("train", trial.split.fold))
        synthetic = trial.arm.options.training_set.synthetic
        counts = needed_images(targets, synthetic, trial.arm.source.both_classes)
        for name, count in zip(pool_names(trial), counts, strict=False):
            needs[name] = max(count, needs.get(name, 0))
    return needs


def trial_options(trial: Trial, data: Path) -> ClassifierOptions:
    """Options of its training but for pools, out and where it computes."""
    split = trial.split
    return replace(
        trial.arm.options, data=data, fold=split.fold, test_fold=split.test_fold, seed=trial.seed
    )


def phantom_options(quality: str, dataset: Dataset) -> dict[str, Any]:
    """Options of the phantom that a sampler's pool is to fit. Raises UserError for other data."""
    prepared: dict[str, Any] = dict(dataset.info.options)
    if prepared.get("source") != "phantom":
        raise UserError(
            f"pool: {quality} draws from the phantom's sampler, but {dataset.path} was prepared "
            f"from {dataset.info.source}; use --data with a phantom, or `pool: gan`"
        )
    return prepared


# --- one kind of task after the other ------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """What every task of an experiment shares."""

    dataset: Dataset
    place: dict[str, Any]  # device, precision, tracking
    counts: dict[str, int]  # of images, by pool

    @property
    def inputs(self) -> dict[str, Identity]:
        """What every task that sees real images is made from."""
        return {"dataset": self.dataset.as_input}


def _synthetic_tasks(trial: Trial, given: _Given) -> list[Task]:
    """The generator, the pools and the evaluation that a trial's synthetic images need."""
    source = trial.arm.source
    if source is None:
        return []
    tasks = []
    if source.pool == "gan":
        generator = _generator(trial, source, given)
        tasks = [generator, *_generated_pools(trial, generator.name, given)]
    elif source.pool in SAMPLERS:
        tasks = [_sampler_pool(pool_names(trial)[0], cast(Quality, source.pool), given)]
    return [*tasks, _evaluation(trial, source, given)]


def _generator(trial: Trial, source: Source, given: _Given) -> Task:
    assert source.gan is not None
    split, seed = trial.split, trial.gan_seed
    options = replace(
        source.gan,
        **{"data": given.dataset.path, "fold": split.fold, "test_fold": split.test_fold},
        **{"seed": seed, **given.place},
    )
    name = f"gan/{source.name}-fold{split.number}-seed{seed}"
    network = split.fold, split.test_fold, options.images.malignant_share  # that judges it
    return Task(name, GENERATOR, (), options, given.inputs, awaits=network)


def _generated_pools(trial: Trial, generator: str, given: _Given) -> list[Task]:
    assert trial.arm.source is not None
    assert trial.gan_seed is not None
    tasks, names = [], list(zip(pool_names(trial), (None, "benign"), strict=False))
    if (audited := audit_pool_name(trial)) is not None:
        names.append((audited, "benign"))
    for name, label in names:
        options = GenerateOptions(
            generator=Path(generator),
            count=given.counts.get(name, AUDITED),
            label=label,
            seed=trial.gan_seed,
            truncation=trial.arm.source.truncation,
            output=TrackedOptions(tracking=given.place["tracking"]),
            compute=ComputeOptions(given.place["device"], given.place["precision"]),
        )
        links = {"generator": generator}
        tasks.append(Task(name, POOL, (generator,), options, links=links))
    return tasks


def _sampler_pool(name: str, quality: Quality, given: _Given) -> Task:
    """Fresh draws from the sampler that drew the dataset: a perfect or a broken GAN."""
    prepared = phantom_options(quality, given.dataset)
    options = PhantomPoolOptions(
        TrackedOptions(tracking=given.place["tracking"]),
        count=given.counts[name],
        seed=derive(prepared["seed"], "sampler pool"),
        size=given.dataset.size,
        quality=quality,
        prevalence=prepared["prevalence"],
        best_auc=prepared["best_auc"],
    )
    return Task(name, POOL, (), options)


def _evaluation(trial: Trial, source: Source, given: _Given) -> Task:
    name, pool = evaluation_name(trial), pool_names(trial)[0]
    assert name is not None
    smoke = trial.arm.options.run.smoke
    options = EvaluateOptions(
        data=given.dataset.path,
        fold=trial.split.fold,
        test_fold=trial.split.test_fold,
        count=40 if smoke else EvaluateOptions.count,
        network="imagenet" if smoke else None,
        tracking=given.place["tracking"],
        compute=ComputeOptions(given.place["device"], given.place["precision"]),
    )
    if source.pool == "gan" or source.pool in SAMPLERS:
        return Task(name, EVALUATION, (pool,), options, given.inputs, {"pool": pool})
    inputs = given.inputs | {"subject": load_pool(Path(pool)).as_input}
    return Task(name, EVALUATION, (), replace(options, pool=Path(pool)), inputs)


def _training(trial: Trial, given: _Given) -> Task:
    options = replace(trial_options(trial, given.dataset.path), **given.place)
    inputs = given.inputs
    for text in options.training_set.external:
        name, _, folder = text.partition("=")
        inputs[f"external/{name}"] = load_table(Path(folder))[2]
    labels = {"arm": trial.arm.name, "tested_fold": trial.split.number, "seed": trial.seed}
    labels |= {"gan_seed": trial.gan_seed}
    source, pools = trial.arm.source, pool_names(trial)
    kind = PAIR if options.choice.beside else CLASSIFIER
    if source is None or source.pool in SAMPLERS or source.pool == "gan":
        links = dict(zip(("pool", "benign_pool"), pools, strict=False))
        return Task(trial.name, kind, tuple(pools), options, inputs, links, labels)
    pool = Path(pools[0])
    inputs["pool"] = load_pool(pool).as_input
    return Task(trial.name, kind, (), replace(options, pool=pool), inputs, labels=labels)
