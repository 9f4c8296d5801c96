"""What is printed is shown and never obeyed: control characters in a file's name, say."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}
del CONTROLS[ord("\n")], CONTROLS[ord("\t")]


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

    def write(self, text: str) -> int:
        """Write, and return the length of `text`. Raises ReaderGoneError where nobody reads."""
        encoding = self.raw.encoding or "utf-8"
        shown = visible(text).encode(encoding, "backslashreplace").decode(encoding)
        try:
            self.raw.write(shown)
        except BrokenPipeError:
            raise ReaderGoneError from None
        return len(text)

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


def raw_stderr() -> TextIO:
    """stderr itself, for a progress bar, which moves by control characters."""
    stream: Any = sys.stderr
    return cast(TextIO, stream.raw if isinstance(stream, Screen) else stream)
