"""Compare classifiers trained with and without synthetic lesions, and write the report.

    python -m experiments.run quick --data datasets/ham10000 --plan
    python -m experiments.run quick --data datasets/ham10000 --resume

Trains the generators, makes and evaluates their pools, trains every arm with every seed on the same
folds and for as many steps, and compares them on images that nothing was chosen on. --plan says
first what that costs and can see. With --resume, what is done is not done again. Without --out it
writes to runs/exp/ and the experiment's name.
"""

from pathlib import Path

from dermsynth import cli
from experiments.options import ExperimentOptions

SMOKE = "smoke run: the figures mean nothing; it shows that the experiment runs to its end"


def run_experiment(options: ExperimentOptions) -> Path:
    """Run what is not done yet and return the path of the report.

    Raises UserError for a bad experiment file, dataset or folder before anything is computed.
    """
    from experiments.steps import run_steps  # imported here: --help does not wait for torch
    from experiments.tracked import track_experiment

    report = run_steps(options)
    if not options.plan:
        track_experiment(options, report.parent)
    return report


def main(options: ExperimentOptions) -> None:
    """Run and say the verdict last."""
    from experiments.page import open_experiment, read_results
    from experiments.wording import summary

    try:
        report = run_experiment(options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what is done is kept; add --resume to go on") from None
    if options.plan:
        return
    results = read_results(open_experiment(report.parent))
    leaky = sorted(results.trials.loc[results.trials["leaky"], "arm"].unique())
    experiment = results.experiment
    warnings = experiment.warnings, experiment.data_warnings
    sentences = summary(results.comparisons, leaky, *warnings)
    print("\n" + "\n".join(sentences))
    if options.smoke:
        print(SMOKE)
    print(f"\nreport: {report}")
    cli.say_next(f"python -m webbrowser {report}")


if __name__ == "__main__":
    cli.run(ExperimentOptions, main, "experiments.run", __doc__)
