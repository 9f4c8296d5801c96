"""Tasks one after another or side by side: in what order, what fails, how long it still takes.

How a task is computed is an executor's business: in this process, in worker processes
(`experiments.executors.local`) or on a cluster (`experiments.executors.ray_cluster`).
"""

import contextlib
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dermsynth.errors import counted
from dermsynth.interrupts import StopRequest, stop_request
from dermsynth.leaving import DISK_FULL
from dermsynth.progress import bar

if TYPE_CHECKING:
    from experiments.tasks import Task

LOGS = "logs"
ATTEMPTS = 2  # a failed task is tried once more
LONGEST = 300  # characters of a reason

Run = Callable[["Task", Path, Any], None]  # computes a task in the experiment's folder, or raises


@dataclass(frozen=True)
class Ended:
    """A task that has ended, well or not."""

    task: str
    seconds: float = 0.0  # that it took
    reason: str | None = None  # in a line why it failed; None: it is done
    full_disk: bool = False


@dataclass(frozen=True)
class Failure:
    """A task that could not be done."""

    task: str
    log: str  # its log, a path in the experiment's folder; of what it needs where that failed
    reason: str  # in a line


class Executor(Protocol):
    """Computes tasks. Used in a `with` block; what runs at its end is stopped, to be resumed."""

    side_by_side: int  # tasks that can be computed at the same time
    here: bool  # whether tasks are computed in this process, where Ctrl-C reaches them

    def has_room(self) -> bool:
        """Whether another task may be started now."""

    def start(self, task: "Task") -> None:
        """Begin with a task."""

    def wait(self) -> list[Ended]:
        """What has ended since; empty after about a second in which nothing has."""

    def close(self) -> None:
        """End, and stop what still runs."""


class ThisProcess:
    """One task after another, here; Ctrl-C reaches it, its progress bars are shown."""

    side_by_side = 1
    here = True

    def __init__(self, out: Path, run: Run, cache: Any = None) -> None:
        """`cache` is handed to every task (FeatureCache)."""
        self.out, self.run, self.cache = out, run, cache
        self._next: Task | None = None

    def has_room(self) -> bool:
        """As of `Executor`."""
        return self._next is None

    def start(self, task: "Task") -> None:
        """As of `Executor`."""
        self._next = task

    def wait(self) -> list[Ended]:
        """As of `Executor`; computes."""
        task, self._next = self._next, None
        return [attempt(task, self.out, self.run, self.cache)] if task else []

    def close(self) -> None:
        """As of `Executor`."""


def execute(
    tasks: Sequence["Task"],
    executor: Executor,
    settled: Callable[["Task"], str | None] = lambda task: None,
    on_done: Callable[["Task"], None] = lambda task: None,
) -> list[Failure]:
    """Compute tasks, each after those that it needs; returns what could not be done.

    A task that fails is tried once more, after others. What needs a failed one is left out, all
    else is done. Raises OSError where the disk is full, KeyboardInterrupt where the user stops it.

    Parameters
    ----------
    tasks : each behind those that it needs; the first ones begin first
    executor : computes them, and is closed at the end
    settled : asked before a task begins: why nothing is left to do, to be said where it is not
        empty; None: it is to be computed
    on_done : called in this process after a task was computed
    """
    schedule = Schedule(tasks)
    # Of tasks elsewhere a handler that raises would do for the first Ctrl-C, but what is raised in
    # a callback of the garbage collector is lost; a request is not.
    stopping = contextlib.nullcontext(StopRequest()) if executor.here else stop_request()
    shown = Progress(len(tasks), executor.side_by_side)
    with stopping as stop, contextlib.closing(executor), shown as progress:
        while schedule.is_open:
            if stop.requested:
                raise KeyboardInterrupt
            while executor.has_room() and (task := schedule.next()) is not None:
                if (why := settled(task)) is not None:
                    schedule.done(task)
                    progress.done(task, None, why)
                else:
                    progress.begin(task, schedule)
                    executor.start(task)
            for ended in executor.wait() if schedule.running else ():
                task = schedule.running[ended.task]
                if ended.full_disk:
                    raise OSError(DISK_FULL[0], os.strerror(DISK_FULL[0]), ended.reason)
                if ended.reason is None:
                    on_done(task)
                    schedule.done(task)
                    progress.done(task, ended.seconds)
                else:
                    progress.say(schedule.failed(task, ended.reason))
            progress.show(schedule)
    return schedule.failures


class Schedule:
    """What waits, runs, is done and failed."""

    def __init__(self, tasks: Sequence["Task"]) -> None:
        self.waiting = {task.name: task for task in tasks}  # in their order
        self.running: dict[str, Task] = {}
        self.failures: list[Failure] = []
        self._done: set[str] = set()
        self._made: set[Any] = {None}  # what others would have waited for
        self._tried: Counter[str] = Counter()
        unknown = {need for task in tasks for need in task.needs} - self.waiting.keys()
        if unknown or len(self.waiting) < len(tasks):
            raise ValueError(f"needed and not there, or twice: {sorted(unknown)}")

    @property
    def is_open(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.waiting or self.running)

    @property
    def left(self) -> list["Task"]:
        """What waits or runs."""
        return [*self.waiting.values(), *self.running.values()]

    def next(self) -> "Task | None":
        """The first task that has all that it needs, which runs from now on.

        One that would wait in a worker for what a running one makes comes behind all that would
        not: two generators of a fold need the same network, which takes a core six minutes.
        """
        able = [task for task in self.waiting.values() if self._done.issuperset(task.needs)]
        making = {task.awaits for task in self.running.values()} - self._made
        task = min(able, key=lambda one: one.awaits in making, default=None)
        if task is not None:
            self.running[task.name] = self.waiting.pop(task.name)
        return task

    def done(self, task: "Task") -> None:
        """It ended well."""
        del self.running[task.name]
        self._done.add(task.name)
        self._made.add(task.awaits)

    def failed(self, task: "Task", reason: str) -> str:
        """It did not: it comes once more, behind all others, or is given up. Says which."""
        del self.running[task.name]
        self._tried[task.name] += 1
        log = log_name(task.name)
        if self._tried[task.name] < ATTEMPTS:
            self.waiting[task.name] = task
            return f"{task.name}: failed, is tried once more: {reason} ({log})"
        self.failures.append(Failure(task.name, log, reason))
        dropped = self._drop_what_needs(task.name, log)
        without = (
            f"; {counted(dropped, 'task')} that {'needs' if dropped == 1 else 'need'} it left out"
            if dropped
            else ""
        )
        return f"{task.name}: failed twice, left out: {reason} ({log}){without}"

    def _drop_what_needs(self, name: str, log: str) -> int:
        gone, reason = {name}, f"needs {name}, which failed"
        for task in list(self.waiting.values()):  # each behind what it needs, but for second tries
            if gone.intersection(task.needs):
                gone.add(task.name)
                del self.waiting[task.name]
                self.failures.append(Failure(task.name, log, reason))
        return len(gone) - 1


class Progress:
    """How far it is. One line that moves, or with one task at a time a line before each."""

    def __init__(self, total: int, side_by_side: int) -> None:
        self.total, self.side_by_side = total, side_by_side
        self._count = 0
        self._seconds: dict[str, list[float]] = {}  # that tasks took, by kind
        shape = "{desc}: {n_fmt}/{total_fmt} {bar} {elapsed}, {rate_fmt}{postfix}"
        # miniters: while tasks of half an hour run its clock goes on; smoothing: a mean rate
        shown = {"bar_format": shape, "miniters": 0, "smoothing": 0}
        self._bar = bar(total, "tasks", "task", **shown) if side_by_side > 1 else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def begin(self, task: "Task", schedule: Schedule) -> None:
        """A task begins."""
        if self._bar is None:
            self.say(f"[{self._count + 1}/{self.total}] {task.name}{self._left(schedule)}")

    def done(self, task: "Task", seconds: float | None, why: str = "") -> None:
        """A task is done, after so many seconds; None: nothing was left to do, `why` says it."""
        self._count += 1
        if seconds is not None:
            self._seconds.setdefault(task.kind, []).append(seconds)
        if why:
            self.say(why)
        if self._bar is not None:
            self._bar.initial += seconds is None  # what was there says nothing of the rate
            self._bar.update(1)

    def say(self, line: str) -> None:
        """A line on the screen, beside the one that moves."""
        with self._bar.external_write_mode() if self._bar else contextlib.nullcontext():
            print(line, flush=True)

    def show(self, schedule: Schedule) -> None:
        """Bring the line up to date."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._left(schedule).removeprefix(", "), refresh=False)
            self._bar.update(0)

    def _left(self, schedule: Schedule) -> str:
        """The time left in words; empty while a kind of task is left of which none was done."""
        kinds = Counter(task.kind for task in schedule.left)
        if not kinds or not self._seconds.keys() >= kinds.keys():
            return ""
        means = {kind: sum(took) / len(took) for kind, took in self._seconds.items()}
        seconds = sum(count * means[kind] for kind, count in kinds.items()) / self.side_by_side
        return f", about {seconds / 60:.0f} min left" if seconds > 90 else ", about a minute left"


# --- a task where it is computed -----------------------------------------------------------------


def attempt(task: "Task", out: Path, run: Run, cache: Any) -> Ended:
    """Compute a task. What goes wrong is written to its log and returned, but for an interrupt."""
    began = time.monotonic()
    try:
        run(task, out, cache)
    except (Exception, SystemExit) as error:
        with contextlib.suppress(OSError), open(log_path(out, task.name), "a") as log:
            traceback.print_exception(error, file=log)
        took = time.monotonic() - began
        return Ended(task.name, took, in_a_line(error), is_full_disk(error))
    return Ended(task.name, time.monotonic() - began)


def in_a_line(error: BaseException) -> str:
    """What an error says."""
    words = " ".join(str(error).split())[:LONGEST]
    name = type(error).__name__
    return words if name == "UserError" else f"{name}: {words}" if words else name


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that there is no room on a disk."""
    number = error.errno if isinstance(error, OSError) else None
    return number in DISK_FULL or "No space left" in str(error)


def log_name(task: str) -> str:
    """A task's log in the experiment's folder."""
    return f"{LOGS}/{task}.log"


def log_path(out: Path, task: str) -> Path:
    """A task's log, in a folder that is there."""
    path = out / log_name(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Within the block all that this process prints, libraries too, goes to the end of a file."""
    before = [os.dup(number) for number in (1, 2)]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        _point_at(file, file)
        with contextlib.suppress(OSError):  # a full disk, which the task will meet
            print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
        yield
    finally:
        _point_at(*before)
        for descriptor in (file, *before):
            os.close(descriptor)


def _point_at(stdout: int, stderr: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
