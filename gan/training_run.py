"""One training from its options to its folder: what it needs, the loop, `generator.json`."""

import contextlib
import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.provenance import GeneratorRecord
from data.store import Dataset, View
from data.view import view
from dermsynth import checkpoint, cli, manifest
from dermsynth.device import resolve
from dermsynth.distributed import check_shares, join_processes
from dermsynth.errors import UserError
from dermsynth.files import free_name
from dermsynth.folders import RunFolder, can_resume, check_replaceable, resumable, run_folder
from dermsynth.machine import versions
from dermsynth.options import RunOptions, as_plain, check_bounds, refuse_without_effect, replace
from dermsynth.seeds import generator
from dermsynth.tracked import About, config_of
from dermsynth.tracking import Tracker
from gan.ada import ADAPTIVE
from gan.choice import Choice
from gan.hyperparameters import Hyperparameters
from gan.loop import Budget, Loop, Progress
from gan.networks import SIZES, architecture, describe, make_config
from gan.options import ClassesName, TrainOptions
from gan.scorer import scorer
from gan.trainer import Trainer
from gan.training_images import (
    TrainingImages,
    TrainingPart,
    open_dataset,
    training_part,
)
from gan.weights import (
    CHECKPOINT,
    DESCRIPTION,
    KIND,
    WEIGHTS,
    open_generator,
    write_generator,
)

RUNS = Path("runs/gan")
DEFAULT_MINUTES = {"cpu": 10.0}  # by device type; accelerators get the next
DEFAULT_MINUTES_ACCELERATOR = 60.0
SHOWN = 1000  # training images that a generator may begin from, and spectra are compared with
MAY_CHANGE = ("data", "minutes", "kimg", "evaluations", "divergence")  # on a resume
MINUTES_ROUNDED = 0.0005  # by as much as `generator.json` may round them down


@dataclass(frozen=True)
class Plan:
    """Options with nothing left open, and what they name."""

    options: TrainOptions  # data, out, classes, batch and the budget are set
    dataset: Dataset
    part: TrainingPart
    out: Path  # where the run is to be found
    path: Path  # where it is written, once the folder is entered

    @property
    def fold(self) -> int:
        """The fold that is held out."""
        return self.options.images.fold

    @property
    def seed(self) -> int:
        """Of the weights and every random choice."""
        return self.options.model.seed


def train(options: TrainOptions) -> Path:
    """As gan.train.train."""
    # --- what is asked for, checked before anything is written
    check_bounds(options)
    if options.budget.minutes is not None and options.budget.kimg is not None:
        raise UserError("--minutes and --kimg: give one of them")
    processes = join_processes(options.compute.device)
    model, images, run = options.model, options.images, options.run
    with processes.rank0_first():
        classes = resolve_classes(options)
        resolve_config(options, SIZES[0], 0 if classes == "none" else 2)
        compute = resolve(options.compute.device, options.compute.precision, cpu_auto="bf16")
        if processes.is_rank0 and run.out is not None:
            _check_out(run)
        data = open_dataset(images.data)
        dataset = view(data, images.fold, images.test_fold, images.malignant_share)
        part = training_part(dataset, images.fold, classes)
        config = resolve_config(options, dataset.size, len(part.classes))
        check_shares(config.batch, model.accumulate, processes, least=2)
    out = processes.rank0_gives(run.out or _default_out(dataset.path, options))
    minutes = resolve_minutes(options, compute.device.type)
    named = {"data": dataset.path, "out": out, "classes": classes, "batch": config.batch}
    plan = Plan(replace(options, **named, minutes=minutes), dataset, part, out, out)

    with contextlib.ExitStack() as stack:
        # --- the folder, which the other processes wait for
        folder = stack.enter_context(_folder(plan)) if processes.is_rank0 else None
        if processes.rank0_decides(folder is not None and _is_done(folder, plan)):
            return out
        plan = dataclasses.replace(plan, path=processes.rank0_gives(folder.path if folder else out))
        if folder is not None:
            if folder.was_finished:
                folder.loosen(WEIGHTS, DESCRIPTION)
            cli.save_options(replace(plan.options, resume=False, overwrite=False), plan.path)

        # --- the networks, at their beginning or where a stopped run left them
        trainer = Trainer(model.arch, config, model.seed, compute, model.accumulate, processes)
        with processes.rank0_first():
            progress = _restore(trainer, plan, folder) if run.resume else Progress()
        trainer.begin_from(*_some_images(plan))

        # --- the training
        tracker = stack.enter_context(_tracker(trainer, plan, folder)) if folder else None
        seconds = _run(trainer, plan, progress, tracker)
        if folder is not None and tracker is not None:
            # what was sealed before no longer holds: a kill from here on leaves a stopped run
            manifest.begin(folder.path, KIND, folder.options, folder.inputs)
            shipped, choice = copy.deepcopy(trainer.ema), progress.choice
            if choice.chosen is not None:
                shipped.load_state_dict(choice.weights)
            record = _record(plan, trainer, seconds, choice)
            parts = write_generator(folder.path, shipped, record)
            kimg = trainer.images_seen / 1000
            identity = manifest.identify(KIND, parts, folder.inputs)
            tracker.made(identity, arch=model.arch, kimg=kimg, folder=str(out))
            tracker.close()  # before its folder moves
            folder.finish(parts)
            print(f"{_said(record)}: {out}; samples in {out / 'samples'}")
    return out


def _check_out(run: RunOptions) -> None:
    """Before a dataset is made on the way. Raises UserError as entering the folder does."""
    assert run.out is not None
    if run.resume:
        resumable(run.out)
    else:
        check_replaceable(run.out, KIND, run.overwrite)


def _folder(plan: Plan) -> contextlib.AbstractContextManager[RunFolder]:
    run = plan.options.run
    options, inputs = as_plain(plan.options), {"dataset": plan.dataset.as_input}
    return run_folder(plan.out, KIND, options, inputs, run.resume, run.overwrite, MAY_CHANGE)


def _is_done(folder: RunFolder, plan: Plan) -> bool:
    """Whether a finished run is resumed that has nothing more to do; says so."""
    if not folder.was_finished:
        return False
    try:
        sealed = open_generator(folder.path)
        sealed.bytes(WEIGHTS)
        record = sealed.record(DESCRIPTION, GeneratorRecord)
    except UserError as error:
        print(f"warning: {error}")
        return False
    budget = plan.options.budget
    if budget.kimg is not None:
        done = record.kimg >= budget.kimg
    else:
        done = record.minutes + MINUTES_ROUNDED >= (budget.minutes or 0)
    if done:
        changes = "".join(f"; {change}" for change in folder.changed(MAY_CHANGE[1:]))
        print(
            f"{plan.out}: finished, {record.kimg:g} kimg in {record.minutes:g} minutes{changes}: "
            "nothing more to do; a larger --kimg or --minutes goes on"
        )
    return done


def resolve_config(options: TrainOptions, size: int, classes: int) -> Any:
    """The architecture's config with what the options change in it.

    Raises UserError for an unknown name or value, and for an architecture that cannot do with or
    without classes.
    """
    arch = options.model.arch
    config = make_config(arch, size)
    if classes and config.labels == "never":
        raise UserError(
            f"--classes {options.images.classes}: {arch} cannot be conditional on a class; "
            "leave it out, or choose another --arch"
        )
    if not classes and config.labels == "always":
        raise UserError(f"--classes none: {arch} needs classes; use --classes target or diagnosis")
    changes: dict[str, Any] = {"classes": classes}
    if options.model.batch is not None:
        changes["batch"] = options.model.batch
    for word in options.model.recipe:
        name, equals, value = word.partition("=")
        if not equals or name in ("size", "classes", "batch"):
            raise UserError(
                f"--recipe {word}: expected NAME=VALUE, NAME a field of {arch}'s config "
                "other than size (of the dataset), classes (--classes) and batch (--batch)"
            )
        parsed = cli.from_mapping(type(config), {name: value}, f"--recipe {word}")
        changes[name] = getattr(parsed, name)
    config = dataclasses.replace(config, **changes)
    if not options.run.resume:  # a run that began with them goes on
        _refuse_idle(arch, config, changes)
    return config


def _refuse_idle(arch: str, config: Hyperparameters, changes: dict[str, Any]) -> None:
    """Refuse hyperparameters that do nothing beside the others."""
    penalised = config.penalty != "none", "--recipe penalty=gp, r1 or r1r2"
    adaptive = config.augment in ADAPTIVE, "--recipe augment=ada or adaptive"
    names_classes = hasattr(architecture(arch).discriminator, "forward_with_classes")
    needs = {
        "penalty_weight": penalised,
        "penalty_every": penalised,
        "ada_target": adaptive,
        "ada_kimg": adaptive,
        "class_weight": (names_classes, "--arch acgan"),
    }
    written = {name: f"--recipe {name}={value}" for name, value in changes.items()}
    refuse_without_effect(written, needs)


def _tracker(trainer: Trainer, plan: Plan, folder: RunFolder) -> Tracker:
    options, dataset, images = plan.options, plan.dataset, plan.options.images
    labels = {"dataset": dataset.path.name, "arch": options.model.arch}
    about = About(
        "gan",
        config_of(options) | {"params": _count(trainer.generator)},
        f"gan-{dataset.path.name}",
        labels | {"fold": images.fold, "test_fold": images.test_fold, "gan_seed": plan.seed},
        "kimg",
        folder.inputs,
    )
    resume_step = trainer.steps if options.run.resume else None
    return Tracker(plan.path, options.run.tracking, about, resume_step)


def _run(trainer: Trainer, plan: Plan, progress: Progress, tracker: Tracker | None) -> float:
    """Announce, then train to the end of the budget; returns the seconds of training."""
    options, dataset, evaluations = plan.options, plan.dataset, plan.options.monitor.evaluations
    if trainer.processes.is_rank0:
        _announce(plan, trainer)
    images = TrainingImages(dataset, plan.part, plan.seed, trainer.compute.device)
    go_on, score = f"the same command with `--out {plan.out} --resume`", None
    if evaluations and trainer.processes.is_rank0:  # before the budget counts: it may learn first
        try:
            score = scorer(dataset, plan.part.classes, plan.fold, plan.seed, trainer.compute)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"before the first step; {go_on} goes on") from None
    budget = Budget(
        plan.path,
        plan.seed,
        options.budget.minutes,
        options.budget.kimg,
        options.monitor.divergence == "stop",
        evaluations,
        score,
        go_on,
    )
    facts = {"compute": str(trainer.compute)}
    return Loop(trainer, images, budget, tracker, progress, facts).run()


def _some_images(plan: Plan) -> tuple[np.ndarray, np.ndarray | None]:
    """At most SHOWN training images, uint8 [n, size, size, 3], a random choice of each class.

    And their labels, int64 [n], where there are classes; these have as many each, if they can.
    """
    part, classes = plan.part, range(max(len(plan.part.classes), 1))
    order = generator(plan.seed, "gan/begin").permutation(len(part.rows))
    most = SHOWN // len(classes)
    chosen = np.sort(np.concatenate([order[part.labels[order] == one][:most] for one in classes]))
    labels = part.labels[chosen] if part.classes else None
    return np.asarray(plan.dataset.images[part.rows[chosen]]), labels


def _said(record: GeneratorRecord) -> str:
    """Which generator is shipped, in words."""
    if record.shipped_kimg is None:
        return f"generator after {record.kimg:.1f} kimg (the last: none was scored)"
    return (
        f"generator after {record.shipped_kimg:.1f} of {record.kimg:.1f} kimg (of "
        f"{len(record.scored)} scored on held-out images the latest within a standard error of the "
        "lowest KID)"
    )


def _record(plan: Plan, trainer: Trainer, seconds: float, choice: Choice) -> GeneratorRecord:
    """Where the generator comes from and what it has seen."""
    dataset, images = plan.dataset, plan.options.images
    return GeneratorRecord(
        architecture=describe(plan.options.model.arch, trainer.config),
        dataset=str(dataset.path),
        dataset_identity=dataset.identity,
        folds_hash=dataset.folds_hash,
        fold=plan.fold,
        test_fold=images.test_fold,
        malignant_share=images.malignant_share,
        targets="malignant" if images.classes == "none" else images.classes,
        classes=plan.part.classes,
        training_ids=dataset.table["image_id"].astype(str).iloc[plan.part.rows].tolist(),
        seed=plan.seed,
        size=dataset.size,
        kimg=trainer.images_seen / 1000,
        minutes=round(seconds / 60, 3),
        scored=choice.scored,
        shipped_kimg=choice.chosen.kimg if choice.chosen else None,
        versions=versions("torch"),
    )


def _restore(trainer: Trainer, plan: Plan, folder: RunFolder | None) -> Progress:
    """Load the last checkpoint; returns what the loop has to remember."""
    state = checkpoint.load(plan.path / CHECKPOINT)
    say = print if trainer.processes.is_rank0 else lambda line: None
    if state is None:
        if folder is not None and folder.was_finished:
            raise UserError(
                f"--resume {plan.out}: it is finished and holds no {CHECKPOINT} to go on from; "
                "start a new run in another --out"
            )
        say("no checkpoint yet: starting from the beginning")
        return Progress()
    try:
        trainer.restore(state)
    except UserError as error:
        raise UserError(f"--resume {plan.out}: {error}") from None
    say(f"going on from {trainer.images_seen / 1000:.1f} kimg, {state['seconds'] / 60:.1f} minutes")
    if state["compute"] != (now := str(trainer.compute)):
        say(f"note: until here on {state['compute']}; from here on {now}: not the same bits")
    return Progress(state["seconds"], state["counts"], Choice.restored(state["choice"]))


def resolve_classes(options: TrainOptions) -> ClassesName:
    """`auto` is none, but for an architecture that needs classes."""
    if options.images.classes != "auto":
        return options.images.classes
    return "target" if architecture(options.model.arch).config.labels == "always" else "none"


def resolve_minutes(options: TrainOptions, device: str) -> float | None:
    """Of training, on a device of this type; None where the budget is in images."""
    if options.budget.minutes is not None or options.budget.kimg is not None:
        return options.budget.minutes
    return DEFAULT_MINUTES.get(device, DEFAULT_MINUTES_ACCELERATOR)


def _default_out(data: Path, options: TrainOptions) -> Path:
    images, model = options.images, options.model
    seen = View(images.test_fold, images.malignant_share).name
    stem = f"{data.name}-{model.arch}-fold{images.fold}{seen}-seed{model.seed}"
    if options.run.resume:
        runs = [path for path in RUNS.glob(f"{stem}*") if can_resume(path)]
        return max(runs, key=lambda path: path.stat().st_mtime, default=RUNS / stem)
    return free_name(RUNS, stem)


def _announce(plan: Plan, trainer: Trainer) -> None:
    model, budget, part = plan.options.model, plan.options.budget, plan.part
    ending = f"{budget.kimg:g} kimg" if budget.kimg is not None else f"{budget.minutes:g} minutes"
    beside = (
        ""
        if plan.path.resolve() == plan.out.resolve()
        else f", until it is finished in {plan.path}"
    )
    kinds = ", ".join(f"{c.count} {c.name}" for c in part.classes)
    one = plan.dataset.info.target.one
    print(
        f"GAN on {plan.dataset.path}, fold {plan.fold}: {kinds or f'{len(part.rows)} {one}'} "
        f"training images of {plan.dataset.size} px\n{model.arch}: generator "
        f"{_count(trainer.generator) / 1e6:.1f} M, discriminator "
        f"{_count(trainer.discriminator) / 1e6:.1f} M parameters; batch {model.batch}; "
        f"{trainer.compute}\nbudget {ending}, run folder {plan.out}{beside}"
    )


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
