"""What a run measured: `metrics.jsonl` always, Weights & Biases or TensorBoard beside it.

`auto` sends to W&B where an API key is configured and works offline otherwise; how the environment
has a say, and what a resumed run sends, is in `dermsynth.weights_and_biases`. Commands that train
nothing give a `Report`, those that train a `Tracker`, which is a report with rows.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, Protocol

import numpy as np

from dermsynth import files
from dermsynth.manifest import Identity
from dermsynth.options import TrackingMode
from dermsynth.rows import Row, as_lines, read_rows
from dermsynth.tracked import About, Named, named, sends_images
from dermsynth.wandb_modes import reason
from dermsynth.weights_and_biases import start

P = ParamSpec("P")
MOST_ROWS = 10_000  # of a table that is sent
SHEET = 6  # images a side of a pool's sample
Figures = Mapping[str, Any]
Line = tuple[Sequence[float], Sequence[float]]  # x and y of its points
Cell = str | float | int | bool | None | np.ndarray  # an array is a picture, uint8 [h, w, 3]


class Board(Protocol):
    """Where a run is tracked. What W&B does about it neither raises nor is waited for."""

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Figures of a step."""

    def image(self, step: int, name: str, picture: Path | np.ndarray) -> None:
        """A picture that lies on disk, or uint8 [h, w, 3]."""

    def summary(self, values: Figures) -> None:
        """What the run came to."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A table; arrays in it are pictures."""

    def curves(
        self, part: str, target: np.ndarray, score: np.ndarray, at: float, words: tuple[str, str]
    ) -> None:
        """ROC, precision and recall, and what the threshold `at` confuses."""

    def lines(self, name: str, x: str, lines: Mapping[str, Line]) -> None:
        """Lines by name; `x`: what they are drawn over."""

    def page(self, name: str, path: Path) -> None:
        """An HTML page that lies on disk."""

    def artifact(
        self, identity: Identity, made: bool, facts: Figures, file: Path | None = None
    ) -> None:
        """What the run made, or was made from."""

    def close(self) -> None:
        """Send what is left."""


def harmless(track: Callable[P, None]) -> Callable[P, None]:
    """What tells of finished work, so that no fault in it fails the command: it is said instead."""

    @functools.wraps(track)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            track(*args, **kwargs)
        except Exception as error:
            print(f"warning: not tracked ({reason(error)}); the results are there all the same")

    return attempt


def sheet(images: Any) -> np.ndarray:
    """The first images as one picture, SHEET a row: uint8 [n, s, s, 3] to [h, SHEET * s, 3].

    At most SHEET rows; what is left of the last one is white.
    """
    images = np.asarray(images[: SHEET**2])
    count, size = images.shape[:2]
    tall = -(-count // SHEET)
    tiles = np.full((tall * SHEET, size, size, 3), 255, np.uint8)
    tiles[:count] = images
    rows = tiles.reshape(tall, SHEET, size, size, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(tall * size, SHEET * size, 3)


class Report:
    """What a command that is done tells W&B or TensorBoard; without rows, and never resumed.

    Made when the results lie in `folder`, or in the folder's file `name`. What fails at W&B is
    said, and fails no command.
    """

    def __init__(self, folder: Path, mode: TrackingMode, about: About, name: str = "") -> None:
        self._board = _open(folder, mode, named(about, folder, name), (), None, once=True)
        self._use(about)

    def summary(self, **values: Any) -> None:
        """What the run came to; what is None is left out."""
        if self._board is not None:
            self._board.summary({key: value for key, value in values.items() if value is not None})

    def image(
        self, step: int, name: str, picture: Path | np.ndarray, of_lesions: bool = True
    ) -> None:
        """A picture that lies on disk, or uint8 [h, w, 3]."""
        if self._board is not None and (sends_images() or not of_lesions):
            self._board.image(step, name, picture)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A table, MOST_ROWS at most; arrays in it are pictures, of lesions."""
        if self._board is None:
            return
        if len(rows) > MOST_ROWS:
            print(f"note: table {name}: the first {MOST_ROWS:,} of {len(rows):,} rows are tracked")
        kept = list(range(len(columns)))
        if not sends_images():
            kept = [at for at in kept if not any(isinstance(row[at], np.ndarray) for row in rows)]
        rows = [[row[at] for at in kept] for row in rows[:MOST_ROWS]]
        self._board.table(name, [columns[at] for at in kept], rows)

    def curves(
        self, part: str, target: np.ndarray, score: np.ndarray, at: float, words: tuple[str, str]
    ) -> None:
        """ROC, precision and recall, and the confusion at a threshold, where both classes are.

        Parameters
        ----------
        part : the name of the images
        target, score : [n], 0 or 1 and a probability
        at : the threshold
        words : what targets 0 and 1 are called
        """
        if self._board is not None and len(np.unique(target)) == 2:
            self._board.curves(part, target, score, at, words)

    def lines(self, name: str, x: str, lines: Mapping[str, Line]) -> None:
        """Lines by name; `x`: what they are drawn over."""
        if self._board is not None:
            self._board.lines(name, x, lines)

    def page(self, name: str, path: Path) -> None:
        """An HTML page with pictures of lesions."""
        if self._board is not None and sends_images():
            self._board.page(name, path)

    def made(self, identity: Identity, file: Path | None = None, **facts: Any) -> None:
        """What this run made, by its content id; of its content nothing is sent but `file`."""
        if self._board is not None:
            self._board.artifact(identity, True, facts, file if sends_images() else None)

    def used(self, identity: Identity) -> None:
        """What this run was made from, beside what its `About` names."""
        if self._board is not None:
            self._board.artifact(identity, False, {})

    def close(self) -> None:
        """Finish; a second time does nothing."""
        if self._board is not None:
            self._board.close()
        self._board = None

    def _use(self, about: About) -> None:
        for source in about.inputs.values():
            self.used(source)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Tracker(Report):
    """Rows of scalars, each with a `step`, to `folder/metrics.jsonl` and to W&B.

    `resume_step` drops the rows after that step (they were written after the checkpoint that the
    run resumes from), so that a resumed file equals an unbroken one. Lines that are damaged are
    dropped too, and counted in a warning. Raises OSError where the file cannot be written; what
    fails at W&B ends no run.
    """

    def __init__(
        self, folder: Path, mode: TrackingMode, about: About, resume_step: int | None = None
    ) -> None:
        self.path = folder / "metrics.jsonl"
        last = -1 if resume_step is None else resume_step
        rows, damaged = read_rows(self.path, last) if last >= 0 else ([], 0)
        if damaged:
            print(f"warning: {self.path}: {damaged} damaged line(s) dropped")
        files.write_text(self.path, as_lines(rows))
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed in close()
        self._board = _open(folder, mode, named(about, folder), rows, resume_step)
        self._use(about)

    def log(self, step: int, **values: float | int | str) -> None:
        """Append one row; it is on disk when this returns."""
        self._write(step, values)
        if self._board is not None:
            self._board.log(step, values)

    def final(self, step: int, **values: float | int | str) -> None:
        """The last row: what the run came to. No point of a curve."""
        self._write(step, values)
        self.summary(**values)

    def close(self) -> None:
        """Finish the W&B run. Nothing is lost without it but W&B's closing line."""
        self._file.close()
        super().close()

    def __enter__(self) -> "Tracker":
        return self

    def _write(self, step: int, values: Mapping[str, Any]) -> None:
        self._file.write(as_lines([{"step": step, **values}]))
        self._file.flush()


def _open(
    folder: Path,
    mode: TrackingMode,
    run: Named,
    rows: Sequence[Row],
    resume_step: int | None,
    once: bool = False,
) -> Board | None:
    if mode == "tensorboard":
        from dermsynth.tensorboard import TensorBoard  # here: it loads torch

        return TensorBoard(folder, run, resume_step)
    return start(folder, mode, run, rows, resume_step, once)
