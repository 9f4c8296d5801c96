"""What a run is called, and all that W&B and TensorBoard get of it, read back from their files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wandb_files import Tracked, only_run
from wandb_server import Server, sync

from dermsynth import options as options_module
from dermsynth.errors import UserError
from dermsynth.manifest import Identity, begin
from dermsynth.options import ComputeOptions, RunOptions, check_bounds
from dermsynth.tracked import About, config_of, in_experiment, named, within_experiment
from dermsynth.tracking import Report, Tracker, harmless

ABOUT = About("train", {"lr": 0.1}, "data-net", {"dataset": "d", "fold": 1, "test_fold": None})
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from dermsynth.manifest import Identity
from dermsynth.tracked import About
from dermsynth.tracking import Report, Tracker
folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
picture = np.full((8, 8, 3), 90, np.uint8)
page = folder / "page.html"
page.write_text("<p>lesions</p>")
one = Identity(kind="dataset", id="a" * 64, parts={})
two = Identity(kind="model", id="b" * 64, parts={})
config, labels = {"lr": 0.5, "smoke": True}, {"arm": "real"}
about = About("train", config, "the-group", labels, "epoch", {"data": one})
with Tracker(folder, sys.argv[2], about) as tracker:
    for epoch in (1, 2):
        tracker.log(epoch * 10, epoch=epoch, val_auc=epoch / 4)
    tracker.final(21, **{"test/auc": 0.75})
    tracker.image(21, "pictures", picture)
    tracker.image(21, "plot", picture, of_lesions=False)
    tracker.table("failures", ["id", "image"], [["x", picture], ["y", picture]])
    tracker.curves("test", np.arange(20) % 2, rng.random(20), 0.5, ("nevus", "melanoma"))
    tracker.curves("val", np.zeros(4), rng.random(4), 0.5, ("nevus", "melanoma"))
    tracker.lines("dose", "share", {"mean": ([0.0, 0.5], [0.7, 0.8])})
    tracker.page("report", page)
    tracker.made(two, page, n=3)
(folder / "later").mkdir()
with Report(folder / "later", sys.argv[2], About("data", {}, "g")) as report:
    report.summary(images=7, nothing=None)
"""


def run_script(folder: Path, mode: str = "offline", **env: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    kept |= {"HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])} | env
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), mode],
        env=kept,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Tracked:
    folder = tmp_path_factory.mktemp("w") / "net"
    folder.mkdir()
    assert run_script(folder) == ""
    return only_run(folder)


# --- what W&B gets -------------------------------------------------------------------------------


def test_job_group_tags_and_typed_config(whole: Tracked):
    assert (whole.name, whole.group, whole.job) == ("net", "the-group", "train")
    assert whole.tags == ("arm:real",)
    assert whole.config["lr"] == 0.5
    assert whole.config["smoke"] is True
    assert whole.config["arm"] == "real"
    assert whole.config["input/data"] == "a" * 64


def test_figures_are_drawn_over_their_own_axis_and_results_are_no_points(whole: Tracked):
    assert whole.metrics == {"epoch": "", "*": "epoch"}
    points = [(row["epoch"], row["val_auc"]) for row in whole.rows if "val_auc" in row]
    assert points == [(1, 0.25), (2, 0.5)]
    assert whole.summary["test/auc"] == 0.75
    assert not any("test/auc" in row for row in whole.rows)


def test_pictures_tables_curves_and_pages_arrive(whole: Tracked):
    for name in ("pictures", "plot"):
        assert Image.open(whole.media(name)).getpixel((0, 0)) == (90, 90, 90)
    columns, rows = whole.table("failures")
    assert columns == ["id", "image"]
    assert [row[0] for row in rows] == ["x", "y"]
    (pictured,) = (one for name, one in whole.made.items() if name.endswith("-failures"))
    paths = [entry.path for entry in pictured.manifest.contents]
    assert sum(path.endswith(".png") for path in paths) == 1  # equal pictures are kept once
    columns, rows = whole.table("test/confusion_table")
    assert sum(row[columns.index("nPredictions")] for row in rows) == 20
    assert {row[0] for row in rows} == {"nevus", "melanoma"}
    assert set(whole.table("test/roc_table")[0]) == {"class", "fpr", "tpr"}
    assert set(whole.table("test/pr_table")[0]) == {"class", "recall", "precision"}
    assert not any(name.startswith("val/") for name in whole.keys)  # one class: no curve
    assert sorted(row[2] for row in whole.table("dose_table")[1]) == [0.7, 0.8]
    assert "lesions" in whole.media("report").read_text()


def test_artifacts_hold_content_ids_and_no_content(whole: Tracked):
    made, used = whole.made["model-" + "b" * 12], whole.used["dataset-" + "a" * 12]
    assert (made.type, used.type) == ("model", "dataset")
    assert ("b" * 64) in made.metadata
    assert '"n":3' in made.metadata.replace(" ", "")
    assert {entry.path for entry in made.manifest.contents} == {"identity.json", "page.html"}
    assert {entry.path for entry in used.manifest.contents} == {"identity.json"}
    for entry in (*made.manifest.contents, *used.manifest.contents):
        assert Path(entry.local_path).is_file()  # beside the run, not in somebody's home
        assert Path(entry.local_path).is_relative_to(whole.path.parents[2])


def test_a_report_has_a_run_of_its_own_and_leaves_no_id(whole: Tracked):
    folder = whole.path.parents[2] / "later"
    report = only_run(folder)
    assert (report.name, report.job) == ("later", "data")
    assert report.summary["images"] == 7
    assert "nothing" not in report.summary
    assert not (folder / "wandb-id.txt").exists()


def test_pictures_of_lesions_are_left_out_where_that_is_asked(tmp_path: Path):
    run_script(tmp_path, DERMSYNTH_TRACK_IMAGES="off")
    run = only_run(tmp_path)
    assert run.table("failures") == (["id"], [["x"], ["y"]])
    assert not {name for name in run.keys if name.startswith(("pictures", "report"))}
    assert "plot/path" in run.keys
    (made,) = (one for name, one in run.made.items() if name.startswith("model"))
    assert {entry.path for entry in made.manifest.contents} == {"identity.json"}


OWN = ["dataset-" + "a" * 12, "model-" + "b" * 12]


def test_a_server_learns_what_was_made_from_what(tmp_path: Path):
    server = Server()
    said = run_script(tmp_path, "wandb", WANDB_API_KEY="a" * 40, WANDB_BASE_URL=server.url)
    assert all(line.startswith("note: W&B gets figures") for line in said.splitlines())
    assert [name for name in server.made if not name.startswith("run-")] == OWN
    assert server.used == OWN[:1]
    (rows,) = (rows for rows in server.history.values() if rows)
    assert [row["val_auc"] for row in rows if "val_auc" in row] == [0.25, 0.5]


def test_a_server_learns_the_same_from_a_run_that_is_synced(whole: Tracked, tmp_path: Path):
    server = Server()
    sync(whole.path.parent, server, tmp_path)
    assert sorted(name for name in server.made if not name.startswith("run-")) == OWN
    assert server.used == OWN[:1]


@pytest.mark.slow
def test_what_a_server_refuses_costs_that_alone(tmp_path: Path):
    server = Server()
    server.answer_of_artifacts = lambda operation, variables: {}
    said = run_script(tmp_path, "wandb", WANDB_API_KEY="a" * 40, WANDB_BASE_URL=server.url)
    assert said.count("warning: W&B takes not all of the run (") == 1
    (rows,) = (rows for rows in server.history.values() if rows)
    assert [row["val_auc"] for row in rows if "val_auc" in row] == [0.25, 0.5]


# --- names ---------------------------------------------------------------------------------------


def test_a_run_is_named_by_its_folder_and_those_that_it_is_a_part_of(tmp_path: Path):
    whole = tmp_path / ".cv.unfinished"
    fold = whole / "fold0"
    fold.mkdir(parents=True)
    assert named(ABOUT, fold).name == "fold0"
    begin(whole, "classifier-folds", {}, {})
    assert named(ABOUT, fold).name == "cv/fold0"
    assert named(ABOUT, tmp_path, "scores").name == f"{tmp_path.name}/scores"


def test_tags_and_config_tell_what_a_run_is_about(tmp_path: Path):
    run = named(ABOUT, tmp_path)
    assert run.tags == ("dataset:d", "fold:1")
    assert run.config == {"lr": 0.1, "dataset": "d", "fold": 1}
    assert run.group == "data-net"
    long = named(About("train", {}, "g", {"dataset": "n" * 99}), tmp_path)
    assert len(long.tags[0]) == 64


def test_a_task_belongs_to_its_experiment(tmp_path: Path):
    folder = tmp_path / ".dose.unfinished"
    with within_experiment(
        folder, "fold0/synthetic-seed0-gan1", {"arm": "synthetic", "gan_seed": 1}
    ):
        run = named(ABOUT, folder / "trials")
    assert (run.name, run.group) == ("dose/fold0/synthetic-seed0-gan1", "dose")
    assert run.tags == ("dataset:d", "fold:1", "arm:synthetic", "gan_seed:1", "experiment:dose")
    assert (run.config["experiment"], run.config["arm"]) == ("dose", "synthetic")
    assert named(ABOUT, folder).group == "data-net"
    assert in_experiment(ABOUT, "dose").group == "dose"


def test_numbers_are_numbers_and_paths_text():
    config = config_of(RunOptions(out=Path("runs/7")))
    assert config == {
        "out": "runs/7", "overwrite": False, "tracking": "auto", "resume": False
    }  # fmt: skip
    assert config_of(ComputeOptions())["device"] == "auto"

    from classifier.options import TrainOptions
    from dermsynth.options import replace

    options = replace(TrainOptions(), synthetic="0.3", lr=0.001, data=Path("12"), external=("a=1",))
    config = config_of(options)
    assert (config["synthetic"], config["lr"], config["smoke"]) == (0.3, 0.001, False)
    assert (config["data"], config["external"], config["frozen"]) == ("12", ["a=1"], None)
    assert config_of(replace(options, synthetic="balanced"))["synthetic"] == "balanced"


# --- TensorBoard ---------------------------------------------------------------------------------


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


def test_tensorboard_gets_scalars_pictures_and_tables(tmp_path: Path):
    made = Identity(kind="model", id="b" * 64, parts={})
    with Tracker(tmp_path, "tensorboard", ABOUT) as tracker:
        tracker.log(5, loss=0.5, word="left out", bad=float("nan"))
        tracker.log(10, loss=0.25)
        Image.new("RGB", (8, 4)).save(tmp_path / "x.png")
        tracker.image(10, "samples", tmp_path / "x.png")
        tracker.table("folds", ["fold", "image"], [[0, np.zeros((8, 8, 3), np.uint8)]])
        tracker.curves("test", np.array([0, 1, 1]), np.array([0.1, 0.7, 0.9]), 0.5, ("a", "b"))
        tracker.lines("dose", "share", {"mean": ([0.0, 0.5], [0.7, 0.8])})
        tracker.made(made)
        tracker.final(11, auc=0.8)
    found = events(tmp_path)
    assert [(point.step, point.value) for point in found.Scalars("loss")] == [(5, 0.5), (10, 0.25)]
    assert found.Scalars("final/auc")[0].value == pytest.approx(0.8)
    assert set(found.Tags()["scalars"]) == {"loss", "final/auc"}
    assert found.Images("samples")[0].width == 8
    assert {"samples", "folds/0"} <= set(found.Tags()["images"])
    words = {tag.removesuffix("/text_summary") for tag in found.Tags()["tensors"]}
    assert {"config", "folds", "dose", "made/model", "test/pr"} <= words
    assert not (tmp_path / "wandb").exists()


def test_a_resumed_run_takes_the_steps_after_its_checkpoint_back(tmp_path: Path):
    with Tracker(tmp_path, "tensorboard", ABOUT) as tracker:
        for step in (1, 2, 3):
            tracker.log(step, loss=float(step))
    with Tracker(tmp_path, "tensorboard", ABOUT, resume_step=2) as tracker:
        tracker.log(3, loss=9.0)
    points = [(point.step, point.value) for point in events(tmp_path).Scalars("loss")]
    assert points == [(1, 1.0), (2, 2.0), (3, 9.0)]


def test_a_run_that_begins_anew_has_no_events_of_before(tmp_path: Path):
    for value in (1.0, 2.0):
        with Tracker(tmp_path, "tensorboard", ABOUT) as tracker:
            tracker.log(1, loss=value)
    assert [point.value for point in events(tmp_path).Scalars("loss")] == [2.0]


def test_without_its_package_tensorboard_is_refused_before_any_work(monkeypatch):
    check_bounds(RunOptions(tracking="tensorboard"))
    monkeypatch.setattr(options_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package tensorboard: pip install.*tensorboard"):
        check_bounds(RunOptions(tracking="tensorboard"))
    check_bounds(RunOptions(tracking="offline"))


# --- a report that goes nowhere ------------------------------------------------------------------


def test_a_report_without_tracking_does_nothing(tmp_path: Path):
    with Report(tmp_path, "none", ABOUT) as report:
        report.summary(a=1)
        report.table("t", ["a"], [[1]])
        report.image(0, "i", tmp_path / "none.png")
        report.close()
    assert list(tmp_path.iterdir()) == []


def test_a_fault_in_telling_fails_no_command(capsys):
    @harmless
    def track(name: str) -> None:
        raise KeyError(name)

    track("kid")
    assert capsys.readouterr().out == (
        "warning: not tracked ('kid'); the results are there all the same\n"
    )


def test_a_long_table_is_cut_and_said(tmp_path: Path, capsys):
    with Report(tmp_path, "tensorboard", ABOUT) as report:
        report.table("long", ["row"], [[row] for row in range(10_001)])
    assert "table long: the first 10,000 of 10,001 rows are tracked" in capsys.readouterr().out
