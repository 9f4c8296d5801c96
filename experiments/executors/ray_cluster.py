"""The same tasks on a Ray cluster: Ray says where, tells of lost nodes, and has the addresses.

Every node sees the experiment's folder under the same path and has this program: both are checked
before anything is computed. Ray is an extra: `pip install 'dermsynth[ray]'`.
"""

import contextlib
import logging
import os
import secrets
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermsynth import __version__
from dermsynth.errors import UserError
from dermsynth.locks import locked, this_process
from experiments.executors.local import FEATURES
from experiments.executors.running import (
    LONGEST,
    Ended,
    Run,
    attempt,
    in_a_line,
    log_path,
    logged,
)

if TYPE_CHECKING:
    from experiments.tasks import Task

POLL = 1.0  # seconds that `wait` waits
CONNECT = 5.0  # seconds that an address has to answer: Ray itself tries for minutes
PROBE = 120.0  # seconds that all nodes have to say that they see the folder
GRACE = 120.0  # seconds that tasks have to write their checkpoints
MOST_LOST = 3  # times that a task may lose its node before it counts as failed
_cache: dict[str, Any] = {}  # of a worker process: trunk features, from one task to the next


class RayCluster:
    """As many tasks side by side as the cluster has room for."""

    here = False

    def __init__(self, out: Path, run: Run, address: str | None, device: str) -> None:
        """Connect. Raises UserError where that cannot be, or a node does not see `out`."""
        self.ray, self._is_ours = connect(address)
        self.out, self.run = out.absolute(), run
        try:
            check_nodes(self.ray, self.out)
        except BaseException:
            self._leave()
            raise
        self._resources = task_resources(self.ray, device)
        self.side_by_side = slots(self.ray, self._resources)
        self._compute = self.ray.remote(max_retries=0, **self._resources)(_compute)
        self._running: dict[Any, Task] = {}  # by Ray's reference
        self._lost: Counter[str] = Counter()

    def has_room(self) -> bool:
        """As of `Executor`: Ray keeps what waits, and may take more nodes for it."""
        return True

    def start(self, task: "Task") -> None:
        """As of `Executor`."""
        reference = self._compute.remote(task, self.out, Path.cwd(), self.run)
        self._running[reference] = task

    def wait(self) -> list[Ended]:
        """As of `Executor`; what was lost with its node begins again."""
        self.side_by_side = max(1, slots(self.ray, self._resources))
        ready, _ = self.ray.wait(list(self._running), num_returns=1, timeout=POLL)
        found = [self._ended(self._running.pop(reference), reference) for reference in ready]
        return [ended for ended in found if ended is not None]

    def close(self) -> None:
        """As of `Executor`: tasks that run write their checkpoints first."""
        try:
            for reference in self._running:
                self.ray.cancel(reference, force=False)
            if self._running:
                left = list(self._running)
                self.ray.wait(left, num_returns=len(left), timeout=GRACE)
        finally:
            self._leave()

    def _ended(self, task: "Task", reference: Any) -> Ended | None:
        """How a task ended; None where it was lost and begins again."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except (errors.WorkerCrashedError, errors.NodeDiedError) as error:
            self._lost[task.name] += 1
            if self._lost[task.name] <= MOST_LOST:
                print(f"{task.name}: lost with its node or process, runs again", flush=True)
                self.start(task)
                return None
            return Ended(task.name, reason=f"lost {MOST_LOST + 1} times: {in_a_line(error)}")
        except errors.OutOfMemoryError:
            need = "give Ray fewer CPUs a node (`ray start --num-cpus`), so that fewer run there"
            return Ended(task.name, reason=f"killed by Ray, as its node's memory ran out: {need}")
        except (errors.RayError, ImportError) as error:
            log_path(self.out, task.name).write_text(f"{error}\n", encoding="utf-8")
            return Ended(task.name, reason=_brief(error))

    def _leave(self) -> None:
        if self._is_ours:
            self.ray.shutdown()


# --- the cluster ---------------------------------------------------------------------------------


def connect(address: str | None) -> tuple[Any, bool]:
    """Ray, connected, and whether that was done here.

    Without an address it is RAY_ADDRESS, or the cluster that this machine belongs to, or one that
    is started here for the time being. Raises UserError.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent to anybody
    try:
        import ray
    except ImportError:
        raise UserError(
            "--executor ray: Ray is not installed in this environment; install it with "
            "`pip install 'dermsynth[ray]'`, or use --executor local"
        ) from None
    if ray.is_initialized():
        return ray, False
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        _check_answers(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    before = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            if address is not None:
                raise
            ray.init(address="local", include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"--address {address}" if address else "--executor ray"
        raise UserError(f"{where}: no Ray cluster there: {in_a_line(error)}") from None
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, before)  # Ray would end the process at once
    return ray, True


def _check_answers(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit()):
        raise UserError(
            f"--address {address}: expected HOST:PORT of the cluster's head, as `ray start --head` "
            "prints it (not ray://: start the experiment on a node of the cluster)"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--address {address}: nothing answers there ({error}); start a cluster with `ray start"
            " --head` and give the address that it prints"
        ) from None


def task_resources(ray: Any, device: str) -> dict[str, int]:
    """What a task asks for: a GPU with its share of the CPUs where there are any, else one CPU."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = [node.get("CPU", 0) // node["GPU"] for node in nodes if node.get("GPU", 0) >= 1]
    if device == "cpu" or not shares:
        return {"num_cpus": 1}
    return {"num_cpus": max(1, int(min(shares))), "num_gpus": 1}


def slots(ray: Any, resources: dict[str, int]) -> int:
    """How many tasks the nodes that are alive have room for."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    return sum(
        min(int(node["Resources"].get(names[name], 0) // need) for name, need in resources.items())
        for node in ray.nodes()
        if node["Alive"]
    )


def check_nodes(ray: Any, out: Path) -> None:
    """Every node reads what is written in `out` here, and has this version. Raises UserError."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    remote = ray.remote(num_cpus=0, max_retries=0)(_probe)
    with _probe_file(out) as (file, content):
        asked = {
            node: remote.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(file, content, Path.cwd(), __version__)
            for node in nodes
        }
        for node, reference in asked.items():
            try:
                fault = ray.get(reference, timeout=PROBE)
            except (ray.exceptions.RayError, ImportError) as error:
                fault = f"does not run this program ({_brief(error)}); install the same there"
            if fault:
                raise UserError(f"--executor ray: node {nodes[node]}: {fault}")


def _brief(error: Exception) -> str:
    """What an error of Ray says, without the traceback that it repeats."""
    text = str(getattr(error, "cause", None) or error).partition("traceback:")[0]
    return " ".join(text.split())[:LONGEST]


@contextlib.contextmanager
def _probe_file(out: Path) -> Iterator[tuple[Path, str]]:
    content = secrets.token_hex(8)
    file = out / f".probe-{content}"
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    try:
        yield file, content
    finally:
        file.unlink()


# --- on a node -----------------------------------------------------------------------------------


def _probe(file: Path, content: str, directory: Path, version: str) -> str | None:
    """What is wrong with this node, with what to do about it; None: nothing."""
    if __version__ != version:
        return f"has dermsynth {__version__}, here is {version}; install the same on every node"
    with contextlib.suppress(OSError):
        if file.read_text(encoding="utf-8") == content and directory.is_dir():
            return None
    return (
        f"does not see {file.parent} and {directory} as they are here; give --out on a file system "
        "that all nodes share under the same path, and start the command in one"
    )


def _compute(task: "Task", out: Path, directory: Path, run: Run) -> Ended:
    """Compute a task here, once nobody else is at it: a node that was lost may not be dead yet."""
    from classifier.training.trunk_cache import FeatureCache

    os.chdir(directory)
    here = this_process()
    folder = out / FEATURES / f"{here.host}-{here.boot[:8]}"
    cache = _cache.setdefault(str(folder), FeatureCache(folder=folder))
    with logged(log_path(out, task.name)), locked(task.folder(out), wait=True):
        return attempt(task, out, run, cache)
