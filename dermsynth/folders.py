"""The life of a folder that a command writes: new, running, stopped, finished.

It is entered under a lock that dies with its process, and cleaned of what a killed process left.
Finished it is from the moment when its manifest says so, which is one atomic step; what it
replaces stays where it is until then. `whole_folder` makes what appears complete or not at all
(datasets, pools, evaluations), `run_folder` what can be looked at and resumed (trainings).
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermsynth import finished, manifest
from dermsynth.errors import UserError
from dermsynth.files import write_text
from dermsynth.locks import locked
from dermsynth.manifest import Identity, Input, Manifest

KEY = ".key"  # in unfinished work: the hash of all that it depends on
OLD, COMPLETE, UNFINISHED = "old", "complete", "unfinished"  # siblings, `.NAME.old` and so on
NEVER_COMPARED = ("out", "resume", "overwrite", "device", "tracking")  # of a run's options


def check_replaceable(out: Path, kind: str, overwrite: bool) -> None:
    """Raise UserError unless `out` is free, empty, or with `overwrite` a folder of this kind."""
    out = _proper(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file of that name exists; choose another name")
    if not (out / manifest.NAME).exists():
        if out.is_dir() and any(_shown(out)):
            if not overwrite:
                raise UserError(f"--out {out}: exists already; choose another name")
            raise UserError(
                f"--out {out}: holds no {manifest.NAME}, so it was not made by this command and is "
                "not overwritten; choose another name"
            )
        return
    if not overwrite:
        if _is_unfinished(out):  # a run: other folders appear when they are finished
            raise UserError(
                f"--out {out}: exists already and is not finished; --resume goes on with it, "
                "--overwrite begins anew"
            )
        raise UserError(f"--out {out}: exists already; choose another name or add --overwrite")
    there = manifest.read_manifest(out, "choose another --out").kind
    if there != kind:
        raise UserError(f"--out {out}: a {there}, not a {kind}, is there; choose another name")


def _is_unfinished(out: Path) -> bool:
    with contextlib.suppress(UserError):
        return not manifest.read_manifest(out, "").finished
    return False


@contextlib.contextmanager
def whole_folder(
    out: Path, kind: str, overwrite: bool = False, key: str | None = None
) -> Iterator[Path]:
    """A folder that appears at `out` complete or not at all.

    Yields a hidden folder to write into, and to seal. When the block ends well it takes `out`'s
    place. When it raises, it is removed and what was at `out` stays; with a `key` an interrupt or
    a kill leaves it, and a later call with the same key goes on with it.

    Raises UserError where `out` may not be replaced, or another process is at work there.

    Parameters
    ----------
    out : the folder
    kind : of folder; `overwrite` replaces no other, so a mistyped --out costs nobody's home
    overwrite : replace what is there
    key : a hash of all that the content depends on, for work of hours
    """
    out = _proper(out)
    with locked(out):
        _recover(out)
        check_replaceable(out, kind, overwrite)
        work = _sibling(out, UNFINISHED)
        if key is None or _key(work) != key:
            shutil.rmtree(work, ignore_errors=True)
        _clean(work)
        work.mkdir(exist_ok=True)
        if key is not None:
            write_text(work / KEY, key)
        try:
            yield work
            (work / KEY).unlink(missing_ok=True)
            _put(work, out)
            finished.note(out)
        except KeyboardInterrupt:
            if key is None:
                shutil.rmtree(work, ignore_errors=True)
                raise
            raise KeyboardInterrupt(
                f"what was done waits in {work}; the same command goes on from there"
            ) from None
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


@dataclass(frozen=True)
class RunFolder:
    """A run's folder while this process is at work in it."""

    out: Path  # where the run is to be found
    path: Path  # where it is written: `out`, or what will take its place
    kind: str
    options: dict[str, Any]
    inputs: Mapping[str, Input]
    before: Manifest | None  # of an earlier start that is resumed

    @property
    def was_finished(self) -> bool:
        """Whether a finished run is resumed."""
        return self.before is not None and self.before.finished

    def changed(self, names: tuple[str, ...]) -> list[str]:
        """Which of these options are not as they were before, as `name: was 5, now 6`."""
        found = changes(self.before, self.options) if self.before else {}
        return [line for name, line in found.items() if name in names]

    def loosen(self, *keep: str) -> None:
        """Go on in a finished run: what is in `keep` can be read meanwhile."""
        assert self.before is not None
        manifest.loosen(self.path, self.before, keep)

    def finish(self, parts: Mapping[str, str]) -> Identity:
        """Seal the folder; what it replaces goes. `parts`: hashes of what the run is, by name."""
        _clean(self.path)
        identity = manifest.seal(self.path, self.kind, parts, self.inputs, self.options)
        if self.path != self.out:
            _put(self.path, self.out)
        finished.note(self.out)
        return identity


@contextlib.contextmanager
def run_folder(
    out: Path,
    kind: str,
    options: dict[str, Any],
    inputs: Mapping[str, Input],
    resume: bool = False,
    overwrite: bool = False,
    may_change: tuple[str, ...] = (),
) -> Iterator[RunFolder]:
    """Make a run's folder, or step back into it; the caller calls its `finish`.

    A finished run that is to be overwritten stays at `out` until the new one is finished, which is
    written to `.NAME.unfinished` beside it until then. With `resume` every option must be as it
    was, and every input the same by its content id, wherever it lies now.

    Raises UserError where the folder is taken, another process is at work there, there is nothing
    to resume, or options or inputs changed: the message says which.

    Parameters
    ----------
    out, kind : the run's folder, and what it is
    options : by flat names, as plain values
    inputs : what the run is made from, by name
    resume, overwrite : as the options of these names
    may_change : options that may differ on a resume: paths of inputs, budgets, ...
    """
    out = _proper(out)
    with locked(out):
        _recover(out)
        work = _sibling(out, UNFINISHED)
        before = None
        if resume:
            path = resumable(out)
            _clean(path)
            before = manifest.read_manifest(path, "start a new run in another --out")
            _check_resumable(path, before, kind, options, inputs, may_change)
        else:
            check_replaceable(out, kind, overwrite)
            shutil.rmtree(work, ignore_errors=True)
            path = work if manifest.is_finished(out, kind) else out
            path.mkdir(parents=True, exist_ok=True)
            for left in list(path.iterdir()):
                _remove(left)
            manifest.begin(path, kind, options, inputs)
        yield RunFolder(out, path, kind, options, inputs, before)


def resumable(out: Path) -> Path:
    """Where the run of `--out out --resume` lies: there, or beside it where it replaces another.

    Raises UserError where there is none.
    """
    out = _proper(out)
    for path in (_sibling(out, UNFINISHED), out):
        if (path / manifest.NAME).exists():
            return path
    raise UserError(
        f"--resume: {out} holds no {manifest.NAME}, so there is nothing to go on with; run without "
        "--resume to start there"
    )


def can_resume(out: Path) -> bool:
    """Whether there is something to go on with."""
    with contextlib.suppress(UserError):
        return resumable(out).is_dir()
    return False


def _check_resumable(
    path: Path,
    before: Manifest,
    kind: str,
    options: dict[str, Any],
    inputs: Mapping[str, Input],
    may_change: tuple[str, ...],
) -> None:
    if before.kind != kind:
        raise UserError(f"--resume: {path} is a {before.kind}, not a {kind}")
    free = (*NEVER_COMPARED, *may_change)
    if lines := [
        f"\n  {line}" for name, line in changes(before, options).items() if name not in free
    ]:
        raise UserError(
            f"--resume {path}: options changed; give the same ones or a new --out{''.join(lines)}"
        )
    manifest.check_same(
        before.inputs, inputs, f"--resume {path}", "start a new run in another --out"
    )


def changes(before: Manifest, options: Mapping[str, Any]) -> dict[str, str]:
    """Options that are not as a run's earlier start had them, as `name: was 5, now 6`, by name.

    One that did not exist then is as it was where it is off: None, False, zero, empty.
    """
    old = before.options
    return {
        name: f"{name}: was {old.get(name)}, now {value}"
        for name, value in options.items()
        if (old[name] != value if name in old else value)
    }


# --- where things lie ----------------------------------------------------------------------------


def _proper(out: Path) -> Path:
    """`out` without `.` and `..`. Raises UserError where it cannot be a folder of our own."""
    whole = Path(os.path.abspath(out))  # noqa: PTH100 - links stay as they are
    if whole == Path(whole.anchor) or whole == Path.home():
        raise UserError(f"--out {out}: expected a folder of its own; give a name below it")
    return whole if str(out) in (".", "..") or ".." in out.parts else out


def _sibling(out: Path, word: str) -> Path:
    """Unfinished work lies beside its folder, or inside where it could not be moved from there."""
    return out / f".{word}" if _stays(out) else out.with_name(f".{out.name}.{word}")


def _stays(out: Path) -> bool:
    """Whether the folder itself must not be moved: a mount, somebody's working directory."""
    return out.is_dir() and (
        out.is_mount()
        or not os.access(out.absolute().parent, os.W_OK)
        or out.samefile(Path.cwd())
        or any((out / f".{word}").exists() for word in (UNFINISHED, COMPLETE, OLD))
    )


def _shown(folder: Path) -> list[Path]:
    """What lies in a folder, apart from what a killed process left."""
    ours = {f".{word}" for word in (UNFINISHED, COMPLETE, OLD)} | {".lock", KEY}
    return [
        path
        for path in folder.iterdir()
        if path.name not in ours
        and not (path.name.startswith(".") and path.name.endswith(".partial"))
    ]


def _key(work: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (work / KEY).read_text(encoding="utf-8")
    return None


def _clean(folder: Path) -> None:
    """Remove half-written files of killed processes; the lock is ours, so nobody writes them."""
    for here, subfolders, names in os.walk(folder):
        if "wandb" in subfolders:
            subfolders.remove("wandb")
        for name in names:
            if name.startswith(".") and name.endswith(".partial"):
                Path(here, name).unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


# --- taking a folder's place ---------------------------------------------------------------------


def _put(work: Path, out: Path) -> None:
    """Give `work` the place of `out`, whole; `_recover` ends what a kill in the middle leaves."""
    if _stays(out):
        (out / f".{OLD}").mkdir(exist_ok=True)
        _move_all(out, out / f".{OLD}")
        os.replace(work, out / f".{COMPLETE}")
        _recover(out)
        return
    old = _sibling(out, OLD)
    if out.exists():
        os.replace(out, old)
    os.replace(work, out)
    shutil.rmtree(old, ignore_errors=True)


def _recover(out: Path) -> None:
    """Finish, or undo, what a process that was killed in `_put` had begun."""
    old = out.with_name(f".{out.name}.{OLD}")
    if old.exists():
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, out)
    inner, complete = out / f".{OLD}", out / f".{COMPLETE}"
    if complete.exists():
        _move_all(complete, out)
        complete.rmdir()
        shutil.rmtree(inner, ignore_errors=True)
    elif inner.exists():
        _move_all(inner, out)
        inner.rmdir()


def _move_all(source: Path, to: Path) -> None:
    """Everything but what is ours and hidden; the manifest leaves first and arrives last."""
    paths = sorted(_shown(source), key=lambda path: path.name == manifest.NAME)
    if to.name == f".{OLD}":
        paths.reverse()
    for path in paths:
        os.replace(path, to / path.name)
