"""How many extra malignant images a mix needs."""

from typing import Literal

from runtime.errors import UserError


def parse_share(option: str, text: str) -> float | Literal["balanced"]:
    """`0.3` or `balanced`. Raises UserError unless 0 <= share < 1; `option` names the culprit."""
    if text == "balanced":
        return "balanced"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(
            f"{option} {text}: expected a share of the final training set, 0 <= share < 1 "
            "(0.3: three images in ten are extra), or `balanced`"
        )
    return share


def extra_count(n_benign: int, n_malignant: int, share: float | Literal["balanced"]) -> int:
    """Extra malignant images to add to the real ones, none of which is ever dropped.

    A share s of the final set means n_extra = s / (1 - s) * n_real; `balanced` evens the classes.
    """
    if share == "balanced":
        return max(0, n_benign - n_malignant)
    return round(share / (1 - share) * (n_benign + n_malignant))
