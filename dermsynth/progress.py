"""Progress bars with rate and time left; on a terminal they move, in a log they are a few lines."""

from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

from dermsynth.screen import raw_stderr

LOG_SECONDS = 30  # between two lines where the output is not a terminal
LOG_LINE = (
    "{desc}: {percentage:3.0f}%, {n_fmt} of {total_fmt} {unit}, {elapsed} gone, {remaining} left, "
    "{rate_fmt}{postfix}"
)


class Lines(tqdm):
    """A bar for a file: every state is a line of its own, without control characters."""

    disable: bool

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """What tqdm calls to show a state."""

        def show(state: str) -> None:
            if state:
                file.write(state + "\n")
                file.flush()

        return show

    def moveto(self, n: int) -> None:
        """Nothing: there is no cursor."""

    def close(self) -> None:
        """The last state, without the control characters by which a moving bar ends."""
        if self.disable:
            return
        if self.n != self.last_print_n:
            self.display()
        self.disable = True
        self._decr_instances(self)


def bar(total: float | None, description: str, unit: str, **options: Any) -> tqdm:
    """A tqdm bar on stderr: `bar.update(n)`, `bar.set_postfix(...)`, `bar.close()`."""
    file = raw_stderr()
    terminal = file.isatty()
    if not terminal:
        options.setdefault("bar_format", LOG_LINE if total else None)
    return (tqdm if terminal else Lines)(
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
