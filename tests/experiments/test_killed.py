"""An experiment that is killed again and again comes to what an unbroken one does."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from fault_harness import preload
from fault_harness import run as run_forked

from data.prepare import PrepareOptions, prepare
from dermsynth.options import replace
from dermsynth.verify import verify

KILLS = 20
EXPERIMENT = {
    "seeds": [0, 1],
    "gan_seeds": [0],
    "folds": [0],
    "bootstrap": 1000,
    "gan": {"arch": "dcgan", "kimg": 0.016, "batch": 8, "evaluations": 0},
    "classifier": {
        **{"backbone": "efficientnet-lite0", "weights": "none", "frozen": 5, "epochs": 1},
        **{"size": 32, "views": 1},
    },
    "arms": {"real": {}, "synthetic": {"synthetic": 0.3}},
    "comparisons": [["synthetic", "real"]],
}
LINE = "experiments.run e.yaml --data data --device cpu --tracking none"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
Start = Callable[[list[str], float | None], int]  # words, seconds until it is killed -> exit code


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    sizes = {"patients": 90, "prevalence": 0.3, "size": 32, "folds": 3, "test_fraction": 0.0}
    prepare(replace(PrepareOptions(), **sizes, out=folder / "data"))
    (folder / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    preload()
    return folder


@pytest.fixture(scope="module")
def unbroken(work: Path) -> tuple[Path, float]:
    """Its folder, and how long it took once the dataset's evaluation network was there."""
    for name in ("a/first", "b/out"):
        began = time.monotonic()
        outcome = run_forked([*LINE.split(), "--out", name], work)
        assert outcome.code == 0, str(outcome)
    return work / "b/out", time.monotonic() - began


def forked(work: Path) -> Start:
    """One process, without the seconds in which it begins."""

    def start(words: list[str], seconds: float | None) -> int:
        def fuse() -> None:
            time.sleep(seconds or 0)
            os.kill(os.getpid(), signal.SIGKILL)

        def before() -> None:
            if seconds is not None:
                threading.Thread(target=fuse, daemon=True).start()

        outcome = run_forked(words, work, before=before)
        assert outcome.code in (0, -signal.SIGKILL), str(outcome)
        return outcome.code

    return start


def with_workers(work: Path) -> Start:
    """A runner that is killed, with its workers left to find that out."""

    def start(words: list[str], seconds: float | None) -> int:
        command = [sys.executable, "-m", *words, "--workers", "2"]
        with open(work / "log", "ab") as log:
            process = subprocess.Popen(command, cwd=work, stdout=log, stderr=log)
        try:
            process.wait(seconds and seconds + 6)  # it takes seconds to begin
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.returncode in (0, -signal.SIGKILL), (work / "log").read_text()[-2000:]
        return process.returncode

    return start


def moments(most: float, count: int, seed: int) -> Iterator[float]:
    numbers = random.Random(seed)
    yield from (numbers.uniform(0, most) for _ in range(count))


@pytest.mark.parametrize(("way", "kills"), [(forked, KILLS), (with_workers, KILLS // 4)])
def test_killed_at_random_moments_it_comes_to_the_same(
    work: Path, unbroken: tuple[Path, float], way: Callable[[Path], Start], kills: int
):
    start, killed, number = way(work), 0, 0
    for seconds in moments(0.5 * unbroken[1], 10 * kills, 0):
        out = f"{way.__name__}{number}/out"  # in a folder of its own: nothing is found beside it
        ended = start([*LINE.split(), "--out", out, "--resume"], seconds)
        killed += ended != 0
        if ended == 0 or killed == kills:
            assert start([*LINE.split(), "--out", out, "--resume"], None) == 0
            compare(work / out, unbroken[0])
            number += 1
        if killed == kills:
            break
    assert killed == kills


def compare(found: Path, expected: Path) -> None:
    comparisons = [json.loads((out / "comparisons.json").read_text()) for out in (found, expected)]
    assert comparisons[0] == comparisons[1]
    tables = [pd.read_parquet(out / "trials.parquet") for out in (found, expected)]
    pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))
    assert not [check for check in verify(found) if check.faults]
    assert not list(found.glob(".features"))
