"""A W&B report of an experiment: the verdict in words, the comparisons, then the panels."""

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from experiments.dashboard_panels import Place, panels_by_section, runset
from experiments.numbers import interval, markdown_table, number
from experiments.page import Results
from experiments.wording import summary


def report(place: Place, results: Results, over: Sequence[str]) -> wr.Report:
    """The report; its figures are those of `comparisons.json`. `over`: options with a curve."""
    record = results.experiment
    leaky = sorted(results.trials.loc[results.trials["leaky"], "arm"].unique())
    said = summary(results.comparisons, leaky, record.warnings, record.data_warnings)
    blocks: list[Any] = [
        wr.H2("Verdict"),
        wr.P(said[0]),
        *(wr.P(sentence) for sentence in said[1:]),
        wr.H2("Comparisons"),
        wr.MarkdownBlock(_table(results.comparisons)),
    ]
    for name, panels in panels_by_section(results, over).items():
        blocks += [
            wr.H2("Differences" if name == "Verdict" else name),
            wr.PanelGrid(runsets=[runset(place)], panels=panels),
        ]
    return wr.Report(
        entity=place.entity,
        project=place.project,
        title=f"DermSynth: {place.experiment}",
        description=str(record.config.get("description") or ""),
        blocks=blocks,
    )


def _table(comparisons: list[dict[str, Any]]) -> str:
    rows = [
        [
            *(c["arm"], c["reference"], c["test_set"], number(c["auc_arm"])),
            *(number(c["delta_auc"], sign=True), interval(c["ci_low"], c["ci_high"])),
            c["verdict"],
        ]
        for c in comparisons
    ]
    columns = ["arm", "reference", "tested on", "AUC", "difference", "95% interval", "verdict"]
    return markdown_table(columns, rows)
