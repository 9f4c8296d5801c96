"""What a dataset card tells W&B or TensorBoard: counts by part, what is torn, the page."""

from pathlib import Path
from typing import Any

import numpy as np

from data.card.counts import breakdown, figures, leak_checks, part_names
from data.store import load_table, open_dataset_folder
from dermsynth.files import sha256
from dermsynth.tracked import About, config_of, of_file, shown
from dermsynth.tracking import Report, harmless

PARTS = ("name", "images", "malignant", "share", "groups", "largest")


@harmless
def track_card(options: Any, dataset: Path, page: Path) -> None:
    """A run of the written card `page` of a dataset, in that dataset's group.

    `options`: ReportOptions.
    """
    name, sealed = shown(dataset), open_dataset_folder(dataset)
    table = load_table(dataset)[0]
    table["target"] = table["target"].to_numpy(float, na_value=np.nan)
    inputs = {"dataset": sealed.identity}
    about = About("data", config_of(options), f"data-{name}", {"dataset": name}, None, inputs)
    with Report(page.parent, options.output.tracking, about, page.stem) as report:
        parts = breakdown(table, part_names(table["fold"]), ordered=True)
        report.table("parts", PARTS, [[part[key] for key in PARTS] for part in parts])
        checks = leak_checks(table, None)
        columns = ("name", "checked", "torn")
        report.table("leaks", columns, [[check[key] for key in columns] for check in checks])
        report.summary(**figures(table), torn=sum(check["torn"] for check in checks))
        report.page("card", page)
        report.made(of_file("dataset-card", sha256(page)), page, folder=str(page.parent))
