"""A run that is made of several: one a fold (`--fold all`), two networks (`--beside`), or both.

Each is a run of its own, in a folder of this one's; what they predict is put together here.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from classifier.evaluation.cross_validation import average, pool, pooled_metrics
from classifier.evaluation.metrics import Metrics, measure_parts
from classifier.evaluation.plots import draw_fold_plots, draw_part_plots, title_of
from classifier.evaluation.tracked import track_whole
from classifier.options import TrainOptions, pair
from classifier.records import MetricsRecord
from classifier.run_folder import (
    DECISIONS,
    FOLDS,
    KIND,
    METRICS,
    PAIR,
    PREDICTIONS,
    fold_name,
    open_run,
    read_meaning,
    read_metrics,
    read_predictions,
)
from classifier.training.outputs import decisions, metrics_table
from classifier.training.resume import earlier, goes_on, may_change, named_inputs, with_choices
from classifier.training.setup import look_up, settle
from data.prepare import default_dataset
from data.store import TargetMeaning, load_table
from dermsynth.cli import save_options
from dermsynth.files import free_name, sha256, write_bytes
from dermsynth.folders import RunFolder, can_resume, check_replaceable, run_folder
from dermsynth.manifest import digest, is_finished
from dermsynth.options import as_plain, replace
from dermsynth.records import write_record

NETWORKS = "two networks"


def train_several(
    options: TrainOptions, kind: str, train: Callable[[TrainOptions], dict[str, Metrics]]
) -> tuple[Path, dict[str, Metrics]]:
    """The run's folder, and its figures by part. `kind`: FOLDS or PAIR; `train`: one of them.

    With --resume those that are finished stay, and the one that was stopped goes on.
    """
    if options.run.resume:
        if (before := earlier(options)).finished:
            goes_on(settle(options), before, alone=False)
            metrics = finished_before(options)
            assert options.run.out is not None
            return options.run.out, metrics
        options = with_choices(options, before)
    elif options.run.out is not None:
        check_replaceable(options.run.out, kind, options.run.overwrite)
    options = settle(options)
    if options.task.data is None:
        first = 1 if options.task.test_fold == 0 else 0
        fold = first if options.task.fold == "all" else options.task.fold
        _check(replace(options, fold=fold, out=None, resume=False))  # then draws the phantom
    data, backbone = options.task.data or default_dataset(), options.model.backbone
    fold = options.task.fold
    stem = f"{data.absolute().name}-{backbone.replace(':', '-')}-seed{options.compute.seed}"
    stem += "" if fold == "all" else f"-fold{fold}-beside"
    out = options.run.out or free_name(Path("runs/cls"), stem)
    options = replace(options, data=data, out=out)
    for one in _parts(options, kind).values():
        _check(one)
    kept = replace(options, resume=False, overwrite=False)
    with run_folder(
        *(out, kind, as_plain(kept), named_inputs(options)),
        *(options.run.resume, options.run.overwrite, may_change(options)),
    ) as run:
        save_options(kept, run.path)
        metrics, leak = _run(run, replace(options, out=run.path), kind, train)
    labels = {"dataset": data.absolute().name, "model": backbone, "fold": fold}
    labels |= {"seed": options.compute.seed}
    track_whole(out, options, labels, read_predictions(open_run(out)))
    words = f"{len(_parts(options, kind))} folds" if kind == FOLDS else f"{NETWORKS}, their mean"
    print(f"\n{words}: {out}")
    print(metrics_table(metrics, leak))
    return out, metrics


def finished_before(options: TrainOptions) -> dict[str, Metrics]:
    """The figures of a run that is finished already, which is said."""
    assert options.run.out is not None
    print(f"{options.run.out} is finished already")
    return read_metrics(open_run(options.run.out))  # type: ignore[return-value]


def _parts(options: TrainOptions, kind: str) -> dict[str, TrainOptions]:
    """Options of every run that it is made of, by the name of its folder in --out."""
    data, out = options.task.data, options.run.out
    assert data is not None
    assert out is not None
    if kind == PAIR:
        parts = pair(options)
    else:
        known = {int(fold) for fold in load_table(data)[0]["fold"] if fold >= 0}
        folds = sorted(known - {options.task.test_fold})
        parts = {fold_name(fold): replace(options, fold=fold) for fold in folds}
    return {
        name: replace(one, out=out / name, resume=_goes_on(options, out / name), overwrite=False)
        for name, one in parts.items()
    }


def _goes_on(options: TrainOptions, folder: Path) -> bool:
    """Whether one of its runs is gone on with: what is to be overwritten lies there, too."""
    return options.run.resume and can_resume(folder)


def _check(options: TrainOptions) -> None:
    """Raise UserError for what is wrong with one run before any is trained."""
    if options.choice.beside:
        out = options.run.out
        for name, one in pair(options).items():
            folder = None if out is None else out / name
            again = folder is not None and _goes_on(options, folder)
            _check(replace(one, out=folder, resume=again, overwrite=False))
        return
    again, folder = options.run.resume, options.run.out
    if not (again and folder is not None and is_finished(folder, KIND)):
        look_up(replace(options, out=folder if again else None))


def _run(
    run: RunFolder,
    options: TrainOptions,
    kind: str,
    train: Callable[[TrainOptions], dict[str, Metrics]],
) -> tuple[dict[str, Metrics], str | None]:
    """Train what is not finished, put it together, finish the run; its metrics and the leak."""
    frames, found, parts = [], {}, {}
    members = _parts(options, kind)
    for name, one in members.items():
        print(f"\n{name} of {len(members)}: {one.run.out}")
        try:
            found[name] = train(one)
        except KeyboardInterrupt as stop:  # of which a part says how it alone would go on
            where = f"{said}; " if (said := str(stop).partition(";")[0]) else ""
            way_on = f"to go on, give the same command with --out {run.out} --resume"
            raise KeyboardInterrupt(where + way_on) from None
        sealed = open_run(run.path / name)
        frames.append(read_predictions(sealed))
        parts[name] = sealed.identity.id
    figures = list(found.values())
    if kind == PAIR:
        table = average(frames, list(members))
        metrics = _pair_metrics(table, figures)
    else:
        table = pool(frames)
        metrics = pooled_metrics(table, figures)
    leak = next((str(part["leaky"]) for part in metrics.values() if "leaky" in part), None)
    write_bytes(run.path / PREDICTIONS, table.to_parquet(index=False))
    words = NETWORKS if kind == PAIR else f"{len(members)} folds"
    title, plots = title_of(f"{options.model.backbone}, {words}", leak), run.path / "plots"
    if kind == PAIR:
        record = decisions(table[table["part"] == "val"])
        write_record(run.path / DECISIONS, record)
        parts["decisions"] = digest(record.model_dump(mode="json"))
        meaning = read_meaning(open_run(run.path / next(iter(members)))) or TargetMeaning()
        draw_part_plots(plots, table, metrics, title, meaning.one)
    else:
        by_fold = {one.task.fold: found[name]["val"] for name, one in members.items()}
        draw_fold_plots(plots, table, by_fold, metrics["val_mean"], title)  # type: ignore[arg-type]
    write_record(run.path / METRICS, MetricsRecord(metrics))  # type: ignore[arg-type]
    run.finish(parts | {"predictions": sha256(run.path / PREDICTIONS)})
    return metrics, leak


def _pair_metrics(table: pd.DataFrame, figures: list[dict[str, Metrics]]) -> dict[str, Metrics]:
    """Of the mean scores; what is said of a part beside figures (leaks, images left out) stays."""
    metrics = measure_parts(table, figures[0])
    for part, values in metrics.items():
        for key in ("leaky", "left_out"):
            if key in figures[0][part]:
                values[key] = figures[0][part][key]
    return metrics
