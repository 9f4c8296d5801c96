"""What W&B's offline files hold, read back without a server."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024


def records(path: Path) -> Iterator:
    """The records of a .wandb file: LevelDB's log format after 7 bytes of W&B's."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        chunk = content[at + 7 : at + 7 + length]
        at += 7 + length
        whole = chunk if kind in (1, 2) else whole + chunk
        if kind in (1, 4):  # full, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record


def history(path: Path) -> list[tuple[int, set[str]]]:
    """Step and names of each row of a .wandb file."""
    kinds = [r.history for r in records(path) if r.WhichOneof("record_type") == "history"]
    return [
        (h.step.num, {n for i in h.item if not (n := i.key or i.nested_key[0]).startswith("_")})
        for h in kinds
    ]


def offline_files(folder: Path) -> list[Path]:
    """The .wandb files of a run's folder."""
    return sorted(folder.glob("wandb/*run-2*/*.wandb"))  # not the link latest-run


@dataclass
class Tracked:
    """All of one offline run."""

    path: Path
    name: str = ""
    group: str = ""
    job: str = ""
    tags: tuple[str, ...] = ()
    sweep: str = ""  # its id
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)  # glob or name -> its step metric
    made: dict[str, Any] = field(default_factory=dict)  # artifact name -> record
    used: dict[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> set[str]:
        """Names of everything in its history and its summary."""
        return {key for row in self.rows for key in row} | set(self.summary)

    def media(self, key: str) -> Path:
        """The file of a picture, table or page."""
        return self.path.parent / "files" / self.value(f"{key}/path")

    def table(self, key: str) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows of a table."""
        content = json.loads(self.media(key).read_text())
        return content["columns"], content["data"]

    def value(self, key: str) -> Any:
        """The last value of a name."""
        return next(row[key] for row in reversed([self.summary, *self.rows]) if key in row)


def tracked(path: Path) -> Tracked:
    """A run from its .wandb file."""
    run = Tracked(path)
    for record in records(path):
        match record.WhichOneof("record_type"):
            case "run":
                said = record.run
                run.name, run.group, run.job = said.display_name, said.run_group, said.job_type
                run.tags, run.sweep = tuple(said.tags), said.sweep_id
                run.config |= _items(said.config.update)
            case "config":
                run.config |= _items(record.config.update)
            case "history":
                run.rows.append({"_step": record.history.step.num} | _items(record.history.item))
            case "summary":
                run.summary |= _items(record.summary.update)
            case "metric":
                said = record.metric
                run.metrics[said.name or said.glob_name] = said.step_metric
            case "artifact":
                artifact = record.artifact
                (run.used if artifact.use_after_commit else run.made)[artifact.name] = artifact
    return run


def only_run(folder: Path) -> Tracked:
    """The one run of a folder."""
    (path,) = offline_files(folder)
    return tracked(path)


def _items(items: Any) -> dict[str, Any]:
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
