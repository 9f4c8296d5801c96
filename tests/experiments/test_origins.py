"""What made the synthetic images of an arm, in words."""

from pathlib import Path

import numpy as np
import pytest

from classifier.options import TrainOptions
from data.pool import write_pool
from data.provenance import ArchitectureRecord, GeneratorRecord, Provenance
from dermsynth.manifest import Identity
from experiments.config import Arm, Source, Split, Trial
from experiments.origins import add_origins, foreign, gate_failures, pool_folder
from experiments.records import GeneratorFacts

SHA = "0" * 64


def generator():
    """Where a generator comes from."""
    return GeneratorRecord(
        architecture=ArchitectureRecord(name="lean", config={}),
        dataset="datasets/ham",
        dataset_identity=Identity(kind="dataset", id=SHA, parts={}),
        folds_hash=SHA,
        fold=2,
        targets="malignant",
        classes=[],
        training_ids=["a"],
        seed=0,
        size=64,
        kimg=1.0,
        minutes=1.0,
        versions={},
    )


def evaluation(*findings):
    """What the quality gate found, in an evaluation that says nothing else."""
    numbers = dict.fromkeys(
        (
            *("kid", "kid_std", "kid_floor", "kid_floor_std", "precision", "recall", "density"),
            *("coverage", "kid_other", "kid_other_std", "kid_other_floor", "kid_other_floor_std"),
            *("evaluation_network_other", "independent", "memorisation", "memorisation_flagged"),
            "diagnosis_network",
        )
    )
    spread = dict.fromkeys(("precision", "recall", "density", "coverage"))
    found = [
        {"code": code, "severity": severity, "sentence": "s", "value": 0.0, "bound": 1.0}
        for code, severity in findings
    ]
    return numbers | {
        **{"floor": spread, "n_real": 1, "n_synthetic": 1, "evaluation_network": "x"},
        **{"memorisation_in": {}, "drift": {}, "pairs": {}, "n_training": 1, "dataset": "d"},
        **{"folds_hash": SHA, "fold": 0, "seed": 0},
        "quality": {"findings": found, "not_checked": []},
    }


def trial(arm, source, gan_seed=None, fold=0):
    """A training with images of this source."""
    return Trial(Arm(arm, source, TrainOptions()), Split(fold, None), 0, gan_seed)


def facts(trial, *findings):
    """What is known of a pool that was made here."""
    run = f"pools/default-fold{trial.split.number}-seed{trial.gan_seed}"
    made = generator().model_dump(mode="json")
    return GeneratorFacts(
        seed=trial.gan_seed, fold=0, run=run, evaluation=evaluation(*findings), generator=made
    )


def test_each_side_of_a_comparison_says_what_made_its_images():
    trials = [trial("synthetic", Source("gan", "default"), seed) for seed in (0, 1, 2)]
    trained = [facts(one) for one in trials]
    trials += [trial("oracle", Source("oracle")), trial("real", None)]
    rows = [{"arm": "synthetic", "reference": "real"}, {"arm": "oracle", "reference": "synthetic"}]
    add_origins(rows, Path(), trials, trained)
    assert rows[0]["made_by"] == "3 generators trained here, lean"
    assert rows[0]["reference_made_by"] == ""
    assert rows[1]["made_by"].startswith("drawn by the phantom's own sampler, a perfect generator")
    assert rows[1]["reference_made_by"] == "3 generators trained here, lean"


def test_what_failed_the_gate_is_said_of_the_arms_own_pools():
    one, other = (trial("synthetic", Source("gan", "default"), seed) for seed in (0, 1))
    trained = [
        facts(one, ("collapsed", "fail"), ("blurred", "warning")),
        facts(other, ("copies", "fail"), ("collapsed", "fail")),
    ]
    assert gate_failures(trained, {trained[0].run}) == ["collapsed"]
    rows = [{"arm": "synthetic", "reference": "real"}]
    add_origins(rows, Path(), [one, other, trial("real", None)], trained)
    assert rows[0]["gate_failed"] == ["collapsed", "copies"]
    assert rows[0]["reference_gate_failed"] == []
    assert rows[0]["made_by"] == "2 generators trained here, lean"


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        (
            Provenance(kind="declared", statement="diffusion, own clinic"),
            'the pool p from elsewhere, declared as "diffusion, own clinic"',
        ),
        (Provenance(kind="unknown"), "the pool p from elsewhere, of unknown origin"),
        (
            Provenance(kind="generator", generator=generator()),
            "the pool p from elsewhere, by a generator (lean) of fold 2",
        ),
        (
            Provenance(kind="phantom", quality="broken"),
            "the pool p from elsewhere, degraded images of the phantom's sampler, which must not "
            "help",
        ),
    ],
)
def test_a_foreign_pool_comes_with_its_provenance(provenance, said):
    assert foreign("p", provenance) == said


def test_a_pool_at_a_relative_path_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    write_pool(Path("mine"), images, Provenance(kind="declared", statement="ours"))
    one = trial("synthetic", Source("mine"))
    assert pool_folder(Path("runs/exp/e"), one) == Path("mine")
    rows = [{"arm": "synthetic", "reference": "real"}]
    add_origins(rows, Path("runs/exp/e"), [one, trial("real", None)], [])
    assert rows[0]["made_by"] == 'the pool mine from elsewhere, declared as "ours"'
    made = trial("synthetic", Source("gan", "default"), 1)
    assert pool_folder(Path("e"), made) == Path("e/pools/default-fold0-seed1")
