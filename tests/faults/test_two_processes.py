"""Two processes in one folder: one is refused or waits, and what is there is one run's alone."""

import multiprocessing
import shutil
import time
from pathlib import Path

import pytest
from commands import CLASSIFIER, GAN
from fault_harness import FAILED, REFUSED, SAME, Table, identity, run

pytestmark = pytest.mark.slow
FORK = multiprocessing.get_context("fork")
LONG = {  # commands that are at work while another comes
    "gan.train": f"gan.train --data p {GAN.replace('0.032', '40')} --out new",
    "classifier.train": f"classifier.train --data p {CLASSIFIER.replace('s 2', 's 60')} --out new",
    "data.prepare": "data.prepare --source phantom --patients 4000 --size 32 --out new",
    "experiments.run": "experiments.run e.yaml --data p2 --out new --tracking none",
}  # fmt: skip


@pytest.mark.parametrize("more", ["", "--overwrite", "--resume"])
@pytest.mark.parametrize("name", LONG)
def test_a_second_process(inputs: Path, tmp_path: Path, table: Table, name: str, more: str):
    if name == "data.prepare" and more == "--resume":
        pytest.skip("has no --resume")
    work, beside = tmp_path / "work", tmp_path / "beside"
    shutil.copytree(inputs, work)
    beside.mkdir()
    line = LONG[name].split()
    first = FORK.Process(target=_run_elsewhere, args=(line, work, beside))
    first.start()
    while not list(work.glob(".new.lock")) and first.is_alive():
        time.sleep(0.05)
    time.sleep(0.5)
    second = run([*line, *more.split()], work)
    is_refused = second.is_one_line and ("is at work" in second.output or not more)
    table.add(f"second process: {name} {more}", REFUSED if is_refused else FAILED, str(second))
    first.kill()
    first.join()
    table.check()


def _run_elsewhere(line: list[str], work: Path, beside: Path) -> None:
    """As `run`, its log and counts apart from those of the other process."""
    import os
    import runpy
    import sys

    log = os.open(beside / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(work)
    sys.argv = line
    runpy.run_module(line[0], run_name="__main__", alter_sys=True)


def test_the_default_phantom_is_drawn_once_and_shared(tmp_path: Path, table: Table):
    """Two commands without --data at once: one draws, the other waits, says so and shares."""
    line = f"gan.train {GAN} --out first".split()
    second = f"gan.train {GAN} --out second".split()
    beside = tmp_path / "beside"
    beside.mkdir()
    process = FORK.Process(target=_run_elsewhere, args=(line, tmp_path, beside))
    process.start()
    while not list(tmp_path.glob("datasets/.phantom.lock")) and process.is_alive():
        time.sleep(0.05)
    outcome = run(second, tmp_path)
    process.join(180)
    shared = outcome.code == 0 and "waiting for process" in outcome.output
    words = f"{outcome}\nfirst: {process.exitcode} {(beside / 'log').read_text()[-1500:]}"
    made = [identity(tmp_path / name) for name in ("datasets/phantom", "first", "second")]
    table.add("two default phantoms at once", SAME if shared and all(made) else FAILED, words)
    table.check()
