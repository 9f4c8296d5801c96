"""A run at Weights & Biases: online where its server answers, else offline, never in the way.

Nothing here prompts, makes the run wait longer than `PATIENCE` seconds, or raises: a run whose
tracking fails goes on with its `metrics.jsonl` alone.

A resumed run sends the rows of before once more, as far as the server lacks them, and sets its
older folders aside in `wandb/superseded`. `wandb sync` then finds one folder that holds every step
once: two offline folders of one run do not add up, steps that both hold are there twice or those of
the second take the place of the first.
"""

import contextlib
import io
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from dermsynth import files, wandb_modes, wandb_objects
from dermsynth.manifest import Identity
from dermsynth.options import TrackingMode
from dermsynth.progress import waiting
from dermsynth.rows import Row, as_lines, read_rows
from dermsynth.tracked import IMAGES, Named, sends_images
from dermsynth.wandb_modes import Mode, choose_mode, knock, reason, within

if TYPE_CHECKING:
    from dermsynth.tracking import Cell, Figures, Line

IDENTITY = "wandb-id.txt"
PICTURES = "wandb-images.jsonl"  # pictures that were sent: step, name, path from the run's folder
SUPERSEDED = "superseded"
SWEEP = "WANDB_SWEEP_ID"

# of wandb.init: which variable of W&B's stands before our own choice
VARIABLES = {
    "project": "WANDB_PROJECT",
    "dir": "WANDB_DIR",
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "tags": "WANDB_TAGS",
}


class Run:
    """A run that W&B has begun. A thread of its own sends, so that a slow W&B holds nothing up.

    With W&B's first failure it says so and sends no more.
    """

    def __init__(self, run: Any, folder: Path, once: bool = False) -> None:
        """`once`: it has no steps, and is never resumed."""
        self._run, self._folder, self._once = run, folder, once
        self._works = True
        self._said: set[str] = set()  # what W&B did not take, and why
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._sender = threading.Thread(target=self._work, daemon=True)
        self._sender.start()

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Send scalars; those of one step make one row."""
        if values:
            self.then(lambda: self._run.log(values, step=step))

    def image(self, step: int, name: str, picture: Path | np.ndarray) -> None:
        """Send a picture; one that lies on disk is noted down for a resumed run."""
        if self._once or isinstance(picture, np.ndarray):
            self._send(lambda: {name: wandb_objects.picture(picture)})
            return
        note = {"step": step, "name": name, "path": os.path.relpath(picture, self._folder)}
        with contextlib.suppress(OSError), open(self._folder / PICTURES, "a") as file:
            file.write(as_lines([note]))
        self._send_picture(note)

    def summary(self, values: "Figures") -> None:
        """What the run came to."""
        self.then(lambda: self._run.summary.update(dict(values)))

    def table(self, name: str, columns: Sequence[str], rows: "Sequence[Sequence[Cell]]") -> None:
        """A table; arrays in it become pictures."""
        self._send(lambda: {name: wandb_objects.table(columns, rows)})

    def curves(
        self, part: str, target: np.ndarray, score: np.ndarray, at: float, words: tuple[str, str]
    ) -> None:
        """ROC, precision and recall, confusion at a threshold, as W&B's own charts."""
        self._send(lambda: wandb_objects.curves(part, target, score, at, words))

    def lines(self, name: str, x: str, lines: "Mapping[str, Line]") -> None:
        """Lines by name, as W&B's own chart."""
        self._send(lambda: {name: wandb_objects.lines(name, x, lines)})

    def page(self, name: str, path: Path) -> None:
        """An HTML page that lies on disk."""
        self._send(lambda: {name: wandb_objects.page(path)})

    def artifact(
        self, identity: Identity, made: bool, facts: "Figures", file: Path | None = None
    ) -> None:
        """What the run made, or was made from, by its content id."""
        place = Path(self._run.dir).parent / "artifacts"

        def send() -> None:
            one = wandb_objects.artifact(identity, facts, place, file)
            # W&B's use_artifact refuses to work offline; what it does online is this
            self._run._log_artifact(one, is_user_created=True, use_after_commit=not made)

        self._or_say(send)

    def replay(self, rows: Sequence[Row], pictures: Sequence[Row]) -> None:
        """Send again what was logged before, in order of steps, but what the server has."""
        events = [(row["step"], False, row) for row in rows]
        events += [(note["step"], True, note) for note in pictures]
        for step, is_picture, row in sorted(events, key=lambda event: event[:2]):
            if step < self._run.starting_step:
                continue
            if not is_picture:
                self.log(step, {key: value for key, value in row.items() if key != "step"})
            elif "name" in row and (self._folder / str(row.get("path"))).is_file():
                self._send_picture(row)

    def then(self, what: Callable[[], None]) -> None:
        """Do something once all before it is sent; not at all where that failed."""
        if self._works:
            self._queue.put(what)

    def close(self) -> None:
        """Finish; what is not sent in time lies on disk, for `wandb sync`."""
        self.then(self._run.finish)
        self._queue.put(None)
        with waiting("W&B is finishing"):
            self._sender.join(wandb_modes.PATIENCE)
        if self._sender.is_alive():
            self._works = False
            self._say_unsent()

    def _send_picture(self, note: Row) -> None:
        import wandb

        path = str(self._folder / note["path"])
        self.then(lambda: self._run.log({note["name"]: wandb.Image(path)}, step=note["step"]))

    def _send(self, make: Callable[[], dict[str, Any]]) -> None:
        """Send what has yet to be made; where it cannot be, the rest of the run still is."""
        self._or_say(lambda: self._run.log(make()))

    def _or_say(self, what: Callable[[], None]) -> None:
        def attempt() -> None:
            try:
                what()
            except (TimeoutError, ConnectionError):
                raise  # nor will it take the rest
            except Exception as error:  # of W&B's many
                if (said := reason(error)) not in self._said:
                    print(f"warning: W&B takes not all of the run ({said}); the rest is tracked")
                self._said.add(said)

        self.then(attempt)

    def _work(self) -> None:
        while (what := self._queue.get()) is not None and self._works:
            try:
                what()
            except TimeoutError:
                self._works = False
                self._say_unsent()
            except Exception as error:  # whatever fails in tracking must not end a run
                self._works = False
                print(f"warning: W&B failed ({reason(error)}); metrics.jsonl only from here")

    def _say_unsent(self) -> None:
        place = Path(self._run.dir).parent
        print(f"warning: W&B is still sending; `wandb sync {place}` does the rest")


def start(
    folder: Path,
    option: TrackingMode,
    named: Named,
    earlier: Sequence[Row] = (),
    resume_step: int | None = None,
    once: bool = False,
) -> Run | None:
    """Begin the run of `folder`, or go on with it.

    Parameters
    ----------
    folder : where the run lies
    option : `--tracking`
    named : what it is called at W&B
    earlier : the rows that a resumed run has logged before
    resume_step : the last step of before; none where the run begins
    once : it is never resumed: it has an id of its own, which is not kept

    Returns
    -------
    None where nothing is to be tracked, or W&B does not work at all.
    """
    if option == "none":
        return None
    if once and os.environ.get(SWEEP) and (named.part or named.job not in ("train", "compare")):
        return None  # a sweep's run is what the command came to, and not what it made on the way
    # before wandb is imported. Its reports of its own errors can hold an exit for 30 seconds
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    mode = choose_mode(option)
    pictures = [] if once else _pictures_until(folder, -1 if resume_step is None else resume_step)
    older = [] if once else _parts(folder, _read_identity(folder))
    attempts: tuple[Mode, ...] = () if mode is None else (mode,)
    if mode == "online":
        attempts = ("online", "offline")
    for attempt in attempts:
        run = _begin(folder, attempt, named, once)
        if run is not None:
            tracked = Run(run, folder, once)
            if attempt == "online" and sends_images():
                print(
                    f"note: W&B gets figures, curves and pictures of lesions; {IMAGES}=off leaves "
                    "the pictures out"
                )
            tracked.replay(earlier, pictures)
            new = Path(run.dir).parent.name
            others = [part for part in older if part.name != new]
            tracked.then(partial(_set_aside, others))  # once the new folder holds all of theirs
            return tracked
        if not once:
            older += _parts(folder, _read_identity(folder))  # what the failed attempt began
    return None


def _begin(folder: Path, mode: Mode, named: Named, once: bool) -> Any:
    """W&B's run, or None after a warning."""
    try:
        if mode == "online":
            knock()
        identity = secrets.token_hex(4) if once else _identity(folder, mode)
        with contextlib.redirect_stdout(io.StringIO()), waiting("starting W&B"):
            return within(wandb_modes.PATIENCE, lambda: _init(folder, identity, mode, named))
    except Exception as error:  # whatever fails in tracking must not end a run
        then = "going on offline" if mode == "online" else "metrics.jsonl only"
        print(f"warning: W&B {mode} did not start ({reason(error)}); {then}")
        return None


def _init(folder: Path, identity: str, mode: Mode, named: Named) -> Any:
    import wandb

    ours: dict[str, Any] = {
        "project": "dermsynth",
        "dir": folder,
        "name": named.name,
        "group": named.group,
        "job_type": named.job,
        "tags": named.tags,
    }
    limit = 0.8 * wandb_modes.PATIENCE  # W&B gives up first, in good order
    with _beside_sweep() if named.part else contextlib.nullcontext():
        run = wandb.init(
            **{key: value for key, value in ours.items() if not os.environ.get(VARIABLES[key])},
            id=identity,
            resume="allow" if mode == "online" else None,
            config=dict(named.config),
            mode=mode,
            settings=wandb.Settings(
                init_timeout=limit,
                login_timeout=limit,
                finish_timeout=limit,
                finish_timeout_raises=True,
                console="off",
                silent=True,
            ),
        )
    if named.axis is not None:
        run.define_metric(named.axis)
        run.define_metric("*", step_metric=named.axis)
    return run


@contextlib.contextmanager
def _beside_sweep() -> Iterator[None]:
    """In the block a run has an id of its own, which W&B refuses to one of a sweep."""
    import wandb

    settings = wandb.setup().settings
    kept = settings.sweep_id, settings.run_id
    settings.sweep_id = settings.run_id = None
    try:
        yield
    finally:
        settings.sweep_id, settings.run_id = kept


def _identity(folder: Path, mode: Mode) -> str:
    """The id of this folder's run: a new one where there is none, or none that can be read.

    Offline it is new as well where the server may hold a part of the run: what is synced later
    would be added to that part, and its steps be there twice.
    """
    identity = _read_identity(folder)
    if identity and mode == "offline":
        parts = _parts(folder, identity)
        if any(p.name.startswith("run-") or any(p.glob("*.wandb.synced")) for p in parts):
            identity = ""
    if not identity:
        identity = secrets.token_hex(4)
        files.write_text(folder / IDENTITY, identity)
    return identity


def _read_identity(folder: Path) -> str:
    """Empty where there is none or the file is damaged."""
    try:
        identity = (folder / IDENTITY).read_bytes().decode("ascii", "replace").strip()
    except OSError:
        return ""
    return identity if re.fullmatch(r"[0-9a-z]{4,64}", identity) else ""


def _pictures_until(folder: Path, step: int) -> list[Row]:
    """The notes of pictures until `step`; those of later steps are taken out of the file."""
    path = folder / PICTURES
    if not path.exists():
        return []
    try:
        pictures, _ = read_rows(path, step)
        files.write_text(path, as_lines(pictures))
    except OSError as error:
        print(f"warning: {path}: {reason(error)}; W&B gets no earlier pictures")
        return []
    return pictures


def _parts(folder: Path, identity: str) -> list[Path]:
    """W&B's folders of the run so far: beside the run, and where WANDB_DIR says."""
    roots = [folder / "wandb"]
    if os.environ.get("WANDB_DIR"):
        roots.append(Path(os.environ["WANDB_DIR"]) / "wandb")
    return [part for root in roots for part in root.glob(f"*run-*-{identity}")] if identity else []


def _set_aside(parts: Sequence[Path]) -> None:
    """Move folders to where `wandb sync` does not look; nothing of them is deleted."""
    for part in parts:
        with contextlib.suppress(OSError):
            (part.parent / SUPERSEDED).mkdir(exist_ok=True)
            os.replace(part, part.parent / SUPERSEDED / part.name)
