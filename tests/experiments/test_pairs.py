"""Trials of two networks: `beside` in an experiment."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from classifier.run_folder import open_networks, open_run, read_facts
from classifier.training import outputs
from data.prepare import PrepareOptions, prepare
from dermsynth.options import replace
from dermsynth.verify import verify
from experiments.config import read_experiment
from experiments.options import ExperimentOptions
from experiments.run import run_experiment

EXPERIMENT = {
    "seeds": [0, 1],
    "classifier": {
        **{"backbone": "vanilla-cnn", "weights": "none", "size": 32, "views": 0, "epochs": 1},
        "beside": ["augment=siim", "tta=8"],
    },
    "arms": {"real": {}, "real_oversampled": {"oversample": 0.3}},
    "comparisons": [["real_oversampled", "real"]],
    "bootstrap": 1000,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "phantom"
    prepare(replace(PrepareOptions(), patients=80, prevalence=0.3, size=32, out=out))
    return out


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "pairs.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


@pytest.fixture(scope="module")
def finished(
    dataset: Path, file: Path, tmp_path_factory: pytest.TempPathFactory
) -> ExperimentOptions:
    out = tmp_path_factory.mktemp("exp") / "one"
    options = ExperimentOptions(file, data=dataset)
    options = replace(options, out=out, device="cpu", tracking="none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "draw_plots", lambda *_: None)
        run_experiment(options)
    return options


@pytest.mark.slow
def test_every_trial_is_the_mean_of_two_networks(finished: ExperimentOptions):
    out = finished.run.out
    assert out is not None
    table = pd.read_parquet(out / "trials.parquet")
    assert len(table) == 4
    for row in table.itertuples():
        trial = open_run(out / "trials" / "fold0" / f"{row.arm}-seed{row.seed}")
        networks = open_networks(trial)
        assert [network.path.name for network in networks] == ["first", "second"]
        seconds = [read_facts(network).training_seconds for network in networks]
        assert row.seconds == pytest.approx(sum(seconds), abs=0.01)
        frames = [trial, *networks]
        both, first, second = (
            pd.read_parquet(each.path / "predictions.parquet").set_index(["part", "image_id"])
            for each in frames
        )
        np.testing.assert_allclose(both["score"], (first["score"] + second["score"]) / 2)
    assert json.loads((out / "comparisons.json").read_text())[0]["verdict"]
    assert not [fault for check in verify(out) for fault in check.faults]


@pytest.mark.slow
def test_another_experiment_beside_takes_them_over_whole(
    finished: ExperimentOptions, capsys: pytest.CaptureFixture[str]
):
    assert finished.run.out is not None
    again = replace(finished, out=finished.run.out.parent / "two")
    run_experiment(again)
    assert again.run.out is not None
    assert "training:" not in capsys.readouterr().err
    trial = "trials/fold0/real-seed1"
    assert len(open_networks(open_run(again.run.out / trial))) == 2
    one, two = (
        out / trial / "second" / "model.safetensors" for out in (finished.run.out, again.run.out)
    )
    assert one.samefile(two)
    assert not [fault for check in verify(again.run.out) for fault in check.faults]


def test_arms_may_differ_in_their_second_network_as_in_the_first(tmp_path: Path):
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT | {"arms": {"one": {"beside": []}, "two": {}}} | {
        "comparisons": [["two", "one"]]
    }))  # fmt: skip
    _, (one, two) = read_experiment(path)
    assert one.options.choice.beside == ()
    assert two.options.choice.beside == ("augment=siim", "tta=8")


def test_the_default_recipe_is_two_networks_in_an_experiment(tmp_path: Path):
    path = tmp_path / "e.yaml"
    content = {key: value for key, value in EXPERIMENT.items() if key != "classifier"}
    path.write_text(yaml.safe_dump(content | {"recipe": "default"}))
    _, arms = read_experiment(path)
    assert all(len(arm.options.choice.beside) == 3 for arm in arms)
