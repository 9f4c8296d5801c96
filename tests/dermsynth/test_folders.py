"""The life of a folder: what a kill, a second process or a wrong --out leaves and gives."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dermsynth import folders, manifest
from dermsynth.errors import UserError
from dermsynth.folders import run_folder, whole_folder
from dermsynth.locks import Holder, locked, this_process
from dermsynth.manifest import digest, identify, seal

FORK = multiprocessing.get_context("fork")


def write(out, text="new", overwrite=False, key=None, kind="thing"):
    with whole_folder(out, kind, overwrite, key) as work:
        (work / "content.txt").write_text(text)
        seal(work, kind, {"content": digest(text)})


def content(out):
    return (out / "content.txt").read_text()


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def killed(target, *args):
    """Run in a process of its own that kills itself; returns its exit code."""
    process = FORK.Process(target=target, args=args)
    process.start()
    process.join(30)
    return process.exitcode


def die():
    os.kill(os.getpid(), signal.SIGKILL)


# --- whole folders -------------------------------------------------------------------------------


def test_a_folder_appears_whole_and_alone(tmp_path):
    write(tmp_path / "a")
    assert content(tmp_path / "a") == "new"
    assert left(tmp_path) == ["a"]
    assert left(tmp_path / "a") == ["content.txt", "manifest.json"]


def test_an_error_leaves_what_was_there(tmp_path):
    write(tmp_path / "a", "old")

    def fail():
        with whole_folder(tmp_path / "a", "thing", True) as work:
            (work / "content.txt").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert content(tmp_path / "a") == "old"
    assert left(tmp_path) == ["a"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_folders_of_the_same_kind_are_replaced(tmp_path, overwrite):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    write(tmp_path / "other", kind="another")
    (tmp_path / "file").write_text("mine")
    for name in ("home", "other", "file"):
        with pytest.raises(UserError, match=f"--out {tmp_path}/{name}"):
            write(tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["/", "//", "/tmp/..", "~"])
def test_a_folder_of_its_own_is_asked_for(place):
    with pytest.raises(UserError, match="a folder of its own"):
        write(Path(place).expanduser())


def _steps(out, key, overwrite, at):
    """Kill at the at-th rename, removal or new folder of `write`."""
    count = 0

    def counting(real):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == at:
                die()
            return real(*args, **kwargs)

        return call

    for name in ("replace", "rename", "mkdir", "unlink", "rmdir", "fsync", "remove"):
        setattr(os, name, counting(getattr(os, name)))
    write(out, "new", overwrite, key)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_and_the_next_call_heals(
    tmp_path, key, inside, monkeypatch
):
    for at in range(1, 60):
        base = tmp_path / str(at)
        out = base / "a"
        base.mkdir()
        write(out, "old")
        monkeypatch.chdir(out if inside else tmp_path)  # a working directory is never moved
        code = killed(_steps, out, key, True, at)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if not inside and out.exists():
            assert content(out) in ("old", "new")
        write(out, "newest", overwrite=True, key=key)
        assert content(out) == "newest"
        assert left(base) == ["a"]
        assert left(out) == ["content.txt", "manifest.json"]
    assert at > 5


def test_work_under_a_key_is_gone_on_with_after_a_kill(tmp_path):
    def begin():
        with whole_folder(tmp_path / "a", "thing", key="one") as work:
            (work / "first.txt").write_text("done")
            (work / ".content.txt.123.partial").write_text("half")
            die()

    assert killed(begin) == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    with whole_folder(tmp_path / "a", "thing", key="one") as work:
        assert left(work) == [".key", "first.txt"]
        seal(work, "thing", {})
    assert left(tmp_path / "a") == ["first.txt", "manifest.json"]


def test_work_under_another_key_begins_anew(tmp_path):
    def stop():
        with whole_folder(tmp_path / "a", "thing", key="one") as work:
            (work / "first.txt").write_text("done")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        stop()
    with whole_folder(tmp_path / "a", "thing", key="two") as work:
        assert left(work) == [".key"]
        seal(work, "thing", {})


def test_the_working_directory_can_be_the_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(Path(), "one")
    assert content(tmp_path / "here") == "one"
    assert Path.cwd() == tmp_path / "here"
    write(Path(), "two", overwrite=True)
    assert left(Path()) == ["content.txt", "manifest.json"]
    assert content(Path()) == "two"
    assert left(tmp_path) == ["here"]


# --- locks ---------------------------------------------------------------------------------------


def _hold(folder, ready, seconds):
    with locked(folder):
        ready.set()
        time.sleep(seconds)


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path):
    ready = FORK.Event()
    process = FORK.Process(target=_hold, args=(tmp_path / "a", ready, 30))
    process.start()
    ready.wait(10)
    with pytest.raises(UserError, match=f"process {process.pid} on .* is at work there"):
        write(tmp_path / "a")
    process.kill()
    process.join()
    write(tmp_path / "a")
    assert left(tmp_path) == ["a"]


def test_waiting_ends_when_the_other_process_does(tmp_path, capsys):
    ready = FORK.Event()
    process = FORK.Process(target=_hold, args=(tmp_path / "a", ready, 1.2))
    process.start()
    ready.wait(10)
    with locked(tmp_path / "a", wait=True):
        assert f"waiting for process {process.pid}" in capsys.readouterr().out
    process.join()


def test_a_lock_left_by_a_dead_process_whose_number_lives_again_holds_nobody_up(tmp_path):
    stale = this_process().model_copy(update={"pid": 1, "started": "0"})
    (tmp_path / ".a.lock").write_text(stale.model_dump_json())
    write(tmp_path / "a")
    assert left(tmp_path) == ["a"]


@pytest.mark.parametrize("text", ["", "[1]", "[" * 5000, "\x00", '{"pid": "x"}'])
def test_a_damaged_lock_file_holds_nobody_up(tmp_path, text):
    (tmp_path / ".a.lock").write_text(text)
    write(tmp_path / "a")
    assert left(tmp_path) == ["a"]


def test_a_holder_is_known_to_be_gone_only_where_that_can_be_known():
    here = this_process()
    assert here.may_be_alive
    assert not here.model_copy(update={"started": "12"}).may_be_alive
    assert not here.model_copy(update={"boot": "another"}).may_be_alive
    assert here.model_copy(update={"host": "elsewhere", "started": "12"}).may_be_alive
    assert here.model_copy(update={"namespace": "pid:[1]", "started": "12"}).may_be_alive
    assert isinstance(here, Holder)


def test_without_kernel_locks_the_record_decides(tmp_path, monkeypatch):
    import errno

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("dermsynth.locks.fcntl.flock", refuse)
    write(tmp_path / "a", "one")
    alive = this_process().model_copy(update={"pid": os.getppid()})
    parent = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19]
    (tmp_path / ".a.lock").write_text(
        alive.model_copy(update={"started": parent}).model_dump_json()
    )
    with pytest.raises(UserError, match=r"unless it is gone: then remove .*\.a\.lock"):
        write(tmp_path / "a", overwrite=True)
    another = alive.model_copy(update={"started": "1"})  # the process id was given away again
    (tmp_path / ".a.lock").write_text(another.model_dump_json())
    write(tmp_path / "a", "two", overwrite=True)
    assert content(tmp_path / "a") == "two"


def test_the_lock_goes_when_its_process_is_killed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from dermsynth.locks import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    write(tmp_path / "a")


# --- runs ----------------------------------------------------------------------------------------

OPTIONS = {"seed": 1, "epochs": 5, "data": "datasets/a", "out": "x", "device": "auto"}
DATASET = identify("dataset", {"targets": digest(1)}, {})


def inputs(identity=DATASET):
    return {"dataset": manifest.as_input(identity, Path("datasets/a"))}


def run(out, resume=False, overwrite=False, finish=True, text="model", data=None, **options):
    with run_folder(
        out,
        "thing",
        OPTIONS | options,
        inputs(data or DATASET),
        resume,
        overwrite,
        may_change=("data",),
    ) as folder:
        (folder.path / "model.txt").write_text(text)
        if finish:
            folder.finish({"model": digest(text)})
        return folder


def test_a_run_is_new_stopped_finished(tmp_path):
    out = tmp_path / "a"
    run(out, finish=False)
    assert not manifest.is_finished(out, "thing")
    with pytest.raises(UserError, match="not finished; --resume goes on with it"):
        run(out)
    assert run(out, resume=True).before is not None
    assert manifest.is_finished(out, "thing")
    with pytest.raises(UserError, match="exists already; choose another name or add --overwrite"):
        run(out)
    assert left(out) == ["manifest.json", "model.txt"]
    assert run(out, resume=True).was_finished


@pytest.mark.parametrize("off", [None, False, [], "", 0])
def test_an_option_that_did_not_exist_then_is_as_it_was_where_it_is_off(tmp_path, off):
    run(tmp_path / "a", finish=False)
    with pytest.raises(UserError, match="beside: was None, now"):
        run(tmp_path / "a", resume=True, beside=["lr=1"])
    assert run(tmp_path / "a", resume=True, beside=off).before is not None


def test_resume_names_options_and_inputs_that_changed(tmp_path):
    run(tmp_path / "a", finish=False)
    with pytest.raises(UserError, match="seed: was 1, now 2"):
        run(tmp_path / "a", resume=True, seed=2)
    other = identify("dataset", {"targets": digest(2)}, {})
    with pytest.raises(UserError, match="dataset: other targets"):
        run(tmp_path / "a", resume=True, data=other)
    with pytest.raises(UserError, match="nothing to go on with"):
        run(tmp_path / "b", resume=True)


def test_a_moved_run_and_another_device_are_resumed(tmp_path):
    run(tmp_path / "a", finish=False)
    (tmp_path / "a").rename(tmp_path / "b")
    run(tmp_path / "b", resume=True, device="cpu")
    assert manifest.is_finished(tmp_path / "b", "thing")


def test_what_is_overwritten_stays_until_the_new_run_is_finished(tmp_path):
    out = tmp_path / "a"
    run(out, text="old")
    run(out, overwrite=True, finish=False, text="half", seed=2)
    assert (out / "model.txt").read_text() == "old"
    assert manifest.is_finished(out, "thing")
    run(out, resume=True, text="new", seed=2)
    assert (out / "model.txt").read_text() == "new"
    assert left(tmp_path) == ["a"]


def test_a_second_overwrite_does_not_lose_the_last_finished_run(tmp_path):
    out = tmp_path / "a"
    run(out, text="precious")
    for seed in (2, 3):  # both are killed before they finish
        run(out, overwrite=True, finish=False, seed=seed)
    assert (out / "model.txt").read_text() == "precious"
    assert manifest.is_finished(out, "thing")


def test_a_stopped_run_can_be_overwritten_and_keeps_nothing(tmp_path):
    out = tmp_path / "a"
    run(out, finish=False)
    (out / "stale.txt").write_text("stale")
    run(out, overwrite=True)
    assert left(out) == ["manifest.json", "model.txt"]


def _begin(out, at):
    count = 0
    real = os.replace

    def replace(*args):
        nonlocal count
        count += 1
        if count == at:
            die()
        real(*args)

    os.replace = replace
    run(out)


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_while_the_manifest_is_written_leaves_a_folder_that_works(tmp_path, at):
    out = tmp_path / "a"
    assert killed(_begin, out, at) == -signal.SIGKILL
    run(out, resume=folders.can_resume(out))
    assert left(out) == ["manifest.json", "model.txt"]


def test_two_resumes_at_once_do_not_mix(tmp_path):
    out, ready = tmp_path / "a", FORK.Event()
    run(out, finish=False)
    process = FORK.Process(target=_hold, args=(out, ready, 30))
    process.start()
    ready.wait(10)
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError, match="is at work there"):
            run(out, **options)
    process.kill()
    process.join()


def test_the_manifest_of_a_run_holds_its_options_and_inputs(tmp_path):
    run(tmp_path / "a")
    values = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert values["options"] == OPTIONS
    assert values["inputs"]["dataset"]["id"] == DATASET.id
