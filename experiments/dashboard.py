"""Make the dashboard of an experiment at Weights & Biases: a workspace and a report, as code.

    python -m experiments.dashboard --experiment runs/exp/NAME

The workspace shows the experiment's runs by arm: differences with their intervals, curves over what
the arms differ in, seeds as points, training curves, generators and their images. The report begins
with the verdict. Both are saved at W&B, whose server has the runs already or gets them by `wandb
sync`; the next call saves over them. Without a key or a server it says what it would make and the
commands that make it later.
"""

import contextlib
import os
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermsynth import cli
from dermsynth.errors import UserError, counted
from dermsynth.records import Record, read_record, write_record
from dermsynth.wandb_modes import PATIENCE, choose_mode, has_key, knock, reason, within

if TYPE_CHECKING:
    from experiments.dashboard_panels import Place

ADDRESSES = Path("wandb") / "dashboard.json"  # in the experiment's folder, where nothing is sealed
EXPLAINED = "the package wandb-workspaces: pip install -c constraints.txt '.[workspaces]'"


class Addresses(Record):
    """ADDRESSES: what was saved at W&B the last time."""

    entity: str
    project: str
    workspace: str
    report: str


@dataclass(frozen=True)
class DashboardOptions:
    """Options of `python -m experiments.dashboard`."""

    experiment: Path  # folder of experiments.run
    entity: str | None = None  # team or user at W&B; none: WANDB_ENTITY, or the key's own
    project: str | None = None  # none: WANDB_PROJECT, or dermsynth


def main(options: DashboardOptions) -> None:
    """Save workspace and report, or say how.

    Raises UserError for a folder that holds no finished experiment, without wandb-workspaces, and
    where W&B refuses.
    """
    if find_spec("wandb_workspaces") is None:
        raise UserError(f"experiments.dashboard needs {EXPLAINED}")
    os.environ.setdefault(
        "WANDB_SILENT", "true"
    )  # before it is imported; what it says is said here
    from experiments.dashboard_panels import Place, describe, workspace
    from experiments.dashboard_report import report
    from experiments.page import open_experiment, read_results
    from experiments.tracked import CURVES, curves

    results = read_results(open_experiment(options.experiment))
    name, unsent = options.experiment.absolute().name, _unsent(options.experiment)
    why = _why_not()
    place = Place(_entity(options, why), _project(options), name)
    over = [one for one in CURVES if curves(options.experiment, results.trials, one)]
    made = workspace(place, results, over)
    written = report(place, results, over)
    print(describe(made, written))
    if unsent:
        print(
            f"{counted(len(unsent), 'run')} of it offline, to be sent first:\n"
            f"  find {shlex.quote(str(options.experiment))} -name 'offline-run-*' -not -path "
            "'*/superseded/*' -exec wandb sync {} +"
        )
    if why is not None:
        again = f"python -m experiments.dashboard --experiment {options.experiment}"
        print(f"not saved: {why}\nlater: {again}")
        return
    if (before := _addresses(options.experiment, place)) is not None:
        _replace(made, before.workspace)
        _replace(written, before.report)
    saved = Addresses(
        entity=place.entity,
        project=place.project,
        workspace=_saved(made),
        report=_saved(written),
    )
    print(f"workspace: {saved.workspace}\nreport: {saved.report}")
    path = options.experiment / ADDRESSES
    try:
        path.parent.mkdir(exist_ok=True)
        write_record(path, saved)
    except OSError as error:
        print(f"warning: {path}: {error.strerror}; the next call makes new ones")


def _why_not() -> str | None:
    """Why nothing can be saved now; None where it can."""
    if not has_key():
        return "W&B has no API key (WANDB_API_KEY or `wandb login`)"
    if choose_mode("auto") != "online":
        return "WANDB_MODE asks for no connection"
    try:
        knock()
    except ConnectionError as error:
        return str(error)
    return None


def _project(options: DashboardOptions) -> str:
    return options.project or os.environ.get("WANDB_PROJECT") or "dermsynth"


def _entity(options: DashboardOptions, why: str | None) -> str:
    """Of the options, the environment or the key; a stand-in where nothing is saved anyway."""
    if given := options.entity or os.environ.get("WANDB_ENTITY"):
        return given
    if why is not None:
        return "ENTITY"
    import wandb

    try:
        found = within(PATIENCE, lambda: wandb.Api().default_entity)
    except Exception as error:  # whatever W&B's client raises
        raise UserError(
            f"W&B does not say whose the key is ({reason(error)}); give --entity NAME"
        ) from None
    if not found:
        raise UserError("W&B does not say whose the key is; give --entity NAME")
    return str(found)


def _saved(made: Any) -> str:
    """Save a workspace or a report; its address. Raises UserError with W&B's reason."""
    try:
        within(PATIENCE, made.save)
    except Exception as error:  # whatever W&B's client raises
        raise UserError(
            f"W&B did not save it ({reason(error)}); check --entity {made.entity} and --project "
            f"{made.project}, or try again later"
        ) from None
    return str(made.url)


def _addresses(experiment: Path, place: "Place") -> Addresses | None:
    """Those of the last call for the same place; None where there was none, or none readable."""
    with contextlib.suppress(UserError):
        saved = read_record(experiment / ADDRESSES, Addresses, "")
        if (saved.entity, saved.project) == (place.entity, place.project):
            return saved
    return None


def _replace(made: Any, url: str) -> None:
    """Let a workspace or a report take the place of the one at `url`, where that is still there."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    try:
        if isinstance(made, wr.Report):
            made.id = within(PATIENCE, lambda: wr.Report.from_url(url, as_model=True)).id
        else:
            found = within(PATIENCE, lambda: ws.Workspace.from_url(url))
            # its own way to say which view it is to be saved as
            made._internal_id, made._internal_name = found._internal_id, found._internal_name
    except Exception as error:  # whatever W&B's client raises
        print(f"note: {url} is not found any more ({reason(error)}); a new one is made")


def _unsent(experiment: Path) -> list[Path]:
    """Folders of offline runs that were not synced."""
    found = experiment.rglob("offline-run-*")
    return [
        path
        for path in found
        if path.is_dir() and "superseded" not in path.parts and not any(path.glob("*.synced"))
    ]


if __name__ == "__main__":
    cli.run(DashboardOptions, main, "experiments.dashboard", __doc__)
