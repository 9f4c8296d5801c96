"""An experiment from its file to its report: check, compute what is not there yet, compare."""

from pathlib import Path

from data.prepare import default_dataset
from data.store import load_dataset
from dermsynth.cli import find_config
from dermsynth.errors import counted
from dermsynth.folders import can_resume, check_replaceable, run_folder
from dermsynth.options import as_plain
from dermsynth.progress import waiting
from experiments.checks import check, find_splits
from experiments.config import CONFIGS, all_trials, read_experiment
from experiments.executors.run_tasks import check_place, run_tasks
from experiments.options import ExperimentOptions
from experiments.plan import PLAN, describe, keep_plan
from experiments.records import KIND, REPORT
from experiments.results import write_results
from experiments.tasks import task_list


def run_steps(options: ExperimentOptions) -> Path:
    """Run what is not done yet and return the path of the report.

    Raises UserError for a bad experiment file, dataset or folder before anything is computed.
    """
    # --- what is asked for, checked before anything is written
    file = find_config(str(options.experiment), CONFIGS, "experiment")
    experiment, arms = read_experiment(file, options.smoke, options.external)
    check_place(options)
    out = options.run.out or Path("runs/exp") / file.stem
    resume = options.run.resume and can_resume(out)
    if not resume:
        check_replaceable(out, KIND, options.run.overwrite)
    dataset = load_dataset(options.data or default_dataset())
    splits = find_splits(experiment, dataset)
    trials = all_trials(experiment, arms, splits)
    inputs = check(dataset, arms, splits, trials)
    tasks = task_list(trials, dataset, options.compute, options.run.tracking)
    with run_folder(
        *(out, KIND, as_plain(experiment), inputs, resume, options.run.overwrite),
        may_change=("description",),
    ) as run:
        if run.was_finished:
            run.loosen()
        plan = keep_plan(run.path, experiment, dataset, trials, tasks, options)
        print(describe(plan, experiment.margin, dataset.info.target.one))
        if options.plan:
            print(f"written to {run.path / PLAN}; --resume without --plan runs it")
            return run.path / PLAN
        # --- generators, pools, evaluations, trainings
        folder = run.path
        print(
            f"{file.stem}: {counted(len(trials), 'training')} of {counted(len(arms), 'arm')} on "
            f"{counted(len(splits), 'fold')}, {counted(plan.cost.n_generators, 'generator')}, on "
            f"{dataset.path}\n"
            f"  results go to {folder}; --resume goes on after a kill"
        )
        failures = run_tasks(tasks, folder, options)
        # --- comparisons and report
        results = folder, experiment, dataset, arms, trials, failures, file
        with waiting("comparing, drawing plots and writing the report"):
            parts = write_results(*results)
        run.finish(parts)
    return out / REPORT
