"""What is printed is shown and never obeyed: control characters in a file's name, say.

On a terminal some lines have a colour, by how they begin; with NO_COLOR, and in a file, none has.
"""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from dermsynth.ranks import is_rank0

if TYPE_CHECKING:
    from rich.style import Style

CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}
del CONTROLS[ord("\n")], CONTROLS[ord("\t")]
QUIET = 2.0  # seconds without a word after which a terminal is told that libraries are loaded
STYLES = {  # of lines that begin with the word, as rich names them
    "error:": "bold red",
    "interrupted": "yellow",
    "warning:": "yellow",
    "Warning:": "yellow",
    "smoke run:": "bold yellow",
    "LEAKY": "bold red",
    "note:": "dim",
    "next:": "cyan",
}
VERDICTS = {  # the first word of an experiment's verdict
    "Helps:": "bold green",
    "Hurts:": "bold red",
    "Equivalent:": "bold blue",
    "Inconclusive:": "bold yellow",
    "Undecidable:": "bold yellow",
    "Not valid:": "bold red",
    "No verdict:": "bold yellow",
}


def visible(text: str) -> str:
    r"""Text with its control characters as `\x1b`, but for line ends and tabs."""
    return text.translate(CONTROLS)


class Screen:
    r"""A text stream in front of another: control characters are written as `\x1b`.

    So is what its encoding has not (`\u2192`), and bytes of a file's name that are no UTF-8
    (`\udcff`). All else is the other stream's.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw
        self._styles = _styles_for(raw)
        self._style: Style | None = None  # of the line that is being written
        self._begins = True  # whether what is written next begins a line
        self.used = False  # whether anything was written

    def write(self, text: str) -> int:
        """Write, and return the length of `text`. Raises ReaderGoneError where nobody reads."""
        encoding = self.raw.encoding or "utf-8"
        shown = visible(text).encode(encoding, "backslashreplace").decode(encoding)
        self.used = True
        try:
            self.raw.write(self._styled(shown) if self._styles else shown)
        except BrokenPipeError:
            raise ReaderGoneError from None
        return len(text)

    def _styled(self, text: str) -> str:
        """Each line in its colour, also where it is written in pieces."""
        from rich.color import ColorSystem

        done = []
        for line in re.findall(r"[^\n]+|\n", text):
            if line == "\n":
                self._begins, self._style = True, None
            elif self._begins:
                own = (style for word, style in self._styles.items() if line.startswith(word))
                self._begins, self._style = False, next(own, None)
            if self._style is not None:
                line = self._style.render(line, color_system=ColorSystem.STANDARD)
            done.append(line)
        return "".join(done)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As `write`."""
        try:
            self.raw.flush()
        except BrokenPipeError:
            raise ReaderGoneError from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class ReaderGoneError(BrokenPipeError):
    """Whoever read what is printed has ended, such as `| head`."""


@contextlib.contextmanager
def screens() -> Iterator[None]:
    """Within the block stdout and stderr are `Screen`s."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Screen(before[0]), Screen(before[1])  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """In the block a terminal on which nothing has been shown after a while is told why."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, Screen)]
    raw = streams[-1].raw if streams else sys.stderr

    def show() -> None:
        if not any(stream.used for stream in streams):
            print("loading ...", file=raw, flush=True)

    timer = threading.Timer(QUIET, show)
    timer.daemon = True
    if raw.isatty() and is_rank0():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _styles_for(raw: TextIO) -> "dict[str, Style]":
    """How lines look in a stream: empty where it is no terminal, or none that has colours."""
    if not raw.isatty() or os.environ.get("NO_COLOR"):
        return {}
    from rich.console import Console  # here: most of what runs is no terminal
    from rich.style import Style

    if Console(file=raw).color_system is None:
        return {}
    return {word: Style.parse(style) for word, style in (STYLES | VERDICTS).items()}


def raw_stderr() -> TextIO:
    """stderr itself, for a progress bar, which moves by control characters."""
    stream: Any = sys.stderr
    if not isinstance(stream, Screen):
        return cast(TextIO, stream)
    stream.used = True
    return stream.raw
