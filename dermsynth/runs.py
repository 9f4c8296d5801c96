"""Folders of runs that can be resumed: `--out`, `--resume`, `--overwrite`."""

import os
import shutil
from pathlib import Path
from typing import Any

from dermsynth.cli import read_yaml, save_options
from dermsynth.errors import UserError
from dermsynth.files import check_replaceable
from dermsynth.options import as_plain

CONFIG = "config.yaml"


def free_name(folder: Path, stem: str) -> Path:
    """`folder/stem`, or `folder/stem-2`, `-3`, ... : the first that is not taken."""
    number = 1
    while (path := folder / (stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return path


def open_run(
    out: Path, options: Any, resume: bool, overwrite: bool, may_change: tuple[str, ...] = ()
) -> None:
    """Make a run's folder, or step back into it, and write `config.yaml`.

    With `overwrite` what was there is set aside as `NAME.previous` and only `finish_run` removes
    it. With `resume` every option but `may_change` must equal the saved one.

    Raises UserError where the folder is taken, where there is nothing to resume, or where options
    changed (the message shows the difference).

    Parameters
    ----------
    out : the run's folder
    options : a frozen dataclass, written to `config.yaml`
    resume, overwrite : as the options of these names
    may_change : flat names of options that may differ on a resume
    """
    if resume:
        _check_same_options(out, options, may_change)
        return
    check_replaceable(out, CONFIG, overwrite)
    if out.exists() and any(out.iterdir()):
        if _previous(out).exists():
            shutil.rmtree(out)  # it never finished; what it was to replace is still set aside
        else:
            os.replace(out, _previous(out))
    out.mkdir(parents=True, exist_ok=True)
    save_options(options, out)


def finish_run(out: Path) -> None:
    """The run is complete: what it replaced can go."""
    shutil.rmtree(_previous(out), ignore_errors=True)


def _previous(out: Path) -> Path:
    return out.with_name(f"{out.name}.previous")


def _check_same_options(out: Path, options: Any, may_change: tuple[str, ...]) -> None:
    if not (out / CONFIG).exists():
        raise UserError(f"--resume: {out} holds no {CONFIG}; run without --resume to start there")
    before, now = read_yaml(out / CONFIG), as_plain(options)
    skipped = {"resume", "overwrite", *may_change}
    changed = [key for key in now if key not in skipped and before.get(key) != now[key]]
    if changed:
        lines = "".join(f"\n  {key}: was {before.get(key)}, now {now[key]}" for key in changed)
        raise UserError(
            f"--resume {out}: options changed; give the same ones or a new --out{lines}"
        )
