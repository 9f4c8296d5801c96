"""What another experiment has computed already, found by content and taken over.

Experiments that lie side by side share what comes from the same inputs, the same options and the
same program, whatever they are called and wherever their data lie. Each keeps a note of every task
that it has finished, under a key of all that the task's result depends on; what a note says is
checked against the folder's manifest and its files before it counts.
"""

import functools
import hashlib
import importlib
import os
import shutil
from pathlib import Path
from typing import Any

from classifier.model.weights import weights_input
from classifier.run_folder import PAIR, open_networks
from dermsynth import __version__
from dermsynth.errors import UserError
from dermsynth.files import sha256
from dermsynth.folders import NEVER_COMPARED, whole_folder
from dermsynth.machine import versions
from dermsynth.manifest import NAME, Sealed, digest, open_sealed
from dermsynth.options import as_plain
from dermsynth.records import Record, Sha256, read_record, write_record
from experiments.tasks import Task, expected_inputs

NOTES = ".tasks"  # in an experiment's folder: a note a finished task
CIRCUMSTANCES = (*NEVER_COMPARED, "data", "pool", "cache_gib")  # options that change no result
PROGRAM = ("dermsynth", "data", "gan", "classifier")  # packages that results depend on
MEND = "it is computed again"


class Note(Record):
    """A finished task of an experiment."""

    folder: str  # in the experiment's
    id: Sha256  # of the folder


def take_over(task: Task, out: Path) -> Path | None:
    """Take a task's folder from an experiment beside `out`; returns where it was, None: nowhere.

    Files are linked where the file system can, else copied. A folder that is there already is left
    to be gone on with. Raises OSError where the disk is full.
    """
    folder = task.folder(out)
    if folder.exists():
        return None
    for note in sorted(out.absolute().parent.glob(f"*/{NOTES}/{task_key(task, out)}.json")):
        other = note.parent.parent
        if other.samefile(out):
            continue
        try:
            source = _finished(other, note, task.kind)
            with whole_folder(folder, task.kind) as work:
                _copy(source, work)
        except (UserError, FileNotFoundError) as error:
            print(f"note: {other}: {task.name} is not taken over: {error}")
            continue
        take_note(task, out)
        return source.path
    return None


def take_note(task: Task, out: Path) -> None:
    """Note that a task is finished, for other experiments to find."""
    sealed = open_sealed(task.folder(out), task.kind, f"{task.name}: missing", MEND)
    (out / NOTES).mkdir(exist_ok=True)
    write_record(
        out / NOTES / f"{task_key(task, out)}.json", Note(folder=task.name, id=sealed.identity.id)
    )


def task_key(task: Task, out: Path) -> str:
    """The SHA-256 of all that a task's result depends on; what it needs is finished in `out`."""
    options = {
        name: value
        for name, value in as_plain(task.options).items()
        if name not in CIRCUMSTANCES and name not in task.links
    }
    inputs = {name: source.id for name, source in expected_inputs(task, out).items()}
    if "external" in options:  # NAME=FOLDER, whose content is an input
        options["external"] = [text.partition("=")[0] for text in options["external"]]
    if (weights := options.get("weights")) and (file := weights_input(weights)) is not None:
        options["weights"] = file.id
    return digest([task.kind, options, inputs, program()])


@functools.cache
def program() -> dict[str, Any]:
    """The program that computes: its version, its source, and what it computes with."""
    source = hashlib.sha256()
    for package in PROGRAM:
        file = importlib.import_module(package).__file__
        assert file is not None
        for path in sorted(Path(file).parent.rglob("*.py")):
            source.update(f"{path.relative_to(Path(file).parent.parent)}\n".encode())
            source.update(path.read_bytes())
    return {"version": __version__, "source": source.hexdigest(), **versions("torch", "numpy")}


def _finished(other: Path, note: Path, kind: str) -> Sealed:
    """The folder that a note names. Raises UserError where it is not what was noted."""
    known = read_record(note, Note, MEND)
    folder = other / known.folder
    sealed = open_sealed(folder, kind, f"{folder}: missing", MEND)
    if sealed.identity.id != known.id or not folder.resolve().is_relative_to(other.resolve()):
        raise UserError(f"{folder}: is another one by now; {MEND}")
    return sealed


def _copy(source: Sealed, work: Path) -> None:
    """All files that the manifest names, checked. Raises UserError for one that is not as written.

    Images are not: they have a hash each, by which they are checked whenever they are read.
    """
    for name, entry in source.manifest.files.items():
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(source.path / name, target)
        same = target.stat().st_size == entry.size
        if not same or (entry.sha256 is not None and sha256(target) != entry.sha256):
            raise source.damaged(name)
    _link(source.path / NAME, work / NAME)
    if source.manifest.kind == PAIR:
        for network in open_networks(source):
            (work / network.path.name).mkdir()
            _copy(network, work / network.path.name)


def _link(source: Path, target: Path) -> None:
    """The same file under another name: all that replaces one makes a new one. Or a copy of it."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
