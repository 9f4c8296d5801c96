"""How much memory processes take and how much is left, where the system says so (Linux)."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # of a container: its own limit


def memory_of(pid: int) -> int:
    """Bytes that a process takes for itself; 0 where that cannot be told. Files do not count."""
    return _kib(Path(f"/proc/{pid}/status"), "RssAnon:")


def memory_left() -> int:
    """Bytes that processes here can still take; 0 where that cannot be told."""
    left = _kib(MEMINFO, "MemAvailable:")
    try:
        limit = int((CGROUP / "memory.max").read_text())
        return min(left, limit - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # none, or `max`
        return left


def gib(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.1f} GiB"


def _kib(file: Path, name: str) -> int:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
