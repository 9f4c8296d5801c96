"""Mix the scores of several models: by given weights, by ranks, or by weights found out of fold.

    python -m classifier.blend --scores image=runs/cls/b3:0.9 age=runs/cls/meta:0.1 --out both.csv

FILE is a run's folder or predictions.parquet, of which --part is mixed, or a CSV
`image_name,target`, taken whole. Writes a CSV of that form and, beside it, a .json with members,
weights and figures. Weights are divided by their sum; alike without any.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from dermsynth import cli
from dermsynth.errors import UserError, counted
from dermsynth.files import check_free, json_text, write_text
from dermsynth.options import HOLDS_PATH, TrackingMode, check_bounds

Words = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, HOLDS_PATH]


# --out is a file and required, so that it is no OutputOptions
@dataclass(frozen=True)
class BlendOptions:
    """Options of `python -m classifier.blend`."""

    out: Path  # CSV file to write
    scores: Words = ()  # NAME=FILE:WEIGHT for each model
    part: str = "test"  # what to mix of a run: test, oof, val or external/NAME
    by: Literal["weights", "rank", "search"] = "weights"  # rank: percentiles, not scores, are mixed
    fit_on: str | None = None  # find weights on oof (so does --by search) or val: the highest AUC
    truth: Path | None = None  # dataset or run: its images must be there, and the AUC on it is told
    overwrite: bool = False  # replace the files in --out
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline


def blend(options: BlendOptions) -> dict[str, Any]:
    """Write the CSV and the record beside it; returns the record.

    Raises UserError for what cannot be read or mixed (other images in one member than in another
    or the truth, images twice, scores that are no finite numbers, weights below 0 or all 0), and
    for weights to be found on a part to be tested on.
    """
    # imported here: --help does not wait for scipy
    import pandas as pd

    from classifier.evaluation import blending
    from classifier.evaluation.members import read_members, read_truth, same_rows
    from classifier.evaluation.tracked import track_blend
    from classifier.scores import write_scores

    fit_on = options.fit_on or ("oof" if options.by == "search" else None)
    check_bounds(options)
    _check(options, fit_on)
    members = read_members([word for group in options.scores for word in group])
    ranks = options.by == "rank"
    rows, columns = same_rows(members, options.part, ranks)
    truth = read_truth(options.truth, options.part, rows.index) if options.truth else None
    weights, record = blending.weigh(members, options.part, ranks, fit_on)
    mixed = pd.Series(blending.mix(columns, weights), rows.index)
    if truth is not None:
        value = blending.auc(truth.to_numpy(), mixed[truth.index].to_numpy())
        record["blend"]["auc_truth"] = value
    options.out.parent.mkdir(parents=True, exist_ok=True)
    beside, text = options.out.with_suffix(".json"), json_text(record)
    if beside.exists() and not options.overwrite and beside.read_bytes() != text.encode():
        check_free(beside, options.overwrite)  # else a killed process left it, without its CSV
    write_text(beside, text)
    write_scores(options.out, mixed.index.tolist(), mixed.to_numpy())
    track_blend(options, record, len(mixed))
    print(blending.screen_table(record))
    print(f"{counted(len(mixed), 'row')}: {options.out}")
    if options.truth is None:
        words = " ".join(word for group in options.scores for word in group)
        how = f"--part {options.part} --by {options.by} --truth DATASET --overwrite"
        how += f" --fit-on {options.fit_on}" if options.fit_on else ""
        cli.say_next(f"python -m classifier.blend --scores {words} --out {options.out} {how}")
    else:
        cli.say_next("python -m classifier.evaluate --run RUN")
    return record


def _check(options: BlendOptions, fit_on: str | None) -> None:
    from classifier.run_folder import VALIDATION

    if fit_on is not None and fit_on not in VALIDATION:
        raise UserError(
            f"--fit-on {fit_on}: weights are found on oof (out-of-fold predictions) or val only, "
            "never on what they are tested on"
        )
    if options.out.suffix != ".csv":
        raise UserError(f"--out {options.out}: expected a name that ends in .csv")
    check_free(options.out, options.overwrite)
    if (beside := options.out.with_suffix(".json")).is_dir():
        check_free(beside, options.overwrite)


if __name__ == "__main__":
    cli.run(BlendOptions, blend, "classifier.blend", __doc__)
