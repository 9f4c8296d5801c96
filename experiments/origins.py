"""What made the synthetic images of an arm, in words, and whether they failed the quality gate."""

from collections.abc import Sequence
from pathlib import Path

from data.pool import load_pool
from data.provenance import Provenance
from experiments.config import SAMPLERS, Trial
from experiments.records import GeneratorFacts
from experiments.statistics.comparison import Row
from experiments.tasks import pool_names
from experiments.wording import DRAWN
from gan.evaluation.records import EvaluationRecord


def add_origins(
    rows: list[Row], out: Path, trials: Sequence[Trial], trained: Sequence[GeneratorFacts]
) -> None:
    """Say in each row of comparisons.json what made the synthetic images of both arms.

    Parameters
    ----------
    rows : gain `made_by`, `reference_made_by`, `gate_failed` and `reference_gate_failed`
    out : the experiment's folder
    trials : the finished ones
    trained : what is known of their pools
    """
    by_arm: dict[str, list[Trial]] = {}
    for trial in trials:
        by_arm.setdefault(trial.arm.name, []).append(trial)
    for row in rows:
        for side, prefix in (("arm", ""), ("reference", "reference_")):
            own = by_arm.get(row[side], [])
            pools = list(dict.fromkeys(name for trial in own for name in pool_names(trial)[:1]))
            row[f"{prefix}made_by"] = _made_by(out, own[0], pools, trained) if pools else ""
            row[f"{prefix}gate_failed"] = gate_failures(trained, set(pools))


def gate_failures(trained: Sequence[GeneratorFacts], pools: set[str]) -> list[str]:
    """Codes of what fails these pools, each once, in the order found."""
    codes: dict[str, None] = {}
    for one in trained:
        if one.run in pools and one.evaluation is not None:
            quality = EvaluationRecord.model_validate(one.evaluation).quality
            found = quality.findings if quality else []
            codes |= dict.fromkeys(each.code for each in found if each.severity == "fail")
    return list(codes)


def pool_folder(out: Path, trial: Trial) -> Path:
    """Where the first pool of a trial lies: in the experiment's folder, or where somebody put it.

    `trial`: of an arm with synthetic images.
    """
    source, name = trial.arm.source, pool_names(trial)[0]
    own = source is not None and (source.pool == "gan" or source.pool in SAMPLERS)
    return out / name if own else Path(name)


def _made_by(
    out: Path, trial: Trial, pools: Sequence[str], trained: Sequence[GeneratorFacts]
) -> str:
    source = trial.arm.source
    if source is None:
        return ""
    if source.pool in SAMPLERS:
        return DRAWN[source.pool]
    if source.pool != "gan":
        return foreign(Path(source.pool).name, load_pool(pool_folder(out, trial)).info.provenance)
    known = [one.generator for one in trained if one.run in pools and one.generator]
    names = {str(one["architecture"]["name"]) for one in known}  # type: ignore[index, call-overload]
    kind = f", {names.pop()}" if len(names) == 1 else ""
    count = "one generator" if len(pools) == 1 else f"{len(pools)} generators"
    return f"{count} trained here{kind}"


def foreign(name: str, provenance: Provenance) -> str:
    """A pool that was made outside the experiment, with what is known of its origin."""
    pool = f"the pool {name} from elsewhere"
    made = provenance.generator
    if provenance.kind == "generator" and made is not None:
        return f"{pool}, by a generator ({made.architecture.name}) of fold {made.fold}"
    if provenance.kind == "phantom":
        return f"{pool}, {DRAWN.get(provenance.quality or '', 'drawn by the phantom sampler')}"
    if provenance.statement:
        return f'{pool}, declared as "{provenance.statement}"'
    return f"{pool}, of unknown origin"
