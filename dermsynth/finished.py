"""What is told that a command has finished a folder: the gallery of runs, say.

Imports go one way, so whoever wants to be told is an entry point of the group GROUP: a function of
the folders' paths. It is called when the command has ended well; an experiment's trainings are no
commands. Where the project was installed before its entry points were there, nobody is told.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

GROUP = "dermsynth.finished"
_folders: ContextVar[list[Path] | None] = ContextVar("folders", default=None)


@contextlib.contextmanager
def command() -> Iterator[None]:
    """A command, in which `note` is heard; outside of one nobody is told anything."""
    token = _folders.set([])
    try:
        yield
    finally:
        _folders.reset(token)


def note(folder: Path) -> None:
    """A folder is finished."""
    folders = _folders.get()
    if folders is not None:
        folders.append(folder)


def tell() -> None:
    """Tell of the folders that were finished since the last call; no fault fails the command."""
    folders = _folders.get()
    if not folders:
        return
    from importlib.metadata import distributions  # here: --help does not wait for them

    from dermsynth.wandb_modes import reason

    told, folders[:] = tuple(folders), []
    # entry_points() would ask one installation alone, perhaps what an older build left here
    installed = {one for found in distributions() for one in found.entry_points.select(group=GROUP)}
    for listener in sorted(installed):
        try:
            listener.load()(told)
        except Exception as error:  # of a listener, which may be anybody's
            print(f"warning: {listener.name} not updated ({reason(error)})")
