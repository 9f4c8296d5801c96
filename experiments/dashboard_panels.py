"""The panels of an experiment's dashboard, and the workspace that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from experiments.page import Results

TITLES = {
    "synthetic": "Dose: AUC by the share of synthetic images",
    "frozen": "AUC by the number of frozen blocks",
    "malignant_share": "Learning curve: AUC by the share of malignant images",
}
Panels = list[Any]  # of wandb_workspaces, whose types of panels share none
AUC = wr.SummaryMetric("test/auc")


@dataclass(frozen=True)
class Place:
    """Where the dashboard goes, and which runs it shows."""

    entity: str
    project: str
    experiment: str  # the group of the runs


def workspace(place: Place, results: Results, over: Sequence[str]) -> ws.Workspace:
    """The workspace of an experiment, its runs by experiment and arm; `over`: as below."""
    sections = [
        ws.Section(name=name, panels=panels, is_open=number < 3)
        for number, (name, panels) in enumerate(panels_by_section(results, over).items())
    ]
    return ws.Workspace(
        entity=place.entity,
        project=place.project,
        name=place.experiment,
        sections=sections,
        runset_settings=ws.RunsetSettings(
            filters=[expr.Config("experiment") == place.experiment],
            groupby=[expr.Config("experiment"), expr.Config("arm")],
        ),
    )


def runset(place: Place) -> wr.Runset:
    """The same runs, for a report in their project."""
    return wr.Runset(
        name=place.experiment,
        filters=[expr.Config("experiment") == place.experiment],
        groupby=["config.experiment", "config.arm"],
    )


def panels_by_section(results: Results, over: Sequence[str]) -> dict[str, Panels]:
    """All panels; `over`: the options (of TITLES) that arms differ in, each with its curve."""
    arms: dict[str, Any] = {"groupby": wr.Config("arm")}
    ranged: dict[str, Any] = {**arms, "groupby_aggfunc": "mean"}
    sections = {
        "Verdict": [
            wr.MediaBrowser(title="Differences and their intervals", media_keys=["differences"]),
            _differences(results),
            wr.WeavePanelSummaryTable(table_name="comparisons"),
        ],
        "Seeds": [
            wr.BarPlot(
                title="AUC by arm, with the extremes of trainings",
                metrics=[AUC],
                groupby_rangefunc="minmax",
                **ranged,
            ),
            wr.ScatterPlot(title="Each training", x=wr.Config("seed"), y=AUC),
            wr.WeavePanelSummaryTable(table_name="trials"),
        ],
    }
    sections |= {TITLES[option]: _over(option) for option in over}
    sections["Training"] = [
        wr.LinePlot(
            title=name, x="epoch", y=[name], groupby_rangefunc="minmax", title_x="epoch", **ranged
        )
        for name in ("val_auc", "val_loss", "train_loss")
    ]
    sections["Generators"] = [
        wr.LinePlot(title=name, x="kimg", y=[name], title_x="thousand images seen")
        for name in ("loss_d", "loss_g", "kid", "diversity")
    ]
    sections["Generators"] += [
        wr.BarPlot(title="Scores of pools", metrics=["precision", "recall", "coverage"]),
        wr.MediaBrowser(title="Samples", media_keys=["samples", "closest", "grid/real"]),
    ]
    return sections


def describe(made: ws.Workspace, written: wr.Report) -> str:
    """Workspace and report in words."""
    lines = [f"workspace {made.entity}/{made.project}: {made.name}"]
    for section in made.sections:
        lines.append(f"  {section.name}: {', '.join(map(_title, section.panels))}")
    blocks = [block for block in written.blocks if isinstance(block, wr.H2)]
    headings = ", ".join(str(block.text) for block in blocks)
    return "\n".join([*lines, f"report: {written.title} ({headings})"])


def _title(panel: Any) -> str:
    if isinstance(panel, wr.CustomChart):
        return str(panel.chart_strings["title"])
    return str(panel.table_name if isinstance(panel, wr.WeavePanelSummaryTable) else panel.title)


def _differences(results: Results) -> wr.BarPlot:
    pairs = [f"{c['test_set']}/{c['arm']} - {c['reference']}" for c in results.comparisons]
    metrics: Panels = [wr.SummaryMetric(f"{pair}/delta_auc") for pair in pairs]
    return wr.BarPlot(title="Difference in AUC by comparison", metrics=metrics)


def _over(option: str) -> Panels:
    """Each training as a point over an option, and the arms' means and extremes as lines."""
    return [
        wr.ScatterPlot(title=f"Each training by {option}", x=wr.Config(option), y=AUC),
        wr.CustomChart(
            query={"summaryTable": {"tableKey": f"curve/{option}_table"}},
            chart_name="wandb/lineseries/v0",
            chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
            chart_strings={"title": f"Mean and extremes by {option}", "xname": option},
        ),
    ]
