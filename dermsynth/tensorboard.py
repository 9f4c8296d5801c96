"""A run as event files for TensorBoard, in `folder/tensorboard`: scalars, pictures, tables as text.

Curves, pages and content ids have no place there; ROC curves lie in the run's `plots/` anyway.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from dermsynth.manifest import Identity
from dermsynth.tracked import Named

if TYPE_CHECKING:
    from dermsynth.tracking import Cell, Figures, Line

FOLDER = "tensorboard"


class TensorBoard:
    """The event files of one run; a resumed run takes its steps after `resume_step` back."""

    def __init__(self, folder: Path, run: Named, resume_step: int | None) -> None:
        place = folder / FOLDER
        if resume_step is None:
            shutil.rmtree(place, ignore_errors=True)
        purge = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(place), purge_step=purge)
        self._last = resume_step or 0
        about = {"name": run.name, "job": run.job, "group": run.group} | dict(run.config)
        self._writer.add_text("config", _as_table(("option", "value"), list(about.items())))

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Figures of a step."""
        self._last = step
        for name, value in values.items():
            if _is_number(value):
                self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, picture: Path | np.ndarray) -> None:
        """A picture that lies on disk, or uint8 [h, w, 3]."""
        if isinstance(picture, Path):
            with Image.open(picture) as opened:
                pixels = np.asarray(opened.convert("RGB"))
        else:
            pixels = picture
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def summary(self, values: "Figures") -> None:
        """What the run came to, as a point behind the last one."""
        self.log(self._last + 1, {f"final/{name}": value for name, value in values.items()})

    def table(self, name: str, columns: Sequence[str], rows: "Sequence[Sequence[Cell]]") -> None:
        """A table as text; its pictures one by one."""
        plain = [at for at in range(len(columns)) if not any(_is_picture(row[at]) for row in rows)]
        words = [[row[at] for at in plain] for row in rows]
        self._writer.add_text(name, _as_table([columns[at] for at in plain], words))
        for number, row in enumerate(rows):
            for cell in row:
                if isinstance(cell, np.ndarray):
                    self._writer.add_image(f"{name}/{number}", cell, dataformats="HWC")

    def curves(
        self, part: str, target: np.ndarray, score: np.ndarray, at: float, words: tuple[str, str]
    ) -> None:
        """Precision and recall."""
        self._writer.add_pr_curve(f"{part}/pr", target, score)

    def lines(self, name: str, x: str, lines: "Mapping[str, Line]") -> None:
        """A table: TensorBoard's own x axes are whole steps."""
        points = [
            (word, *point) for word, line in lines.items() for point in zip(*line, strict=True)
        ]
        self.table(name, ["line", x, "y"], points)

    def page(self, name: str, path: Path) -> None:
        """Where the page lies: TensorBoard shows none."""
        self._writer.add_text(name, str(path.absolute()))

    def artifact(
        self, identity: Identity, made: bool, facts: "Figures", file: Path | None = None
    ) -> None:
        """A content id as text."""
        word = "made" if made else "used"
        self._writer.add_text(f"{word}/{identity.kind}", identity.id)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _is_picture(cell: Any) -> bool:
    return isinstance(cell, np.ndarray)


def _as_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("|" + "|".join(str(cell) for cell in line) + "|" for line in lines)
