"""The same tasks on a Ray cluster of several nodes on this machine."""

import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_tasks import FakeTask, run_fake
from test_found import run as run_here
from test_found import tasks_on

from data.prepare import PrepareOptions, prepare
from dermsynth.errors import UserError
from dermsynth.manifest import read_manifest
from dermsynth.options import replace
from experiments.executors import ray_cluster
from experiments.executors.ray_cluster import RayCluster, slots, task_resources
from experiments.executors.run_tasks import run_tasks
from experiments.executors.running import execute
from experiments.options import ExperimentOptions


class FakeRay:
    """Nodes as Ray tells of them."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self.resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": each} for each in self.resources]


def test_a_task_takes_a_gpu_with_its_share_of_the_cpus():
    ray = FakeRay({"CPU": 64, "GPU": 8}, {"CPU": 20, "GPU": 4}, {"CPU": 16})
    assert task_resources(ray, "auto") == {"num_cpus": 5, "num_gpus": 1}
    assert slots(ray, task_resources(ray, "auto")) == 12
    assert task_resources(ray, "cpu") == {"num_cpus": 1}
    assert slots(ray, task_resources(ray, "cpu")) == 100
    assert task_resources(FakeRay({"CPU": 2}), "auto") == {"num_cpus": 1}


@pytest.mark.parametrize(
    ("address", "match"),
    [("head", "expected HOST:PORT"), ("127.0.0.1:1", "nothing answers"), ("x:6379", "nothing")],
)
def test_an_address_without_a_cluster_is_refused_at_once(tmp_path: Path, address: str, match: str):
    pytest.importorskip("ray")
    began = time.monotonic()
    with pytest.raises(UserError, match=f"--address {address}: {match}"):
        RayCluster(tmp_path, run_fake, address, "auto")
    assert time.monotonic() - began < 10


def test_what_answers_and_is_no_cluster_is_refused_too(monkeypatch):
    ray = pytest.importorskip("ray")

    def init(**given: object) -> None:
        raise ConnectionError("Version mismatch:\n another Ray")

    monkeypatch.setattr(ray, "init", init)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=r"no Ray cluster there: .*Version mismatch: another"):
            ray_cluster.connect(address)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_without_ray_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"Ray is not installed .* 'dermsynth\[ray\]'"):
        RayCluster(tmp_path, run_fake, None, "auto")


# --- a cluster -----------------------------------------------------------------------------------


@pytest.fixture
def cluster(monkeypatch) -> Iterator[Any]:
    """A head that computes nothing, and two nodes of one CPU."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_node_is_killed_in_the_middle_and_all_is_done(cluster: Any, tmp_path: Path, capsys):
    victim = next(iter(cluster.worker_nodes))
    tasks = [FakeTask(f"t{number}", (), "until killed") for number in range(2)]
    tasks += [FakeTask("after", ("t0", "t1")), FakeTask("bug", (), "bug")]

    def kill() -> None:
        _wait_for_calls(tmp_path, 2)
        cluster.remove_node(victim, allow_graceful=False)
        (tmp_path / "killed").write_text("")

    killer = threading.Thread(target=kill)
    killer.start()
    failures = execute(tasks, RayCluster(tmp_path, run_fake, cluster.address, "auto"))
    killer.join()
    assert [failure.task for failure in failures] == ["bug"]
    assert (tmp_path / "after").exists()
    assert "runs again" in capsys.readouterr().out
    calls = Counter((tmp_path / "calls").read_text().split())
    assert calls["t0"] + calls["t1"] == 3  # the one that was lost came twice


@pytest.mark.slow
def test_results_are_those_of_this_process(cluster: Any, tmp_path: Path):
    data = tmp_path / "data"
    prepare(replace(PrepareOptions(), patients=40, prevalence=0.3, size=32, folds=3, out=data))
    tasks = tasks_on(data)
    here, there = tmp_path / "a" / "here", tmp_path / "b" / "there"
    for out in (here, there):
        out.mkdir(parents=True)
    run_here(tasks, here)
    options = replace(ExperimentOptions(Path("e")), executor="ray", address=cluster.address)
    assert run_tasks(tasks, there, options) == []
    for task in tasks:
        assert read_manifest(task.folder(here), "").id == read_manifest(task.folder(there), "").id
    assert not (there / ".features").exists()


@pytest.mark.slow
def test_a_folder_that_nodes_do_not_see_is_refused(cluster: Any, tmp_path: Path, monkeypatch):
    write = Path.write_text

    def elsewhere(path: Path, content: str, **given: Any) -> int:
        return write(path, "another file system" if path.name.startswith(".probe") else content)

    monkeypatch.setattr(Path, "write_text", elsewhere)
    with pytest.raises(UserError, match=r"node .*: does not see"):
        RayCluster(tmp_path, run_fake, cluster.address, "auto")


@pytest.mark.slow
def test_ctrl_c_lets_tasks_write_their_checkpoint(cluster: Any, tmp_path: Path):
    def settled(task: FakeTask) -> None:
        if task.name == "stop":
            _wait_for_calls(tmp_path, 2)
            raise KeyboardInterrupt

    tasks = [FakeTask(name, (), "checkpoint") for name in ("x", "y", "stop")]
    with pytest.raises(KeyboardInterrupt):
        execute(tasks, RayCluster(tmp_path, run_fake, cluster.address, "auto"), settled)
    assert (tmp_path / "x.checkpoint").exists()
    assert (tmp_path / "y.checkpoint").exists()


def _wait_for_calls(folder: Path, count: int) -> None:
    while not (folder / "calls").exists() or len((folder / "calls").read_text().split()) < count:
        time.sleep(0.05)
    time.sleep(0.3)
