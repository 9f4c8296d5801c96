"""Write report.html anew from what an experiment left in its folder.

python -m experiments.report runs/exp/demo
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from dermsynth import cli
from dermsynth.options import TrackingMode, check_bounds


@dataclass(frozen=True)
class ReportOptions:
    """Options of `python -m experiments.report`."""

    folder: tyro.conf.Positional[Path]  # an experiment's folder, such as runs/exp/demo
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline


def main(options: ReportOptions) -> None:
    """Write the report and say where it is."""
    # imported here: --help does not wait for pandas
    from experiments.page import write_report
    from experiments.tracked import track_report

    check_bounds(options)
    report = write_report(options.folder)
    track_report(options, report)
    print(report)
    cli.say_next(f"python -m webbrowser {report}")


if __name__ == "__main__":
    cli.run(ReportOptions, main, "experiments.report", __doc__)
