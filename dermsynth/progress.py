"""Progress bars with rate and time left; on a terminal they move, in a log they are a few lines."""

from typing import Any

from tqdm import tqdm

from dermsynth.screen import raw_stderr

LOG_SECONDS = 30  # between two lines where the output is not a terminal


def bar(total: float | None, description: str, unit: str, **options: Any) -> tqdm:
    """A tqdm bar on stderr: `bar.update(n)`, `bar.set_postfix(...)`, `bar.close()`."""
    file = raw_stderr()
    terminal = file.isatty()
    return tqdm(
        file=file,
        total=total,
        desc=description,
        unit=unit,
        mininterval=0.2 if terminal else LOG_SECONDS,
        maxinterval=10 if terminal else LOG_SECONDS,
        dynamic_ncols=terminal,
        leave=True,
        **options,
    )
