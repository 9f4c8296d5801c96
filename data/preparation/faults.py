"""What is wrong with single rows and files: one error for all of them, or a list of the skipped."""

from collections import Counter
from pathlib import Path
from typing import Literal

import pandas as pd

from data.images.files import Encoded, escaped
from data.sources.listing import Fault
from dermsynth.errors import UserError, counted
from dermsynth.files import write_text

SHOWN = 10  # faults that an error tells one by one


def judge(
    faults: list[Fault], total: int, roots: tuple[Path, ...], on_error: Literal["fail", "skip"]
) -> None:
    """Raise UserError with the first ten faults and their number, unless they are to be skipped.

    `total` is the number of rows; where every one is at fault, skipping them helps nobody.
    """
    if not faults or (on_error == "skip" and len(faults) < total):
        return
    lines = [f"\n  {count:,} {reason}" for reason, count in _count(faults).most_common()]
    first = [
        f"\n  {fault.image_id or '(no image id)'}: {in_short(fault.reason)}"
        + (f" ({fault.where})" if fault.where else "")
        for fault in faults[:SHOWN]
    ]
    rest = f"\n  and {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else ""
    where = " or ".join(f"below {root}" for root in roots)
    skip = "" if len(faults) >= total else ", or leave them out with --on-error skip"
    raise UserError(
        f"{len(faults):,} of {counted(total, 'image')} cannot be used:{''.join(lines)}\n"
        f"the first {min(SHOWN, len(faults))}:{''.join(first)}{rest}\n"
        f"bring the files {where}, or mend them there or their rows in the table{skip}"
    )


def reasons(faults: list[Fault]) -> dict[str, list[str]]:
    """Image ids by reason, the most frequent first."""
    return {
        reason: [fault.image_id or fault.where for fault in faults if fault.reason == reason]
        for reason, _ in _count(faults).most_common()
    }


def in_short(reason: str) -> str:
    """A reason without how to mend it."""
    return reason.partition(";")[0]


def unreadable(
    bad: dict[int, str], names: list[str], files: list[Encoded | None], roots: tuple[Path, ...]
) -> list[Fault]:
    """What decoding found: `bad` is the reason of each row."""
    faults = []
    for row, reason in bad.items():
        path = files[row].path
        root = next((root for root in roots if path.is_relative_to(root)), None)
        where = escaped(path.relative_to(root) if root else path)
        faults.append(Fault(names[row], where, reason))
    return faults


def save_skipped(folder: Path, faults: list[Fault]) -> None:
    """Write skipped.csv (image_id, where, reason) unless nothing was skipped."""
    if faults:
        table = pd.DataFrame(map(vars, faults), columns=["image_id", "where", "reason"])
        write_text(folder / "skipped.csv", table.to_csv(index=False))


def _count(faults: list[Fault]) -> Counter[str]:
    return Counter(fault.reason for fault in faults)
