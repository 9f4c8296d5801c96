"""The dashboard of an experiment: what it would make, without a server; what a server refuses."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wandb_workspaces.reports.v2 as wr
from wandb_server import Server, environment

from dermsynth import wandb_modes
from dermsynth.errors import UserError
from dermsynth.manifest import seal
from experiments import dashboard
from experiments.dashboard import DashboardOptions, main
from experiments.dashboard_panels import Place, describe, panels_by_section, workspace
from experiments.dashboard_report import report
from experiments.page import open_experiment, read_results
from experiments.tracked import arm_options, curves, forest, verdicts

PLACE = Place("team", "dermsynth", "dose")
ROOT = Path(__file__).parents[2]
# tests/data has a module of this name too
spec = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("test_report.py"))
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An experiment with the trainings' manifests: real and oversampled, and a dose of 0.3."""
    out = tmp_path_factory.mktemp("e") / "dose"
    pages.write_experiment(out)
    for arm, own in ARMS.items():
        for seed in (0, 1):
            trial = out / "trials" / "fold0" / f"{arm}-seed{seed}"
            trial.mkdir(parents=True)
            options = {"frozen": 11, "oversample": "0", "synthetic": "0", "seed": seed} | own
            seal(trial, "classifier", {}, options=options)
    return out


ARMS = {"real": {}, "real_oversampled": {"oversample": "0.3"}, "synthetic": {"synthetic": "0.3"}}


@pytest.fixture(scope="module")
def results(folder: Path):
    return read_results(open_experiment(folder))


def text_of(made: object) -> str:
    return made._to_model().model_dump_json(by_alias=True)  # as it is sent


def test_every_panel_is_there(results):
    sections = panels_by_section(results, ["synthetic"])
    assert list(sections) == [
        *("Verdict", "Seeds", "Dose: AUC by the share of synthetic images"),
        *("Training", "Generators"),
    ]
    made = workspace(PLACE, results, ["synthetic"])
    content = text_of(made)
    keys = ("differences", "comparisons", "trials", "samples", "val_auc", "loss_d", "grid/real")
    for name in (*keys, "curve/synthetic_table", "test/auc", "epoch", "kimg"):
        assert name in content, name
    for row in results.comparisons:  # the differences by arm
        assert f"{row['test_set']}/{row['arm']} - {row['reference']}/delta_auc" in content
    assert "frozen" not in "".join(sections)


def test_runs_are_those_of_the_experiment_by_arm(results):
    spec = json.loads(text_of(workspace(PLACE, results, [])))
    (runs,) = spec["spec"]["section"]["runSets"]
    assert "dose" in json.dumps(runs["filters"])
    assert [key["name"] for key in runs["grouping"]] == ["experiment.value", "arm.value"]
    assert (spec["entity"], spec["project"]) == ("team", "dermsynth")


def test_the_report_begins_with_the_verdict_and_has_every_figure(results):
    made = report(PLACE, results, ["synthetic"])
    said = [str(block.text) for block in made.blocks if isinstance(block, wr.P)]
    assert said[0].lower().startswith(("helps", results.comparisons[0]["verdict"]))
    (table,) = (block.text for block in made.blocks if isinstance(block, wr.MarkdownBlock))
    for row in results.comparisons:
        assert f"{row['delta_auc']:+.3f}" in table
    assert "undecidable" in table
    content = text_of(made)
    assert "PanelGrid".lower() in content.lower().replace("-", "")
    assert "curve/synthetic_table" in content


def test_curves_join_arms_that_differ_in_one_option_alone(folder: Path, results):
    assert arm_options(folder)["synthetic"] == {
        "frozen": 11, "oversample": "0", "synthetic": "0.3"
    }  # fmt: skip
    lines = curves(folder, results.trials, "synthetic")
    assert set(lines) == {f"real and so on, {name}" for name in ("mean", "min", "max")}
    x, y = lines["real and so on, mean"]
    means = results.trials.groupby("arm")["test/auc"].mean()
    assert x == [0.0, 0.3]
    assert y == pytest.approx([means["real"], means["synthetic"]])
    assert curves(folder, results.trials, "frozen") == {}


def test_what_a_run_of_the_experiment_sums_up(results):
    found = verdicts(results.comparisons)
    first = results.comparisons[0]
    assert found["verdict"] == first["verdict"]
    assert found["delta_auc"] == first["delta_auc"]
    assert found[f"test/{first['arm']} - {first['reference']}/ci_low"] == first["ci_low"]
    assert verdicts([]) == {"verdict": "none"}
    picture = forest(results.comparisons)
    assert picture.dtype == "uint8"
    assert picture.ndim == 3
    assert picture.std() > 1


def command(folder: Path, env: dict[str, str]) -> str:
    """What `experiments.dashboard` prints of an experiment."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.dashboard", "--experiment", str(folder)],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_key_it_says_what_it_would_make_and_how(folder: Path, tmp_path: Path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    (folder / "trials/fold0/real-seed0/wandb/offline-run-1-x").mkdir(parents=True)
    said = command(folder, kept | {"NETRC": str(tmp_path / "none")})
    assert said.startswith("workspace ENTITY/dermsynth: dose\n  Verdict: Differences")
    assert "report: DermSynth: dose (Verdict, Comparisons, Differences, Seeds" in said
    assert f"1 run of it offline, to be sent first:\n  find {folder} -name" in said
    assert "not saved: W&B has no API key" in said
    last = said.splitlines()[-1]
    assert last == f"later: python -m experiments.dashboard --experiment {folder}"


def test_with_a_server_both_are_saved(folder: Path, monkeypatch, capsys):
    saved = []
    monkeypatch.setattr(dashboard, "_why_not", lambda: None)
    monkeypatch.setattr(dashboard, "_saved", lambda made: saved.append(made) or "https://w/1")
    main(DashboardOptions(folder, entity="team", project="p"))
    assert [made.entity for made in saved] == ["team", "team"]
    assert "workspace: https://w/1\nreport: https://w/1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_server_gets_workspace_and_report(folder: Path, tmp_path: Path, results):
    server = Server()
    online = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": server.url}
    said = command(folder, environment(tmp_path) | online)
    workspace, report = server.views
    assert (workspace["type"], report["type"]) == ("project-view", "runs")
    for saved in server.views:
        assert (saved["entityName"], saved["projectName"]) == ("me", "dermsynth")
        assert "differences" in saved["spec"]
    assert f"{results.comparisons[0]['delta_auc']:+.3f}" in report["spec"]
    assert f"workspace: {server.url}/me/dermsynth?nw=" in said
    assert f"report: {server.url}/me/dermsynth/reports/" in said


@pytest.mark.slow
def test_the_next_call_saves_over_what_it_saved(folder: Path, tmp_path: Path):
    server = Server()
    env = environment(tmp_path) | {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": server.url}
    first = command(folder, env)
    second = command(folder, env)
    assert second.splitlines()[-2:] == first.splitlines()[-2:]  # the same addresses
    assert "found" not in second
    assert len(server.views) == 4
    assert len(server.saved) == 2
    server.saved.clear()  # somebody deleted both
    third = command(folder, env)
    assert third.count("is not found any more") == 2
    assert len(server.saved) == 2


def test_what_was_saved_elsewhere_is_left_alone(folder: Path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(dashboard, "_why_not", lambda: None)
    monkeypatch.setattr(dashboard, "_saved", lambda made: f"https://w/{made.project}")
    monkeypatch.setattr(dashboard, "_replace", lambda made, url: asked.append(url))
    for project in ("one", "one", "two"):
        main(DashboardOptions(folder, entity="us", project=project))
    assert asked == ["https://w/one"] * 2
    (folder / dashboard.ADDRESSES).write_text("damaged")
    main(DashboardOptions(folder, entity="us", project="two"))  # as if there were none
    assert len(asked) == 2


def test_a_server_that_refuses_is_an_error_in_a_line():
    class Refused:
        entity, project = "team", "p"

        def save(self):
            raise RuntimeError("permission denied\nand more")

    with pytest.raises(UserError, match=r"did not save it \(permission denied\); check --entity"):
        dashboard._saved(Refused())


def test_what_keeps_it_from_saving(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert "no API key" in str(dashboard._why_not())
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "WANDB_MODE" in str(dashboard._why_not())
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_modes, "PATIENCE", 1.0)
    assert "does not answer" in str(dashboard._why_not())


def test_without_its_package_it_says_how_to_get_it(folder: Path, monkeypatch):
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package wandb-workspaces: pip install"):
        main(DashboardOptions(folder))


def test_what_is_made_is_said(results):
    said = describe(workspace(PLACE, results, []), report(PLACE, results, []))
    assert "Seeds: AUC by arm" in said
    assert said.splitlines()[-1].startswith("report: DermSynth: dose (Verdict, Comparisons")
