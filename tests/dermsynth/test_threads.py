"""How threads wait is said before torch is loaded, by what else runs and as the user says."""

import os
import subprocess
import sys

import pytest

from dermsynth import threads
from dermsynth.threads import DECIDED_BY, WAITING, choose_waiting, is_crowded


@pytest.mark.parametrize("given", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}], ids=str)
def test_the_users_word_counts(given, monkeypatch):
    for name in DECIDED_BY:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(threads, "running", lambda: 99)
    choose_waiting()
    assert {name: os.environ[name] for name in DECIDED_BY if name in os.environ} == given


@pytest.mark.parametrize(("running", "crowded"), [(1, False), (2, True), (9, True)])
def test_threads_wait_passively_where_others_run(running, crowded, monkeypatch):
    for name in DECIDED_BY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "running", lambda: running)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert is_crowded() is crowded
    choose_waiting()
    found = {name: os.environ[name] for name in DECIDED_BY if name in os.environ}
    for name in WAITING:
        os.environ.pop(name, None)
    assert found == (WAITING if crowded else {})


def test_free_cores_beside_the_others_are_enough(monkeypatch):
    monkeypatch.setattr(threads, "running", lambda: 5)
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert not is_crowded()


def test_it_is_said_before_torch_is_loaded():
    code = "import sys, dermsynth; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_runs_is_counted_with_this_process():
    assert threads.running() >= 1
