"""One process at a time: a lock beside a folder that dies with its process.

The kernel's lock (flock; over NFS a lock of the server's) is what counts. The file's content only
says who holds it: a process id alone may be another process's by then, in a container it is 1.
Where a file system has no locks, the content decides as well as it can.
"""

import contextlib
import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from dermsynth.errors import UserError
from dermsynth.records import Record, parse_record

POLL = 0.5  # seconds between two looks at a lock that is waited for
_held: set[tuple[int, int, Path]] = set()  # process (a fork has none), thread, lock
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class Holder(Record):
    """The process that holds a lock."""

    pid: int
    host: str
    boot: str  # of the machine: another one, another process
    namespace: str  # in which the process id has its meaning: a container's own
    started: str  # of the process, as the system counts
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.command})"

    @property
    def may_be_alive(self) -> bool:
        """False where it is known to be gone."""
        here = this_process()
        if (self.host, self.namespace) != (here.host, here.namespace):
            return True
        return self.boot == here.boot and self.started == _start_time(self.pid)


def this_process() -> Holder:
    """This process as a holder."""
    pid = os.getpid()
    return Holder(
        pid=pid,
        host=socket.gethostname(),
        boot=_read("/proc/sys/kernel/random/boot_id"),
        namespace=_link("/proc/self/ns/pid"),
        started=_start_time(pid),
        command=shlex.join(["python", *sys.argv])[:200],
    )


@contextlib.contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of `folder`, which need not exist, to the end of the block.

    The lock is the file `.NAME.lock` beside it; a thread that holds it may take it again. Raises
    UserError where another process holds it; with `wait`, says so once and waits.
    """
    path = _lock_path(folder)
    mine = (os.getpid(), threading.get_ident(), path)
    if mine in _held:
        yield
        return
    descriptor, said = _take(path), False
    while isinstance(descriptor, str):
        if not wait:
            raise UserError(
                f"{folder}: {descriptor} is at work there; wait for its end, or give another name"
            )
        if not said:
            print(f"{folder}: waiting for {descriptor}", flush=True)
            said = True
        time.sleep(POLL)
        descriptor = _take(path)
    _held.add(mine)
    try:
        yield
    finally:
        _held.discard(mine)
        path.unlink(missing_ok=True)  # while it is held: who waits for it looks whether it is there
        os.close(descriptor)


def _lock_path(folder: Path) -> Path:
    whole = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay as they are
    whole.parent.mkdir(parents=True, exist_ok=True)
    if whole.is_dir() and not os.access(whole.parent, os.W_OK):
        return whole / ".lock"  # a mounted folder, say
    return whole.with_name(f".{whole.name}.lock")


def _take(path: Path) -> int | str:
    """The lock's file descriptor; in words who holds it where that is another."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(descriptor, path)
            if error.errno in NO_LOCKS:
                if holder is not None and holder.may_be_alive:
                    os.close(descriptor)
                    return f"{holder}, unless it is gone: then remove {path},"
            else:
                os.close(descriptor)
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                return str(holder or "another process")
        if _is_still_there(descriptor, path):
            content = json.dumps(this_process().model_dump()).encode()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, content, 0)
            return descriptor
        os.close(descriptor)  # its holder removed it meanwhile


def _is_still_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int, path: Path) -> Holder | None:
    """None where the file does not say."""
    with contextlib.suppress(UserError, OSError):
        return parse_record(os.pread(descriptor, 4096, 0), Holder, str(path), "")
    return None


def _start_time(pid: int) -> str:
    """When a process started, in the system's ticks; empty where it is gone or cannot be told."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
