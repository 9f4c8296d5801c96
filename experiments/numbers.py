"""Numbers as the report of an experiment writes them, and the names of its figures."""

import math
import re
from collections.abc import Sequence
from typing import Any

METRICS = {  # of paired.json, as the page calls them
    "average_precision": "average precision",
    "partial_auc_tpr80": "partial AUC, sensitivity ≥ 80%",
    "sensitivity_at_specificity_95": "sensitivity at the threshold for 95% specificity",
    "specificity_at_specificity_95": "specificity there",
    "sensitivity_at_sensitivity_95": "sensitivity at the threshold for 95% sensitivity",
    "specificity_at_sensitivity_95": "specificity there",
    "sensitivity_at_youden": "sensitivity at Youden's threshold",
    "specificity_at_youden": "specificity there",
    "brier": "Brier score (less is better)",
    "ece": "calibration error (less is better)",
}
GAN_FIGURES = {  # keys of evaluation.json: name, how to read it
    "kid": ("KID × 1000", "distance to held-out real images; lower is better"),
    "kid_floor": ("KID × 1000, real against real", "what real images score: the floor"),
    "precision": ("precision", "share of synthetic images that lie among real ones"),
    "recall": ("recall", "share of real images that lie among synthetic ones"),
    "density": ("density", "how deep synthetic images lie among real ones; 1 is as real ones"),
    "coverage": ("coverage", "share of real images with a synthetic neighbour"),
    "memorisation": (
        "memorisation",
        "nearest-neighbour distance to training over held-out images, as a multiple of what "
        "held-out images show: 1 is chance, 0 copies",
    ),
    "memorisation_in": ("memorisation, in detail", "near copies: closer than any held-out image"),
    "audit": (
        "told from real images, AUC",
        "by a small network that looks at texture, tested on unseen images; beside it what "
        "blurred real images and real ones give. A classifier can learn the same shortcut",
    ),
    "quality": ("quality gate", "what is wrong with the images"),
    "evaluation_network": ("evaluation network", "shares nothing with the discriminator"),
    "n_real": ("real images", ""),
    "n_synthetic": ("synthetic images", ""),
}
POINTS = {  # thresholds, each chosen by a model on its validation images
    "sensitivity_95": "95% sensitivity on validation",
    "specificity_95": "95% specificity on validation",
    "youden": "Youden's index on validation",
}


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    """`0.871`, with `sign` `+0.003` and a true minus; an en dash where there is no value."""
    if _missing(value):
        return "–"
    return typographic(f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}")


def interval(low: Any, high: Any, sign: bool = True) -> str:
    """`[−0.008, +0.014]`."""
    if _missing(low) or _missing(high):
        return "–"
    return f"[{number(low, sign=sign)}, {number(high, sign=sign)}]"


def p_value(value: Any) -> str:
    """Three decimals, `<0.001` below."""
    return "<0.001" if not _missing(value) and value < 0.001 else number(value)


def percent(value: Any) -> str:
    """A share as `12.4%`."""
    return "–" if _missing(value) else f"{100 * value:.1f}%"


def spanned(rate: dict[str, Any], digits: int = 3, scale: float = 1) -> str:
    """A RateRecord as `0.871 [0.801, 0.922]`, each times `scale`."""
    value, low, high = (
        None if _missing(rate[key]) else scale * rate[key] for key in ("value", "low", "high")
    )
    if value is None:
        return "–"
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def count(value: Any) -> str:
    """`7,470`."""
    return "–" if _missing(value) else f"{value:,}"


def duration(seconds: Any) -> str:
    """`42 s`, `3 min 20 s`, `1 h 05 min`."""
    if _missing(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def typographic(text: str) -> str:
    """ASCII arrows and minus signs as the page shows them."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "−", text.replace(" -> ", " → "))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of a page in docs/ or of a W&B report."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def gan_figure(key: str, evaluation: dict[str, Any] | None) -> str:
    """One cell of the generator table: KID in thousandths, others with what real images score."""
    figures = evaluation or {}
    value: Any = figures.get(key)
    if _missing(value):
        return "–"
    if key in ("kid", "kid_floor"):
        spread: Any = figures.get(f"{key}_std")
        return number(1000 * value, 1) + ("" if _missing(spread) else f" ± {1000 * spread:.1f}")
    if key == "memorisation":
        words = {True: ", copies of training images", False: ", no copying seen", None: ""}
        return number(value, 2) + words[figures.get("memorisation_flagged")]
    if key == "memorisation_in":
        return "; ".join(
            f"{space} {number(part['ratio'], 2)}, near copies {part['near_copies']:.1%}"
            for space, part in value.items()
        )
    if key == "audit":
        if all(_missing(value[kind]["auc"]) for kind in ("synthetic", "blurred", "real")):
            return "not measured"
        aucs = (number(value[kind]["auc"], 2) for kind in ("synthetic", "blurred", "real"))
        return "{} (blurred {}, real {})".format(*aucs)
    if key == "quality":
        faults = (f"{one['code']} ({one['severity']})" for one in value["findings"])
        return ", ".join(faults) or "nothing found"
    if key in (figures.get("floor") or {}):
        return f"{number(value, 2)} (real {number(figures['floor'][key], 2)})"
    return number(value, 2) if isinstance(value, float) else str(value)


def pool_word(pool: dict[str, Any]) -> str:
    """A pool in a column's head: `default, fold 0, seed 1`."""
    name = pool["run"].rsplit("/", 1)[-1]
    seed = "" if pool["seed"] is None else f", seed {pool['seed']}"
    return f"{name.split('-fold')[0]}, fold {pool['fold']}{seed}"
