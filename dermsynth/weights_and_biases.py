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
import netrc
import os
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TypeVar
from urllib.parse import urlparse

from dermsynth import files
from dermsynth.options import TrackingMode
from dermsynth.rows import Row, as_lines, read_rows

PATIENCE = 20.0  # seconds that one thing of W&B's may take before the run goes on without it
IDENTITY = "wandb-id.txt"
PICTURES = "wandb-images.jsonl"  # pictures that were sent: step, name, path from the run's folder
SUPERSEDED = "superseded"

Mode = Literal["online", "offline"]
MODES: dict[str, Mode | None] = {  # the values of WANDB_MODE
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": None,
}
# of wandb.init: which variable of W&B's stands before our own choice
VARIABLES = {
    "project": "WANDB_PROJECT",
    "dir": "WANDB_DIR",
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
}
T = TypeVar("T")


class Run:
    """A run that W&B has begun. A thread of its own sends, so that a slow W&B holds nothing up.

    With W&B's first failure it says so and sends no more.
    """

    def __init__(self, run: Any, folder: Path) -> None:
        self._run, self._folder = run, folder
        self._works = True
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._sender = threading.Thread(target=self._work, daemon=True)
        self._sender.start()

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Send scalars; those of one step make one row."""
        if values:
            self.then(lambda: self._run.log(values, step=step))

    def image(self, step: int, name: str, path: Path) -> None:
        """Send a picture that lies on disk, and note it down for a resumed run."""
        note = {"step": step, "name": name, "path": os.path.relpath(path, self._folder)}
        with contextlib.suppress(OSError), open(self._folder / PICTURES, "a") as file:
            file.write(as_lines([note]))
        self._send_picture(note)

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
        self._sender.join(PATIENCE)
        if self._sender.is_alive():
            self._works = False
            self._say_unsent()

    def _send_picture(self, note: Row) -> None:
        import wandb

        path = str(self._folder / note["path"])
        self.then(lambda: self._run.log({note["name"]: wandb.Image(path)}, step=note["step"]))

    def _work(self) -> None:
        while (what := self._queue.get()) is not None and self._works:
            try:
                what()
            except TimeoutError:
                self._works = False
                self._say_unsent()
            except Exception as error:  # whatever fails in tracking must not end a run
                self._works = False
                print(f"warning: W&B failed ({_reason(error)}); metrics.jsonl only from here")

    def _say_unsent(self) -> None:
        place = Path(self._run.dir).parent
        print(f"warning: W&B is still sending; `wandb sync {place}` does the rest")


def start(
    folder: Path,
    option: TrackingMode,
    config: dict[str, Any],
    group: str,
    earlier: Sequence[Row] = (),
    resume_step: int | None = None,
) -> Run | None:
    """Begin the run of `folder`, or go on with it.

    Parameters
    ----------
    folder : of the run; its name is the run's name at W&B
    option : `--tracking`
    config, group : as W&B's
    earlier : the rows that a resumed run has logged before
    resume_step : the last step of before; none where the run begins

    Returns
    -------
    None where nothing is to be tracked, or W&B does not work at all.
    """
    if option == "none":
        return None
    # before wandb is imported. Its reports of its own errors can hold an exit for 30 seconds
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    mode = choose_mode(option)
    pictures = _pictures_until(folder, -1 if resume_step is None else resume_step)
    older = _parts(folder, _read_identity(folder))
    attempts: tuple[Mode, ...] = () if mode is None else (mode,)
    if mode == "online":
        attempts = ("online", "offline")
    for attempt in attempts:
        run = _begin(folder, attempt, config, group)
        if run is not None:
            tracked = Run(run, folder)
            tracked.replay(earlier, pictures)
            new = Path(run.dir).parent.name
            others = [part for part in older if part.name != new]
            tracked.then(partial(_set_aside, others))  # once the new folder holds all of theirs
            return tracked
        older += _parts(folder, _read_identity(folder))  # what the failed attempt began
    return None


def choose_mode(option: TrackingMode) -> Mode | None:
    """What `--tracking` and WANDB_MODE ask for; none is no tracking at W&B.

    An option that was given wins over the environment, and says so; under `auto` WANDB_MODE
    decides, else whether there is a key. Online without a key is offline: W&B would ask for one.
    """
    said = os.environ.get("WANDB_MODE", "").strip().lower()
    if said and said not in MODES:
        print(f"warning: WANDB_MODE={said} is none of {', '.join(MODES)}; metrics.jsonl only")
        return None
    if option == "none":
        return None
    if option == "auto":
        wanted = MODES[said] if said else "online" if has_key() else "offline"
    else:
        wanted = "online" if option == "wandb" else "offline"
        if said and MODES[said] != wanted:
            print(f"warning: --tracking {option} overrules WANDB_MODE={said}")
    if wanted == "online" and not has_key():
        print("warning: W&B has no API key (WANDB_API_KEY or `wandb login`); going on offline")
        return "offline"
    return wanted


def has_key() -> bool:
    """True where W&B would find a key without asking: in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        host = urlparse(_server()).hostname or ""
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except Exception:  # no such file, not readable, no netrc; W&B's own settings damaged
        return False


def within(seconds: float, function: Callable[[], T]) -> T:
    """What `function` gives, or raises. After `seconds` a TimeoutError: it is left to itself."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # SystemExit too: W&B's own end is not the run's
            is_error = isinstance(error, Exception)
            future.set_exception(error if is_error else RuntimeError(repr(error)))

    threading.Thread(target=work, daemon=True).start()
    return future.result(seconds)


def _begin(folder: Path, mode: Mode, config: dict[str, Any], group: str) -> Any:
    """W&B's run, or None after a warning."""
    try:
        if mode == "online":
            _knock()
        identity = _identity(folder, mode)
        with contextlib.redirect_stdout(io.StringIO()):
            return within(PATIENCE, lambda: _init(folder, identity, mode, config, group))
    except Exception as error:  # whatever fails in tracking must not end a run
        then = "going on offline" if mode == "online" else "metrics.jsonl only"
        print(f"warning: W&B {mode} did not start ({_reason(error)}); {then}")
        return None


def _init(folder: Path, identity: str, mode: Mode, config: dict[str, Any], group: str) -> Any:
    import wandb

    ours: dict[str, Any] = {
        "project": "dermsynth",
        "dir": folder,
        # a run that is to replace another is written beside it, in a hidden folder
        "name": folder.name.removeprefix(".").removesuffix(".unfinished"),
        "group": group,
    }
    limit = 0.8 * PATIENCE  # W&B gives up first, in good order
    return wandb.init(
        **{key: value for key, value in ours.items() if not os.environ.get(VARIABLES[key])},
        id=identity,
        resume="allow" if mode == "online" else None,
        config=config,
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
        print(f"warning: {path}: {_reason(error)}; W&B gets no earlier pictures")
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


def _knock() -> None:
    """Raise ConnectionError where nobody answers at the server, before W&B tries at length."""
    import requests

    url = _server()

    def ask() -> None:
        requests.get(
            url,
            auth=lambda request: request,  # else the key of ~/.netrc goes along
            timeout=PATIENCE / 4,
            allow_redirects=False,
            stream=True,
        ).close()

    try:
        within(PATIENCE / 2, ask)
    except requests.exceptions.SSLError:
        return  # somebody is there; W&B has certificates of its own
    except (requests.exceptions.RequestException, TimeoutError):
        raise ConnectionError(f"{url} does not answer") from None


def _server() -> str:
    """The address of W&B's server: the environment's, that of `wandb login`, or the public one."""
    if os.environ.get("WANDB_BASE_URL"):
        return os.environ["WANDB_BASE_URL"]
    import wandb

    return str(wandb.setup().settings.base_url)


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
