"""A whole experiment by way of XLA: generator, pool, evaluation, trainings, verdict."""

import json

import pytest

from data.prepare import PrepareOptions, prepare
from dermsynth.options import replace
from experiments.options import ExperimentOptions
from experiments.run import run_experiment

FILE = """\
description: By way of XLA
seeds: [0, 1]
gan_seeds: [0]
gan: {arch: dcgan, kimg: 0.016}
classifier: {backbone: vanilla-cnn, epochs: 1}
arms:
  real: {}
  synthetic: {synthetic: 0.3}
comparisons:
  - [synthetic, real]
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_experiment_of_two_workers_has_a_verdict(xla, tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_text(FILE)
    few = replace(PrepareOptions(), patients=200, size=64, folds=3, out=tmp_path / "phantom")
    options = replace(
        ExperimentOptions(experiment=file),
        **{"data": prepare(few).path, "smoke": True, "out": tmp_path / "run"},
        **{"device": "xla", "tracking": "none", "workers": 2},
    )
    run_experiment(options)
    (row,) = json.loads((tmp_path / "run" / "comparisons.json").read_text())
    assert row["verdict"] in ("helps", "hurts", "equivalent", "inconclusive")
