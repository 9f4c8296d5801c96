"""What finished experiments came to, as tables of a page of docs/; with --out, in a file, too.

    python -m benchmarks.answer runs/exp/with-and-without runs/exp/controls \\
        --out benchmarks/results/ham10000.json

Trains and computes nothing: all is in the experiments' folders. Images, scores and the places of
data are left out. Experiments that are in the file and not named are kept, since a study may run
on several machines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.provenance import read_result
from dermsynth import cli
from dermsynth.errors import UserError, counted
from dermsynth.files import write_json
from experiments.numbers import METRICS, interval, markdown_table, number, percent
from experiments.page import Results, open_experiment, read_results
from experiments.records import TRIAL_COLUMNS, ExperimentRecord, SubgroupRecord
from experiments.wording import short_verdict

SHOWN = (
    *("average_precision", "sensitivity_at_specificity_95", "specificity_at_specificity_95"),
    *("brier", "ece"),
)
Table = tuple[str, list[str], list[list[str]]]  # title, columns, rows


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.answer`."""

    experiments: tyro.conf.Positional[tuple[Path, ...]]  # folders of finished experiments
    out: Path | None = None  # where all their figures go, as JSON


def main(options: Options) -> None:
    """Write the file and print the tables.

    Raises UserError where there is no experiment or two have one name, or the file holds something
    else.
    """
    if not options.experiments:
        raise UserError("no experiment: give the folder of a finished one, runs/exp/NAME")
    found = [read_results(open_experiment(folder)) for folder in options.experiments]
    names = [each.experiment.name for each in found]
    if len(set(names)) < len(names):
        raise UserError(f"experiments of one name: {', '.join(names)}; give each once")
    if options.out is not None:
        kept = read_figures(options.out)
        write_json(options.out, kept | dict(zip(names, map(figures, found), strict=True)))
        if others := [name for name in kept if name not in names]:
            print(f"kept in {options.out}: {', '.join(others)}")
    for each in found:
        print(f"\n### {each.experiment.name}")
        for title, columns, rows in tables(each):
            if rows:
                print(f"\n{title}\n\n{markdown_table(columns, rows)}")


def read_figures(path: Path) -> dict[str, Any]:
    """What an earlier call wrote; nothing where there is no file."""
    if not path.exists():
        return {}
    try:
        content = read_result(path)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not all(
        isinstance(each, dict) and "comparisons" in each for each in content.values()
    ):
        raise UserError(
            f"--out {path}: not figures of experiments; give a file of them or a new one"
        )
    return content


def figures(results: Results) -> dict[str, Any]:
    """Everything but pictures and curves, as JSON."""
    record = results.experiment
    plan = record.plan or {}
    kept = record.model_dump(
        mode="json",
        include={
            *("config", "counts", "machine", "versions", "seconds", "labels", "shortcuts"),
            *("expectations", "failures", "warnings", "data_warnings", "learning_curve"),
            "likeness",
        },
    )
    aucs = [name for name in results.trials if name.endswith("/auc") and name != "val/auc"]
    columns = [*TRIAL_COLUMNS, *aucs]
    trials = results.trials[columns].astype({"gan_seed": object})
    trials = trials.where(trials.notna(), None)
    return {
        "plan": {key: plan.get(key) for key in ("made", "design_sha256", "cost", "visible")},
        **kept,
        "generators": [
            {"fold": each.fold, "seed": each.seed, "kimg": each.kimg, "seconds": each.seconds}
            | quality(each.evaluation or {})
            for each in record.gan
        ],
        "comparisons": [
            {key: value for key, value in row.items() if key != "trainings"}
            for row in results.comparisons
        ],
        "paired": [
            each.model_dump(mode="json", exclude={"decision_curve"}) for each in results.paired
        ],
        "trials": {"columns": columns, "rows": trials.values.tolist()},
    }


def quality(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The figures of a generator that say what its images may be good for."""
    audit, texture = evaluation.get("audit") or {}, evaluation.get("texture") or {}
    return {
        **{name: evaluation.get(name) for name in ("kid", "kid_std", "recall", "coverage")},
        "told_apart": (audit.get("synthetic") or {}).get("auc"),
        "weave": texture.get("weave_synthetic"),
        "memorised": evaluation.get("memorisation_flagged"),
    }


def tables(results: Results) -> Iterator[Table]:
    """Each with what it shows; those without rows are left out by the caller."""
    yield from differences(results)
    yield from audits(results.experiment)
    yield from worth_and_cost(results)


def differences(results: Results) -> Iterator[Table]:
    """Of AUC, of other figures, and in subgroups."""
    columns = ["arm", "against", "tested on"]
    yield (
        "Differences in AUC, 95% intervals on all that varies",
        [*columns, "AUC", "difference", "smallest visible", "verdict"],
        [
            [
                *(row["arm"], row["reference"], row["test_set"].removeprefix("external/")),
                f"{number(row['auc_reference'])} to {number(row['auc_arm'])}",
                difference(row["delta_auc"], row["ci_low"], row["ci_high"]),
                *(number(row["mde"]), short_verdict(row)),
            ]
            for row in results.comparisons
        ],
    )
    yield (
        "Other figures",
        [*columns, *(METRICS[name] for name in SHOWN)],
        [
            [
                *(pair.arm, pair.reference, pair.test_set.removeprefix("external/")),
                *(difference(m.delta, m.ci_low, m.ci_high) for m in chosen(pair.metrics)),
            ]
            for pair in results.paired
        ],
    )
    yield (
        "Subgroups of the first comparison",
        ["", "", "melanomas", "AUC", "difference"],
        [subgroup(each) for pair in results.paired for each in pair.subgroups if not each.few],
    )


def audits(record: ExperimentRecord) -> Iterator[Table]:
    """What the synthetic lesions look like, to classifiers and to the generators' evaluation."""
    yield (
        "Do they look like melanoma?",
        ["pool of", "fold", "generator", "AUC of synthetic", "of real"],
        [
            [row.arm, str(row.fold), str(row.gan_seed), number(row.auc), number(row.auc_real)]
            for row in record.labels
        ],
    )
    yield (
        'Is "synthetic" taken for malignant?',
        ["arm", "fold", "generator", "images of", "AUC", "by real images alone"],
        [
            [row.arm, str(row.fold), str(row.gan_seed), "its own" if row.own else "another"]
            + [number(auc) for auc in (row.auc, row.auc_reference)]
            for row in record.shortcuts
        ],
    )
    yield (
        "Do they count as real ones?",
        ["arm", "tested on", "trained on", "expected", "observed"],
        [
            [row.arm, row.test_set.removeprefix("external/")]
            + [percent(share) for share in (row.trained_on, row.expected, row.observed)]
            for row in record.expectations
        ],
    )
    yield (
        "Generators",
        ["fold", "seed", "kimg", "minutes", "KID x1000", "recall", "told apart", "weave, dB"],
        [
            [
                *(str(each.fold), str(each.seed), number(each.kimg, 0)),
                number((each.seconds or 0) / 60, 0),
                f"{1000 * found['kid']:.0f} ± {1000 * found['kid_std']:.0f}",
                *(number(found[name], 2) for name in ("recall", "told_apart")),
                number(found["weave"], 1),
            ]
            for each in record.gan
            if (found := quality(each.evaluation or {}))["kid"] is not None
        ],
    )


def worth_and_cost(results: Results) -> Iterator[Table]:
    """How many real lesions pools were worth, and minutes on the machine that trained."""
    record, trained = results.experiment, results.trials.query("status == 'done'")
    curve: Any = record.learning_curve or {"points": [], "worths": []}
    yield (
        "Learning curve",
        ["share", "melanoma groups", "real alone", "with synthetic", "worth as many real ones"],
        [
            [
                *(f"{point['share']:.0%}", number(point["n_groups"], 0)),
                *(with_ends(point[name], "auc", 3) for name in ("real", "synthetic")),
                f"{worth['outcome']} {with_ends(worth, 'equals', 0)}",
            ]
            for point, worth in zip(curve["points"], curve["worths"], strict=True)
        ],
    )
    trained_here = sum(each.kimg is not None for each in record.gan)
    minutes = trained["seconds"].sum() / 60, sum(each.seconds or 0 for each in record.gan) / 60
    yield (
        "What it took",
        ["", "minutes"],
        [
            [counted(len(trained), "training"), number(minutes[0], 0)],
            [counted(trained_here, "generator"), number(minutes[1], 0)],
        ],
    )


def chosen(metrics: Sequence[Any]) -> Iterator[Any]:
    """Those SHOWN, in their order."""
    return (next(m for m in metrics if m.name == name) for name in SHOWN)


def subgroup(each: SubgroupRecord) -> list[str]:
    """A row of the table of subgroups."""
    aucs = f"{number(each.auc_reference)} to {number(each.auc_arm)}"
    found = difference(each.delta_auc, each.ci_low, each.ci_high)
    return [each.variable, each.name, str(each.n_malignant), aucs, found]


def difference(value: float | None, low: float | None, high: float | None) -> str:
    """With its ends, where it has them."""
    ends = "" if low is None or high is None else f" {interval(low, high)}"
    return number(value, sign=True) + ends


def with_ends(found: dict[str, Any], name: str, digits: int) -> str:
    """A figure of a learning curve; an end that is not known, or beyond the data, is a dash."""
    low, high = (number(found[end], digits) for end in ("ci_low", "ci_high"))
    return f"{number(found[name], digits)} [{low}, {high}]"


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.answer", __doc__ or "")
