"""What W&B holds in the end: read back from its files, and as a server on this machine gets it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from wandb_files import history, offline_files
from wandb_server import Server, environment, sync

NOBODY = "http://127.0.0.1:9"  # the discard port
ONLINE = (
    "note: W&B gets figures, curves and pictures of lesions; DERMSYNTH_TRACK_IMAGES=off leaves the "
    "pictures out\n"
)

# log steps FIRST to LAST; a picture every even step; "die" leaves without closing, as a kill does
SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
from PIL import Image
from dermsynth import wandb_modes
from dermsynth.tracked import About
from dermsynth.tracking import Tracker
wandb_modes.PATIENCE = 6.0
folder, mode, first, last, resume, end = sys.argv[1:]
folder = Path(folder)
resume = int(resume) if resume else None
tracker = Tracker(folder, mode, About("gan", {"lr": 1}, "the-group"), resume_step=resume)
for step in range(int(first), int(last) + 1):
    tracker.log(step, loss=step / 2)
    if step % 2 == 0:
        path = folder / f"{step}.png"
        Image.fromarray(np.full((8, 8, 3), step, np.uint8)).save(path)
        tracker.image(step, "samples", path)
if end == "die":
    import time
    time.sleep(1)
    os._exit(9)
tracker.close()
"""


def run(folder: Path, mode: str, first: int, last: int, resume="", end="", **env) -> str:
    """Track in a process of its own; its output."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), mode, *map(str, (first, last, resume, end))],
        env=environment(folder) | {f"WANDB_{key}": value for key, value in env.items()},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert done.returncode == (9 if end else 0), done.stderr
    return done.stdout


def expected(last: int) -> list[tuple[int, set[str]]]:
    return [(s, {"loss", "samples"} if s % 2 == 0 else {"loss"}) for s in range(1, last + 1)]


@pytest.mark.parametrize("mode", ["auto", "offline"])
def test_without_a_key_wandb_works_offline(tmp_path: Path, mode: str):
    assert run(tmp_path, mode, 1, 2) == ""
    (path,) = offline_files(tmp_path)
    assert path.parent.name.startswith("offline-run-")
    assert history(path) == expected(2)


def test_with_a_key_but_no_server_the_run_is_recorded_offline(tmp_path: Path):
    start = time.monotonic()
    said = run(tmp_path, "auto", 1, 3, API_KEY="a" * 40, BASE_URL=NOBODY)
    assert f"{NOBODY} does not answer); going on offline" in said
    (path,) = offline_files(tmp_path)
    assert history(path) == expected(3)
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_a_server_that_answers_nothing_useful_is_left(tmp_path: Path):
    server = Server()
    server.silent.set()
    said = run(tmp_path, "auto", 1, 3, API_KEY="a" * 40, BASE_URL=server.url)
    assert "going on offline" in said
    (path,) = offline_files(tmp_path)  # what the failed attempt began is set aside
    assert history(path) == expected(3)


@pytest.mark.slow
@pytest.mark.slow
def test_a_killed_and_resumed_offline_run_holds_every_step_once(tmp_path: Path):
    run(tmp_path, "offline", 1, 5, end="die")
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 6, "l\xff')
    time.sleep(1)  # W&B's folders are named by the second
    run(tmp_path, "offline", 4, 7, resume=3, end="die")
    time.sleep(1)
    said = run(tmp_path, "offline", 6, 9, resume=5)
    assert said == ""
    (path,) = offline_files(tmp_path)
    assert history(path) == expected(9)
    assert len([*path.parent.glob("files/media/images/*.png")]) == 4
    assert len([*tmp_path.glob("wandb/superseded/*")]) == 2  # nothing is deleted

    server = Server()
    sync(tmp_path / "wandb", server, tmp_path)
    (received,) = server.history.values()
    assert [row["_step"] for row in received] == [*range(1, 10)]
    assert [row["loss"] for row in received] == [step / 2 for step in range(1, 10)]


@pytest.mark.slow
def test_an_offline_run_that_was_synced_is_a_new_run_when_resumed(tmp_path: Path):
    server = Server()
    run(tmp_path, "offline", 1, 4)  # interrupted: closed in good order
    sync(tmp_path / "wandb", server, tmp_path)
    time.sleep(1)
    run(tmp_path, "offline", 4, 7, resume=3)
    sync(tmp_path / "wandb", server, tmp_path)
    first, second = server.history.values()
    assert [row["_step"] for row in second] == [*range(1, 8)]
    assert len({row["_step"] for row in first}) == len(first)


@pytest.mark.slow
def test_a_killed_and_resumed_online_run_holds_every_step_once(tmp_path: Path):
    server = Server()
    online = {"API_KEY": "a" * 40, "BASE_URL": server.url}
    run(tmp_path, "auto", 1, 5, end="die", **online)
    (rows,) = server.history.values()
    del rows[2:]  # the server lacks what was on its way
    time.sleep(1)
    assert run(tmp_path, "auto", 5, 8, resume=4, **online) == ONLINE
    (rows,) = server.history.values()
    assert [row["_step"] for row in rows] == [*range(1, 9)]


@pytest.mark.slow
def test_an_offline_run_that_goes_on_online_is_whole_at_the_server(tmp_path: Path):
    server = Server()
    run(tmp_path, "offline", 1, 5, end="die")
    time.sleep(1)
    run(tmp_path, "wandb", 4, 6, resume=3, API_KEY="a" * 40, BASE_URL=server.url)
    (rows,) = server.history.values()
    assert [row["_step"] for row in rows] == [*range(1, 7)]
    assert not [path for path in offline_files(tmp_path) if "offline" in path.parent.name]


def test_names_of_the_environment_are_obeyed(tmp_path: Path):
    server = Server()
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    online = {"API_KEY": "a" * 40, "BASE_URL": server.url, "MODE": "online"}
    names = {"PROJECT": "theirs", "NAME": "my-name", "ENTITY": "our-team", "RUN_GROUP": "my-group"}
    run(folder, "auto", 1, 2, **online, **names, DIR=str(elsewhere))
    said = server.buckets[0]
    assert (said["project"], said["entity"], said["groupName"]) == (
        "theirs",
        "our-team",
        "my-group",
    )
    assert said["displayName"] == "my-name"
    assert [*elsewhere.glob("wandb/run-*")]
    assert not (folder / "wandb").exists()


@pytest.mark.slow
def test_ours_are_used_where_the_environment_has_none(tmp_path: Path):
    server = Server()
    run(tmp_path / "run", "auto", 1, 2, API_KEY="a" * 40, BASE_URL=server.url)
    said = server.buckets[0]
    assert (said["project"], said["groupName"], said["displayName"]) == (
        "dermsynth",
        "the-group",
        "run",
    )


def test_a_disabled_wandb_leaves_nothing(tmp_path: Path):
    run(tmp_path, "auto", 1, 2, MODE="disabled")
    run(tmp_path, "none", 1, 2, MODE="online", API_KEY="a" * 40, BASE_URL=NOBODY)
    assert not (tmp_path / "wandb").exists()
