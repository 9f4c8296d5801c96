"""An experiment as one run at W&B or TensorBoard: verdict, comparisons, trials, curves, report."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermsynth.files import sha256
from dermsynth.manifest import Identity, read_manifest
from dermsynth.tracked import About, config_of, in_experiment, of_file, predictions
from dermsynth.tracking import Cell, Line, Report, harmless
from experiments.options import ExperimentOptions
from experiments.page import MEND, open_experiment, read_results
from experiments.records import REPORT
from experiments.report import ReportOptions
from experiments.wording import headline, summary

MOST_INPUTS = 200  # files of predictions that the run is said to be made from
FIGURES = (  # of a comparison, in the table and in the summary
    *("auc_arm", "auc_reference", "delta_auc", "ci_low", "ci_high", "ci_low_models"),
    *("ci_high_models", "p", "p_holm", "se_groups", "se_seeds", "se_gans", "mde"),
)
COLUMNS = (
    *("arm", "reference", "test_set", "verdict", *FIGURES, "n", "n_malignant", "n_groups"),
    *("n_seeds", "n_gan_seeds", "n_trainings", "left_out"),
)
TRIAL = re.compile(r"(?P<arm>.+)-seed\d+(-gan\d+)?")  # a training's folder
OWN = (  # options in which trainings of one arm differ, and where they ran
    *("data", "fold", "test_fold", "seed", "out", "resume", "overwrite", "device", "precision"),
    *("tracking", "cache_gib", "pool", "benign_pool", "generator"),
)
CURVES = ("synthetic", "frozen", "malignant_share")  # options that arms may be drawn over


@harmless
def track_experiment(options: ExperimentOptions, folder: Path) -> None:
    """A run of the finished experiment in `folder`, in the group of its trainings."""
    results = read_results(open_experiment(folder))
    record, comparisons, trials = results.experiment, results.comparisons, results.trials
    name, identity = folder.absolute().name, read_manifest(folder, MEND).identity
    dataset = record.dataset
    about = About(
        "compare",
        {**config_of(options), **record.config},
        name,
        {"dataset": Path(dataset.path).name if dataset else None},
        inputs={"dataset": dataset.identity} if dataset and dataset.identity else {},
    )
    with Report(folder, options.run.tracking, in_experiment(about, name)) as report:
        for source in _inputs(folder):
            report.used(source)
        report.summary(**verdicts(comparisons), trainings=len(trials))
        leaky = sorted(trials.loc[trials["leaky"], "arm"].unique())
        said = summary(comparisons, leaky, record.warnings, record.data_warnings)
        report.summary(sentences="\n".join(said))
        report.table("comparisons", COLUMNS, [[c[key] for key in COLUMNS] for c in comparisons])
        report.table("trials", list(trials.columns), _cells(trials))
        if any(c["delta_auc"] is not None for c in comparisons):
            report.image(0, "differences", forest(comparisons), of_lesions=False)
        for option in CURVES:
            if lines := curves(folder, trials, option):
                report.lines(f"curve/{option}", option, lines)
        for grid, path in record.grids.items():
            report.image(0, f"grid/{grid}", folder / path)
        report.page("report", folder / REPORT)
        report.made(identity, folder / REPORT, folder=str(folder), verdict=_verdict(comparisons))


@harmless
def track_report(options: ReportOptions, page: Path) -> None:
    """A run of a report that was written anew, beside the experiment's own, which has its figures.

    `page`: report.html in the experiment's folder.
    """
    folder = page.parent
    name, identity = folder.absolute().name, read_manifest(folder, MEND).identity
    about = About("compare", config_of(options), name, inputs={"experiment": identity})
    with Report(folder, options.tracking, about, "report") as report:
        report.page("report", page)
        report.made(of_file("report", sha256(page)), page, folder=str(folder))


def verdicts(comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """The verdict of the first comparison, and the figures of every one by its name."""
    found: dict[str, Any] = {"verdict": _verdict(comparisons)}
    if comparisons:
        first = comparisons[0]
        found["headline"] = "; ".join(headline(first)) + "."
        found |= {key: first[key] for key in ("delta_auc", "ci_low", "ci_high", "p", "mde")}
    for c in comparisons:
        stem = f"{c['test_set']}/{c['arm']} - {c['reference']}"
        found |= {f"{stem}/{key}": c[key] for key in ("delta_auc", "ci_low", "ci_high", "verdict")}
    return found


def arm_options(folder: Path) -> dict[str, dict[str, Any]]:
    """The options of each arm as its first finished training has them, without those of a run."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("trials/*/*/manifest.json")):
        match = TRIAL.fullmatch(path.parent.name)
        if match and match["arm"] not in found:
            options = read_manifest(path.parent, MEND).options
            found[match["arm"]] = {key: options[key] for key in options if key not in OWN}
    return found


def curves(folder: Path, trials: pd.DataFrame, option: str) -> dict[str, Line]:
    """AUC on the test images over an option: lines of means, lowest and highest trainings.

    Arms that differ in this option alone make a line, named by the first of them. An option that is
    no number (`balanced`) makes no point. Empty where no two arms differ so.
    """
    done = trials[trials["status"] == "done"]
    if "test/auc" not in done:
        return {}
    families: dict[str, list[tuple[float, str]]] = {}
    for arm, options in arm_options(folder).items():
        with contextlib.suppress(KeyError, TypeError, ValueError):
            value = float(options[option])
            rest = {key: options[key] for key in options if key != option}
            families.setdefault(json.dumps(rest, sort_keys=True), []).append((value, arm))
    figures = done.groupby("arm")["test/auc"].agg(["mean", "min", "max"]).dropna()
    lines: dict[str, Line] = {}
    for family in families.values():
        points = sorted((value, arm) for value, arm in family if arm in figures.index)
        if len(points) > 1:
            for name in figures:
                values = [float(figures.loc[arm, name]) for _, arm in points]
                lines[f"{points[0][1]} and so on, {name}"] = [x for x, _ in points], values
    return lines


def forest(comparisons: list[dict[str, Any]]) -> np.ndarray:
    """The differences with their intervals as a picture: uint8 [h, w, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [c for c in comparisons if c["delta_auc"] is not None][::-1]
    figure = Figure((8, 1 + 0.45 * len(shown)), layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    for place, c in enumerate(shown):
        if c["ci_low"] is not None and c["ci_high"] is not None:
            axes.plot([c["ci_low"], c["ci_high"]], [place, place], color="tab:blue")
        axes.plot([c["delta_auc"]], [place], "o", color="tab:blue")
    margin = shown[0]["margin"]
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvspan(-margin, margin, color="0.92", zorder=0)
    names = [f"{c['arm']} - {c['reference']} ({c['test_set']}): {c['verdict']}" for c in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.set_xlabel("difference in AUC, 95% interval; grey: the margin")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _verdict(comparisons: list[dict[str, Any]]) -> str:
    return str(comparisons[0]["verdict"]) if comparisons else "none"


def _cells(table: pd.DataFrame) -> list[list[Cell]]:
    """Plain Python values; what is missing is None."""
    plain = table.astype(object).where(table.notna(), None)
    return [list(row) for row in plain.itertuples(index=False, name=None)]


def _inputs(folder: Path) -> list[Identity]:
    """The predictions of each training."""
    paths = sorted(folder.glob("trials/*/*/manifest.json"))
    if len(paths) > MOST_INPUTS:
        print(f"note: {MOST_INPUTS} of {len(paths)} trainings are tracked as inputs")
    parts = [read_manifest(path.parent, MEND).parts for path in paths[:MOST_INPUTS]]
    return [predictions(each["predictions"]) for each in parts if "predictions" in each]
