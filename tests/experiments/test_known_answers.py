"""The tool's own test: a perfect generator must come out as `helps`, a broken one never."""

import json
from pathlib import Path

import pytest

from data.prepare import PrepareOptions, prepare
from dermsynth.options import replace
from experiments.options import ExperimentOptions
from experiments.run import run_experiment

CONFIG = Path(__file__).parents[2] / "experiments" / "configs" / "known-answers.yaml"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_known_answers_on_the_phantom(tmp_path: Path):
    few, out = tmp_path / "few", tmp_path / "out"
    prepare(replace(PrepareOptions(), patients=1000, test_fraction=0.85, out=few))
    run_experiment(
        replace(ExperimentOptions(CONFIG, data=few), out=out, device="cpu", tracking="none")
    )
    rows = {row["arm"]: row for row in json.loads((out / "comparisons.json").read_text())}
    assert rows["oracle"]["verdict"] == "helps", rows["oracle"]
    assert rows["broken"]["verdict"] != "helps", rows["broken"]
