"""Worker processes on this machine: each with threads, a GPU or TPU chip and an output of its own.

A worker stays from one task to the next, so that what is slow to load is loaded once. It has a
session of its own, so that Ctrl-C reaches the runner alone, which then lets every worker write its
checkpoint; it ends with the runner's end of its pipe, however that ends.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from dermsynth.interrupts import terminate_as_interrupt
from dermsynth.machine import cores
from experiments.executors.memory import gib, memory_left, memory_of
from experiments.executors.running import LOGS, Ended, Run, attempt, log_path, logged

if TYPE_CHECKING:
    from experiments.tasks import Task

POLL = 1.0  # seconds between two looks at the workers' memory
GRACE = 120.0  # seconds that a worker has to write its checkpoint
# of libtpu: the process is alone, with the one chip that it sees
ONE_CHIP = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
FEATURES = ".features"  # in the experiment's folder: trunk features that workers share


@dataclass(frozen=True)
class Duty:
    """What a worker is told at its beginning."""

    out: Path
    run: Run
    cache_folder: Path | None  # shared trunk features; None: no cache


@dataclass
class Worker:
    """A worker process, as the runner sees it."""

    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    task: "Task | None" = None
    peak: int = field(default=0)  # bytes of memory that it took at most, seen so far


class LocalWorkers:
    """Up to `count` tasks side by side, each in a process."""

    here = False

    def __init__(
        self,
        out: Path,
        run: Run,
        count: int,
        gpus: Sequence[str] = (),
        features: bool = True,
        chips: Sequence[str] = (),
    ) -> None:
        """`gpus` as CUDA_VISIBLE_DEVICES names them, `chips` as TPU_VISIBLE_CHIPS does.

        Workers take them in turn; a chip cannot be shared.
        """
        self.side_by_side = count
        self.gpus, self.chips = gpus, chips
        self.duty = Duty(out, run, out / FEATURES if features else None)
        self._workers: dict[int, Worker] = {}

    def has_room(self) -> bool:
        """As of `Executor`."""
        return len(self._busy()) < self.side_by_side

    def start(self, task: "Task") -> None:
        """As of `Executor`; a worker is begun where all that are there have work."""
        worker = next((idle for idle in self._workers.values() if idle.task is None), None)
        worker = worker or self._begin()
        worker.task = task
        try:
            worker.connection.send(task)
        except OSError:  # it has ended, which `wait` will find
            return

    def wait(self) -> list[Ended]:
        """As of `Executor`."""
        busy = {worker.connection: worker for worker in self._busy()}
        ready = wait(list(busy), POLL)
        for worker in busy.values():
            worker.peak = max(worker.peak, memory_of(worker.process.pid))
        return [self._ended(busy[connection]) for connection in ready]  # type: ignore[index]

    def close(self) -> None:
        """As of `Executor`: workers write their checkpoints first. A second Ctrl-C ends them."""
        try:
            for worker in self._busy():
                worker.process.terminate()
            end = time.monotonic() + GRACE
            for worker in self._busy():
                worker.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            for worker in self._workers.values():
                worker.connection.close()
                _kill_all(worker.process)
            self._workers.clear()

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers.values() if worker.task is not None]

    def _begin(self) -> Worker:
        number = next(at for at in range(self.side_by_side) if at not in self._workers)
        mine, its = Pipe()
        begin = "import dermsynth; from experiments.executors.local import serve; "
        log = log_path(self.duty.out, f"worker{number}")
        with its, open(log, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-u", "-c", f"{begin}serve({its.fileno()})"],
                env=environment(number, self.side_by_side, self.gpus, self.chips),
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        mine.send(self.duty)
        self._workers[number] = Worker(number, process, mine)
        return self._workers[number]

    def _ended(self, worker: Worker) -> Ended:
        assert worker.task is not None
        try:
            ended: Ended = worker.connection.recv()
        except (EOFError, OSError):
            ended = Ended(worker.task.name, reason=self._why_lost(worker))
            worker.connection.close()
            del self._workers[worker.number]
        worker.task = None
        return ended

    def _why_lost(self, worker: Worker) -> str:
        """Why a worker ended in the middle of a task."""
        code = worker.process.wait()
        if code != -signal.SIGKILL:
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return f"its process ended ({name}), see {LOGS}/worker{worker.number}.log"
        most = max(other.peak for other in self._workers.values())
        used = sum(memory_of(other.process.pid) for other in self._workers.values())
        room = memory_left() + used
        words = "its process was killed (SIGKILL), as the system does where memory runs out"
        if not most or not room:
            return f"{words}: take fewer --workers"
        words = f"{words}: a worker took up to {gib(most)}, of {gib(room)} that are there for all"
        if (fit := max(1, room // most)) < self.side_by_side:
            return f"{words}: --workers {fit} would fit"
        return f"{words}; that is enough, so it was killed otherwise, or took more for a moment"


def environment(
    number: int, count: int, gpus: Sequence[str], chips: Sequence[str] = ()
) -> dict[str, str]:
    """The variables of worker `number` of `count`: threads, GPU, chip, where our packages lie."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = max(1, cores() // count)
    if given.isdigit() and int(given):
        threads = min(threads, int(given))
    places = [place or str(Path.cwd()) for place in sys.path]
    variables = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(places)}
    if gpus:
        variables["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    if chips:
        variables |= {"TPU_VISIBLE_CHIPS": chips[number % len(chips)], **ONE_CHIP}
    return os.environ | variables


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # here: options and help do not wait for it

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(number) for number in range(count)]


def visible_chips() -> list[str]:
    """The TPU chips that workers may use, as TPU_VISIBLE_CHIPS names them."""
    from dermsynth.device import tpu_chips  # likewise

    named = [name for name in os.environ.get("TPU_VISIBLE_CHIPS", "").split(",") if name]
    return named or [str(number) for number in range(tpu_chips())]


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """End a worker and what it has started, and take note of its end."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# --- in the worker -------------------------------------------------------------------------------


def serve(descriptor: int) -> None:
    """The life of a worker: a duty, then tasks, until the pipe with this descriptor is closed."""
    terminate_as_interrupt()
    connection = Connection(descriptor)
    received: queue.SimpleQueue[object] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, received), daemon=True).start()
    try:
        duty = received.get()
        assert isinstance(duty, Duty)
        cache = None
        if duty.cache_folder is not None:
            from classifier.training.trunk_cache import FeatureCache

            cache = FeatureCache(folder=duty.cache_folder)
        while True:
            task: Task = received.get()  # type: ignore[assignment]
            with logged(log_path(duty.out, task.name)):
                ended = attempt(task, duty.out, duty.run, cache)
            connection.send(ended)
    except KeyboardInterrupt as interrupt:
        print(f"interrupted {interrupt}")
        sys.exit(130)


def _receive(connection: Connection, received: "queue.SimpleQueue[object]") -> None:
    """What the runner says; when it says no more, it has ended, and so do we, at once."""
    try:
        while True:
            received.put(connection.recv())
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)
    except Exception:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        os._exit(1)
