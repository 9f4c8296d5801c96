"""What `data.prepare` tells W&B or TensorBoard: counts, folds and the content id; no image."""

from typing import TYPE_CHECKING

from data.preparation.options import PrepareOptions
from dermsynth.manifest import read_manifest
from dermsynth.tracked import About, config_of
from dermsynth.tracking import Report, harmless

if TYPE_CHECKING:
    import pandas as pd

    from data.pool import Pool
    from data.store import Dataset


@harmless
def track_prepared(options: PrepareOptions, prepared: "Dataset | Pool | pd.DataFrame") -> None:
    """A run of the finished folder: its options, and an artifact of what was made."""
    out = options.out
    sealed = read_manifest(out, "make it again")
    about = About("data", config_of(options), f"data-{out.name}", {"dataset": out.name})
    table = getattr(prepared, "table", None if hasattr(prepared, "images") else prepared)
    with Report(out, options.output.tracking, about) as report:
        if table is None:  # a pool
            count = len(prepared.images)  # type: ignore[union-attr]
            report.summary(images=count)
            report.made(sealed.identity, images=count, folder=str(out))
            return
        counts = table.groupby("fold").agg(
            images=("target", "size"), target_1=("target", "sum"), groups=("group", "nunique")
        )
        report.table("parts", ["fold", *counts.columns], counts.reset_index().to_numpy().tolist())
        facts = {"images": len(table), "target_1": int(table["target"].sum())}
        facts["groups"] = int(table["group"].nunique())
        report.summary(**facts, folds=int(table["fold"].max()) + 1)
        report.made(sealed.identity, folder=str(out), **facts)
