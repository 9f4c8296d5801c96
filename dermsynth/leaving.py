"""How a command ends: the line that it says last, and its exit code."""

import contextlib
import errno
import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from dermsynth.errors import OtherProcessError, UserError
from dermsynth.options import flag, flat_hints
from dermsynth.ranks import is_rank0
from dermsynth.screen import ReaderGoneError, Screen, raw_stderr

UNEXPECTED, BAD_INPUT, INTERRUPTED, READER_GONE = 1, 2, 130, 128 + 13
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room, no quota, a limit on files
CANNOT_BE_MADE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EEXIST),  # a file where a folder is to be
)
MEMORY = ("accumulate", "batch", "size", "count", "patients", "replicates", "cache_gib", "workers")
VERSIONS = ("numpy", "torch", "torchvision", "timm", "pandas", "pyarrow", "scikit-learn", "tyro")
LONGEST = 300  # characters of an unexpected error on the screen; its report has all


def leave(error: BaseException, options_type: type) -> NoReturn:
    """End as what happened asks for, with one line on stderr; of several processes one says it."""
    if isinstance(error, ReaderGoneError):
        leave_quietly()
    line, code = verdict(error, options_type)
    if not _is_echo(error):
        say(line)
    sys.exit(code)


def _is_echo(error: BaseException) -> bool:
    """Whether rank 0 says the same: of a signal, of what others said, before they have met."""
    if is_rank0():
        return False
    if isinstance(error, OtherProcessError | KeyboardInterrupt):
        return True
    torch = sys.modules.get("torch")  # which is not waited for to say what is wrong
    return torch is None or not torch.distributed.is_initialized()


def leave_quietly() -> NoReturn:
    """End as a program does whose output nobody reads any more."""
    with contextlib.suppress(OSError, ValueError):  # Python writes what is left at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(READER_GONE)


def say(line: str) -> None:
    """A line on stderr, control characters shown."""
    with contextlib.suppress(OSError):
        Screen(raw_stderr()).write(f"{line}\n")


def verdict(error: BaseException, options_type: type) -> tuple[str, int]:
    """The line and the exit code; of what was not foreseen a report is written first."""
    if isinstance(error, UserError):
        return f"error: {error}", BAD_INPUT
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted{': ' + str(error) if str(error) else ''}", INTERRUPTED
    if isinstance(error, OtherProcessError):
        line = "another process of this run has ended, and so this one did"
        return f"error: {line}; the same command with --resume goes on from its checkpoint", 1
    where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
    number = error.errno if isinstance(error, OSError) else None
    if number in DISK_FULL or "No space left" in str(error):  # safetensors has an error of its own
        hint = "free some space or choose another --out; what was there before is untouched"
        return f"error: disk full while writing{where}: {hint}", BAD_INPUT
    if number in CANNOT_BE_MADE:
        assert isinstance(error, OSError)
        hint = "choose another --out, or change what this user may do there"
        return f"error:{where}: {error.strerror}; {hint}", BAD_INPUT
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"error: out of memory{_brief(str(error))}; {_less(options_type)}", BAD_INPUT
    return f"error: unexpected: {type(error).__name__}{_brief(str(error))}; {_report(error)}", 1


def _less(options_type: type) -> str:
    """What to ask less of."""
    flags = [flag(name) for name in MEMORY if name in flat_hints(options_type)]
    if not flags:
        return "close other programs, or take a machine with more memory"
    if flags[0] == "--accumulate":
        flags[0] = "raise --accumulate"
        return f"{flags[0]} or lower {', '.join(flags[1:])}"
    return f"lower {', '.join(flags)}"


def _brief(text: str) -> str:
    text = " ".join(text.split())
    return f": {text[:LONGEST]}" if text else ""


def _report(error: BaseException) -> str:
    """Write a report into the folder for temporary files; says where, or why there is none."""
    import platform  # imported here: they are needed once in a thousand runs
    import tempfile
    import traceback
    from importlib import metadata

    from dermsynth import __version__

    versions = [f"dermsynth {__version__}", f"Python {sys.version}", platform.platform()]
    for name in VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    parts = [shlex.join(sys.argv), "\n".join(versions), "".join(traceback.format_exception(error))]
    try:
        handle, path = tempfile.mkstemp(".txt", "dermsynth-")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n\n".join(parts))
    except OSError as failed:
        return f"no report could be written ({failed.strerror})"
    return f"a report is in {Path(path)}"
