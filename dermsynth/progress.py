"""Progress bars with rate and time left; on a terminal they move, in a log they are a few lines."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

from dermsynth.ranks import is_rank0
from dermsynth.screen import raw_stderr

LATE = 2.0  # seconds after which work that is mostly quick is shown
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
    """A tqdm bar on stderr: `bar.update(n)`, `bar.set_postfix(...)`, `bar.close()`.

    Of several processes that train one network rank 0 shows it.
    """
    file = raw_stderr()
    options.setdefault("disable", not is_rank0())
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


@contextlib.contextmanager
def late(total: int, description: str, unit: str) -> Iterator[tqdm]:
    """A `bar` for a terminal, shown only where its block takes more than LATE seconds.

    It is shown from then on, also where nothing is updated meanwhile.
    """
    shown = bar(total, description, unit, delay=LATE, disable=not _on_terminal())

    def show() -> None:
        shown.delay = 0
        shown.refresh()

    with _after(show), shown:
        yield shown


@contextlib.contextmanager
def waiting(description: str) -> Iterator[None]:
    """On a terminal a line says what is waited for, where the block takes over LATE seconds."""

    def show() -> None:
        print(f"{description} ...", file=raw_stderr(), flush=True)

    with _after(show) if _on_terminal() else contextlib.nullcontext():
        yield


def _on_terminal() -> bool:
    return raw_stderr().isatty() and is_rank0()


@contextlib.contextmanager
def _after(what: Callable[[], None]) -> Iterator[None]:
    """Do something after LATE seconds unless the block ends before."""
    timer = threading.Timer(LATE, what)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
