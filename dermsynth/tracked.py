"""What a tracked run is called and belongs to: its job, config, group, tags and inputs."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dermsynth import manifest
from dermsynth.manifest import Identity
from dermsynth.options import flat

Job = Literal["data", "gan", "pool", "train", "evaluate", "predict", "export", "compare"]
Label = str | int | float | None
IMAGES = "DERMSYNTH_TRACK_IMAGES"  # the variable that leaves pictures of lesions out
LONGEST_TAG = 64  # characters, of W&B


@dataclass(frozen=True)
class About:
    """A run, as its command describes it."""

    job: Job
    config: Mapping[str, Any]  # numbers as numbers, paths as text
    group: str  # for runs that belong to no experiment
    labels: Mapping[str, Label] = field(default_factory=dict)  # dataset, fold ...: config and tags
    axis: str | None = None  # the figure over which the others are drawn: epoch, kimg
    inputs: Mapping[str, Identity] = field(default_factory=dict)  # what it is made from


@dataclass(frozen=True)
class Named:
    """A run, as it is shown."""

    name: str
    job: Job
    group: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    axis: str | None
    part: bool = False  # of an experiment or of a run over several folds


@dataclass(frozen=True)
class _Place:
    """Where in an experiment this thread is at work."""

    experiment: str
    name: str
    labels: Mapping[str, Label]


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


@contextlib.contextmanager
def within_experiment(folder: Path, task: str, labels: Mapping[str, Label]) -> Iterator[None]:
    """What is tracked in this block belongs to the experiment in `folder`, as its `task`."""
    token = _place.set(_Place(shown(folder), task, labels))
    try:
        yield
    finally:
        _place.reset(token)


def named(about: About, folder: Path, name: str = "") -> Named:
    """The run of a folder; `name`: what it is called inside its folder's, where not the folder."""
    place = _place.get()
    labels = dict(about.labels) | (dict(place.labels) if place else {})
    labels = {key: value for key, value in labels.items() if value is not None}
    group = place.experiment if place else about.group
    whole = f"{place.experiment}/{place.name}" if place else _path_of(folder)
    tags = [f"{key}:{value}"[:LONGEST_TAG] for key, value in labels.items()]
    config = dict(about.config) | labels
    if place:
        config["experiment"] = place.experiment
        tags.append(f"experiment:{place.experiment}"[:LONGEST_TAG])
    config |= {f"input/{kind}": source.id for kind, source in about.inputs.items()}
    part = "/" in whole
    whole = f"{whole}/{name}" if name else whole
    return Named(whole, about.job, group, tuple(tags), config, about.axis, part)


def in_experiment(about: About, experiment: str) -> About:
    """A run that stands for the whole experiment: in its group, with its name in the config."""
    config = dict(about.config) | {"experiment": experiment}
    labels = dict(about.labels) | {"experiment": experiment}
    return replace(about, group=experiment, config=config, labels=labels)


def config_of(options: Any) -> dict[str, Any]:
    """Every option with its type: a number that an option holds as text (`0.3`) is a number."""
    return {name: _typed(value) for name, value in flat(options).items()}


def predictions(content: str) -> Identity:
    """The identity of a file of predictions with this SHA-256."""
    return of_file("predictions", content)


def of_file(kind: str, content: str) -> Identity:
    """The identity of a file of this kind with this SHA-256."""
    return Identity(kind=kind, id=content, parts={kind: content})


def shown(folder: Path) -> str:
    """A folder's name; one that is to replace another is written beside it, hidden."""
    return folder.absolute().name.removeprefix(".").removesuffix(".unfinished")


def sends_images() -> bool:
    """Whether pictures of lesions may be tracked; DERMSYNTH_TRACK_IMAGES=off leaves them out."""
    return os.environ.get(IMAGES, "on").strip().lower() in ("on", "1", "true", "yes", "")


def _typed(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_typed(item) for item in value]
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


def _path_of(folder: Path) -> str:
    """The folder's name below those of the folders that it is a part of: RUN/fold0."""
    names, here = [shown(folder)], folder.absolute().parent
    while (here / manifest.NAME).exists():
        names.insert(0, shown(here))
        here = here.parent
    return "/".join(names)
