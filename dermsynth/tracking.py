"""What a run measured: `metrics.jsonl` always, Weights & Biases beside it.

`auto` sends to W&B where an API key is configured and works offline otherwise; how the environment
has a say, and what a resumed run sends, is in `dermsynth.weights_and_biases`.
"""

from pathlib import Path
from typing import Any

from dermsynth import files
from dermsynth.options import TrackingMode
from dermsynth.rows import as_lines, read_rows
from dermsynth.weights_and_biases import start


class Tracker:
    """Rows of scalars, each with a `step`, to `folder/metrics.jsonl` and to W&B.

    `resume_step` drops the rows after that step (they were written after the checkpoint that the
    run resumes from), so that a resumed file equals an unbroken one. Lines that are damaged are
    dropped too, and counted in a warning. Raises OSError where the file cannot be written; what
    fails at W&B ends no run.
    """

    def __init__(
        self,
        folder: Path,
        mode: TrackingMode,
        config: dict[str, Any],
        group: str,
        resume_step: int | None = None,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        last = -1 if resume_step is None else resume_step
        rows, damaged = read_rows(self.path, last) if last >= 0 else ([], 0)
        if damaged:
            print(f"warning: {self.path}: {damaged} damaged line(s) dropped")
        files.write_text(self.path, as_lines(rows))
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed in close()
        self._run = start(folder, mode, config, group, rows, resume_step)

    def log(self, step: int, **values: float | int | str) -> None:
        """Append one row; it is on disk when this returns."""
        self._file.write(as_lines([{"step": step, **values}]))
        self._file.flush()
        if self._run is not None:
            self._run.log(step, values)

    def image(self, step: int, name: str, path: Path) -> None:
        """Send a picture that lies on disk to W&B."""
        if self._run is not None:
            self._run.image(step, name, path)

    def close(self) -> None:
        """Finish the W&B run. Nothing is lost without it but W&B's closing line."""
        self._file.close()
        if self._run is not None:
            self._run.close()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
