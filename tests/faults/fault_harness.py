"""The fault harness: commands run in forked processes that are killed, starved or fed with damage.

Every fault that was injected is counted: it gave the same result as without it, or one line and
exit code 2, or it is a failure. `FAULTS=all`, or a number, tries every step, or so many, instead of
a small sample. `FAULTS_JSON=FILE` writes the counts, which docs/measurements/faults.md shows.
"""

import errno
import importlib
import os
import runpy
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dermsynth import manifest

STEPS = ("replace", "rename", "mkdir", "unlink", "remove", "rmdir", "fsync")
SAMPLE = 6  # steps of a command at which a fault is injected, unless FAULTS=all or a number
LIMIT = 900  # seconds a command may take
SAME, REFUSED, FAILED = "same result", "one line, exit 2", "failed"


@dataclass
class Outcome:
    """How a command ended."""

    code: int  # negative: by a signal
    output: str
    steps: int = 0  # calls of STEPS

    @property
    def is_one_line(self) -> bool:
        """Exit code 2, an error that names the mend in its own words, no traceback."""
        said = self.output.count("error:")  # it may stand behind a progress bar
        return self.code == 2 and said == 1 and "Traceback" not in self.output

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.output[-2000:]}"


Hook = Callable[[str, int], None]  # called with a step's name and its number, counted from 1


def kill_at(number: int) -> Hook:
    """SIGKILL before the step of this number."""

    def hook(name: str, count: int) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def full_disk_at(number: int) -> Hook:
    """From the step of this number on, every new folder and every flush finds the disk full."""

    def hook(name: str, count: int) -> None:
        if count >= number and name in ("fsync", "mkdir"):
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    return hook


def stop_at(number: int, which: int) -> Hook:
    """A signal before the step of this number."""

    def hook(name: str, count: int) -> None:
        if count == number:
            os.kill(os.getpid(), which)

    return hook


def run(
    words: list[str], cwd: Path, hook: Hook | None = None, before: Callable[[], None] | None = None
) -> Outcome:
    """Run `python -m WORDS` in a forked process. `before` is called in it first."""
    counted = cwd / ".harness.steps"
    counted.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()  # a file could not grow where files may not
    pid = os.fork()
    if pid == 0:
        _child(words, cwd, writing, counted, hook, before)
    os.close(writing)
    said: list[bytes] = []
    listener = threading.Thread(target=_listen, args=(reading, said))
    listener.start()
    end = time.monotonic() + LIMIT
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            listener.join()
            return Outcome(-999, f"ran for more than {LIMIT} s\n{_text(said)}")
        time.sleep(0.02)
    listener.join()
    steps = int(counted.read_text()) if counted.exists() else 0
    return Outcome(os.waitstatus_to_exitcode(status), _text(said), steps)


def preload() -> None:
    """Import what takes seconds here, once, and not in every process that is forked."""
    for name in (
        *("data.preparation.images", "data.preparation.phantom", "data.preparation.pool"),
        *("data.card.page", "gan.training_run", "gan.evaluation.scoring", "gan.exploration"),
        *("classifier.training.run", "classifier.evaluation.page", "experiments.steps"),
        *("classifier.evaluation.members", "classifier.training.metadata_models"),
    ):
        importlib.import_module(name)


def _listen(reading: int, said: list[bytes]) -> None:
    """Read a pipe to its end, which comes when all that write to it have ended."""
    with open(reading, "rb") as pipe:
        said.extend(iter(lambda: pipe.read1(65536), b""))


def _text(said: list[bytes]) -> str:
    return b"".join(said).decode(errors="replace").replace("\r", "\n")


def _child(
    words: list[str],
    cwd: Path,
    writing: int,
    counted: Path,
    hook: Hook | None,
    before: Callable[[], None] | None,
) -> None:
    code = 99
    try:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - ends with the process
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        os.chdir(cwd)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        warnings.simplefilter("ignore")
        steps = _count_steps(hook)
        if before is not None:
            before()
        sys.argv = [words[0], *words[1:]]
        try:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        counted.write_text(str(steps[0]))
    except BaseException:
        traceback.print_exc()
    finally:  # whatever happens, this process never returns into the tests
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _count_steps(hook: Hook | None) -> list[int]:
    """Wrap the calls of STEPS; the count so far is in the list."""
    count = [0]

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            if name == "fsync" or not _is_elsewhere(args[0]):
                count[0] += 1
                if hook is not None:
                    hook(name, count[0])
            return real(*args, **kwargs)

        setattr(os, name, call)

    for name in STEPS:
        wrap(name)
    return count


def _is_elsewhere(path: object) -> bool:
    """Temporary files of libraries are not ours to count."""
    return (
        isinstance(path, str | Path) and str(path).startswith("/tmp/") and "pytest" not in str(path)
    )


def identity(folder: Path) -> str | None:
    """Content id of a finished folder; None where there is none."""
    if not (folder / manifest.NAME).exists():
        return None
    made = manifest.read_manifest(folder, "")
    return made.id if made.finished else None


def sampled(count: int) -> list[int]:
    """Step numbers 1..count at which a fault is tried."""
    asked = os.environ.get("FAULTS", str(SAMPLE))
    number = count if asked == "all" else int(asked)
    if count <= number:
        return list(range(1, count + 1))
    return sorted({round(1 + i * (count - 1) / (number - 1)) for i in range(number)})


@dataclass
class Table:
    """Faults injected, by fault and outcome."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, fault: str, outcome: str, words: str = "") -> None:
        """Count one fault."""
        self.counts.setdefault(fault, Counter())[outcome] += 1
        if outcome == FAILED:
            self.failures.append(f"{fault}: {words}")

    def check(self) -> None:
        """Fail the test where a fault had a consequence that it must not have."""
        failures, self.failures = self.failures, []
        assert not failures, "\n\n".join(failures)


TABLE = Table()
