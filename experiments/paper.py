"""What of an experiment goes into a paper: methods, limitations, a table; all from its records."""

from collections.abc import Mapping, Sequence
from typing import Any

from data.grouping import Grouping
from data.store import TargetMeaning
from dermsynth.errors import counted
from experiments.records import ExperimentRecord

Row = dict[str, Any]
LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    # pdflatex knows letters, not these
    **{"−": "$-$", "±": r"$\pm$", "×": r"$\times$", "→": r"$\rightarrow$"},
    **{"≤": r"$\leq$", "≥": r"$\geq$", "<": "$<$", ">": "$>$", "|": "$|$", "µ": r"$\mu$"},
}


def methods(
    experiment: ExperimentRecord,
    comparisons: Sequence[Row],
    arms: Mapping[str, str],
    target: TargetMeaning,
    leaky: Sequence[str] = (),
) -> list[str]:
    """Paragraphs of a methods section; what no record says is left out.

    `arms`: what each arm is, in words; `leaky`: those with a leaky trial.
    """
    parts = [
        _data(experiment, target),
        _arms(experiment, arms),
        _training(experiment, leaky),
        _statistics(experiment, comparisons),
        _software(experiment),
    ]
    return [part for part in parts if part]


def _data(experiment: ExperimentRecord, target: TargetMeaning) -> str:
    info: dict[str, Any] = dict(experiment.dataset.info) if experiment.dataset else {}
    source = info.get("source")
    sentences = [
        (f"Images came from the source {source}" if source else "Images came from one data set")
        + f"; the target was {target.one} (1) against {target.zero} (0)"
        + (f", told by {target.told_by}." if target.told_by else ".")
    ]
    for name, part in experiment.parts.items():
        word = {"train": "Training", "val": "Validation", "test": "Test"}.get(name, name)
        sentences.append(
            f"{word}: {part.images:,} images ({part.malignant:,} {target.one}) in {part.groups:,} "
            f"groups, {part.patients:,} patient ids and {part.lesions:,} lesion ids."
        )
    sentences.append(
        "Images that share a patient or a lesion id, and near-duplicates, formed a group; no group "
        "lay in more than one part."
    )
    return " ".join(sentences)


def _arms(experiment: ExperimentRecord, arms: Mapping[str, str]) -> str:
    said = "; ".join(f"{arm}: {words}" if words else arm for arm, words in arms.items())
    pools = len(experiment.gan)
    made = ""
    if pools:
        made = f" {counted(pools, 'pool')} of synthetic images {'was' if pools == 1 else 'were'} "
        made += "evaluated against held-out real images."
    return f"We compared these arms, which share folds, seeds and optimizer steps. {said}.{made}"


def _training(experiment: ExperimentRecord, leaky: Sequence[str]) -> str:
    config: dict[str, Any] = dict(experiment.config)
    sentences = []
    given = [f"{key}: {value}" for key, value in (config.get("classifier") or {}).items()]
    recipe = config.get("recipe")
    if given or recipe:
        under = f" the recipe {recipe} and" if recipe else ""
        sentences.append(
            f"Classifiers were trained with{under} {', '.join(given) or 'its own options'}; "
            "options that are not named had the defaults of the software."
        )
    for key, words in (("seeds", "classifier seeds"), ("gan_seeds", "generator seeds")):
        if config.get(key) is not None and (key == "seeds" or experiment.gan):
            sentences.append(f"The {words} were {', '.join(map(str, config[key]))}.")
    sentences.append(
        f"Checkpoints, temperatures and thresholds were chosen on validation images, but the "
        f"generator of {', '.join(leaky)} may have seen validation or test images."
        if leaky
        else "Checkpoints, temperatures and thresholds were chosen on validation images; the test "
        "images took no part in training or in any choice."
    )
    return " ".join(sentences)


def _statistics(experiment: ExperimentRecord, comparisons: Sequence[Row]) -> str:
    if not comparisons:
        return ""
    first = comparisons[0]
    others = sum(c["family"] == "secondary" for c in comparisons)
    outside = sum(c["family"].startswith("external") for c in comparisons)
    replicates = experiment.config.get("bootstrap")
    drawn = f" ({replicates} replicates)" if replicates is not None else ""
    sentences = [
        f"The primary comparison was {first['arm']} against {first['reference']} in AUC, averaged "
        f"over single trainings ({counted(first['n_trainings'], 'pair')}), on {first['n']:,} "
        f"images of {first['n_groups']:,} groups ({first['n_malignant']:,} of target 1).",
        f"Intervals of 95% count the test groups (bootstrap over groups{drawn}), classifier seeds "
        "and, from three generators on, generators, each with a t quantile of its own.",
        f"The margin of equivalence was {first['margin']:g} AUC, fixed beforehand, tested by two "
        "one-sided tests at 5%; a difference was looked for by a two-sided test at 5%.",
        "The primary comparison was tested alone; Holm's correction went over "
        f"{counted(others, 'secondary comparison')}.",
    ]
    if outside:
        sentences.append(
            f"The {outside} comparisons on external sets were a family of their own, the first "
            "tested alone."
        )
    if experiment.plan:
        sentences.append(
            f"The design was recorded before training on {experiment.plan['made']} (SHA-256 "
            f"{experiment.plan['design_sha256']})."
        )
    if first.get("mde") is not None:
        sentences.append(
            f"With 80% power the primary comparison sees differences of {first['mde']:.3f} AUC."
        )
    return " ".join(sentences)


def _software(experiment: ExperimentRecord) -> str:
    if not experiment.versions:
        return ""
    known = ", ".join(f"{name} {version}" for name, version in experiment.versions.items())
    cpu, flags = map(experiment.machine.get, ("cpu", "flags"))
    instructions = f" ({', '.join(map(str, flags))})" if isinstance(flags, list) and flags else ""
    return f"Software: {known}" + (f", on {cpu}{instructions}." if cpu else ".")


# --- limitations ----------------------------------------------------------------------------------


def limitations(
    experiment: ExperimentRecord,
    comparisons: Sequence[Row],
    leaky: Sequence[str],
    failed: int,
    n_trials: int,
) -> list[str]:
    """Sentences of what the records say against the result; the gravest first."""
    info: dict[str, Any] = dict(experiment.dataset.info) if experiment.dataset else {}
    said = []
    if leaky:
        said.append(f"Arms were leaky ({', '.join(leaky)}): the result is not valid.")
    if experiment.config.get("smoke"):
        said.append("This was a smoke run: nothing was learnt, and no figure means anything.")
    if info.get("source") == "phantom":
        said.append("Images were drawn, not photographed: nothing follows for skin.")
    said += [f"{one[:1].upper()}{one[1:]}." for one in experiment.data_warnings]
    if note := Grouping.model_validate(info.get("grouping") or {}).note:
        said.append(f"{note[:1].upper()}{note[1:]}.")
    said += [f"Synthetic images: {one}." for one in experiment.warnings]
    said += _of_comparisons(comparisons)
    if failed:
        said.append(f"{failed} of {n_trials} trainings did not finish and are left out.")
    missing = {
        f"{name} of {count:,} {part} images"
        for part, record in experiment.parts.items()
        for name, count in record.missing.items()
        if count
    }
    if missing:
        said.append(f"Not known: {', '.join(sorted(missing))}.")
    said.append(
        "The labels are those of the source; this software did not check how they were obtained."
    )
    return said


def _of_comparisons(comparisons: Sequence[Row]) -> list[str]:
    if not comparisons:
        return ["No two arms could be compared."]
    first = comparisons[0]
    said = []
    if first["scope"] == "pool":
        made = {0: "no generator was trained here", 1: "one generator a fold was trained"}
        count = made.get(first["n_gan_seeds"], f"{first['n_gan_seeds']} a fold were")
        said.append(
            f"The verdict is about these synthetic images ({count}): how those of another "
            "generator would do is not known."
        )
    if first["verdict"] in ("inconclusive", "undecidable"):
        said.append("The primary comparison shows neither an effect nor its absence.")
    if not any(c["test_set"].startswith("external/") for c in comparisons):
        said.append(
            "There was no external test set: other clinics, cameras and skin tones may differ."
        )
    if first["n_folds"] == 1:
        said.append("One split was tested: how results vary between training sets is not known.")
    if first["note"]:
        said.append(first["note"])
    return said


# --- a table --------------------------------------------------------------------------------------


def latex(comparisons: Sequence[Row], name: str) -> str:
    """A booktabs table of the comparisons (`\\usepackage{booktabs}`); `name`: the experiment's."""
    lines = [
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{AUC of arms with their references in {_escaped(name)}; differences with 95\% "
        r"intervals in which test groups, seeds and, from three on, generators count. "
        r"$p$ as corrected within its family (Holm).}",
        r"\begin{tabular}{@{}lllccrrl@{}}",
        r"\toprule",
        r"Arm & Reference & Test set & AUC & of ref. & Difference (95\% CI) & $p$ & Verdict \\",
        r"\midrule",
    ]
    for c in comparisons:
        cells = [
            *(_escaped(c[key]) for key in ("arm", "reference", "test_set")),
            *(_figure(c[key]) for key in ("auc_arm", "auc_reference")),
            f"{_figure(c['delta_auc'], True)} {_ends(c['ci_low'], c['ci_high'])}",
            _p(c["p_holm"]),
            c["verdict"],
        ]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _escaped(text: str) -> str:
    return "".join(LATEX.get(char, char) for char in text)


def _figure(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "--"
    return f"${value:+.3f}$" if sign else f"{value:.3f}"


def _ends(low: float | None, high: float | None) -> str:
    return "(--)" if low is None or high is None else f"(${low:+.3f}$, ${high:+.3f}$)"


def _p(value: float | None) -> str:
    if value is None:
        return "--"
    return "$<0.001$" if value < 0.001 else f"{value:.3f}"
