"""What an evaluation says on the terminal."""

from pathlib import Path
from typing import Any

from gan.evaluation import membership, records, texture
from gan.evaluation.records import EvaluationRecord


def lines(record: EvaluationRecord, target: Path) -> list[str]:
    """A line a finding; `target`: the folder that holds them all."""
    result = record.model_dump()
    copying = {True: "COPIES OF TRAINING IMAGES", False: "no copying seen"}
    ratio = result["memorisation"]
    copies = "not defined" if ratio is None else f"ratio {ratio:.2f} (1 chance, 0 copies), "
    copies += copying.get(result["memorisation_flagged"], "")
    verdicts = {name: drifted["verdict"] for name, drifted in result["drift"].items()}
    drifting = [name for name in verdicts if verdicts[name] in ("more", "less")]
    found = [
        f"KID x1000 {1000 * result['kid']:.1f} +- {1000 * result['kid_std']:.1f}, real against "
        f"real {1000 * result['kid_floor']:.1f} +- {1000 * result['kid_floor_std']:.1f} "
        f"({result['evaluation_network']}, {result['n_synthetic']} synthetic, "
        f"{result['n_real']} held-out images)",
        f"precision {result['precision']:.2f}, recall {result['recall']:.2f}, density "
        f"{result['density']:.2f}, coverage {result['coverage']:.2f} "
        f"(real: {', '.join(f'{value:.2f}' for value in result['floor'].values())})",
        f"memorisation: {copies}",
        f"drift: {', '.join(drifting) or 'none'}",
        *(texture.words(record.texture) if record.texture else []),
        *([membership.words(record.membership)] if record.membership else []),
        *_told(result),
        f"{target / records.HEADER}, {target / records.PAGE}",
    ]
    if result["independent"] is False:
        found.insert(1, "the discriminator saw features akin to these: choose --network diagnosis")
    if result["kid_other"] is not None:
        other = f"{1000 * result['kid_other']:.1f} +- {1000 * result['kid_other_std']:.1f}"
        found.insert(1, f"KID x1000 {other} by {result['evaluation_network_other']}")
    return found


def _told(result: dict[str, Any]) -> list[str]:
    """The shortcut audit and what the quality gate found, a line each."""
    lines, audit = [], result["audit"]
    if audit["missing"] is None:
        synthetic, blurred, real = (audit[kind] for kind in ("synthetic", "blurred", "real"))
        lines.append(
            f"told from real images by a small network: AUC {synthetic['auc']:.2f} "
            f"[{synthetic['low']:.2f}, {synthetic['high']:.2f}] (blurred real {blurred['auc']:.2f},"
            f" real against real {real['auc']:.2f})"
        )
    lines += [f"not checked: {sentence}" for sentence in result["quality"]["not_checked"]]
    found = [
        f"{one['severity'].upper()} {one['code']}: {one['sentence']}"
        for one in result["quality"]["findings"]
    ]
    return [*lines, *(found or ["quality gate: nothing found"])]
