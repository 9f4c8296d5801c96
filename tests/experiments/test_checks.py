"""What would stop an experiment is said before anything is trained, and nothing is written."""

from pathlib import Path

import pytest
import yaml

from data.prepare import PrepareOptions, prepare
from data.store import load_dataset
from dermsynth.errors import UserError
from dermsynth.options import replace
from experiments.checks import check, find_splits
from experiments.config import all_trials, read_experiment
from experiments.options import ExperimentOptions
from experiments.run import run_experiment

EXPERIMENT = {
    "gan": {"kimg": 0.032, "batch": 8},
    "classifier": {"backbone": "efficientnet-lite0", "weights": "none", "frozen": 5, "size": 32},
    "arms": {"real": {}, "synthetic": {"synthetic": 0.3}},
    "comparisons": [["synthetic", "real"]],
}


def prepared(folder: Path, **changes: object) -> Path:
    options = replace(PrepareOptions(), patients=60, prevalence=0.3, size=32, out=folder / "data")
    return prepare(replace(options, **changes)).path


def written(folder: Path, **changes: object) -> Path:
    (folder / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT | changes))
    return folder / "e.yaml"


def refused(folder: Path, words: str, data: Path, **changes: object) -> None:
    """The experiment is refused in these words and leaves no folder."""
    options = ExperimentOptions(written(folder, **changes), data=data)
    with pytest.raises(UserError, match=words):
        run_experiment(replace(options, out=folder / "out", device="cpu", tracking="none"))
    assert not (folder / "out").exists()


def test_few_malignant_images_for_a_generator(tmp_path: Path):
    data = prepared(tmp_path, prevalence=0.2)
    refused(tmp_path, "the evaluation of a generator needs 8", data)


def test_a_generator_that_needs_classes_is_given_them(tmp_path: Path):
    """`classes: auto`, the default, is what gan.train makes of it for the architecture."""
    path = written(tmp_path, gan=EXPERIMENT["gan"] | {"arch": "acgan"})
    experiment, arms = read_experiment(path)
    dataset = load_dataset(prepared(tmp_path))
    splits = find_splits(experiment, dataset)
    inputs = check(dataset, arms, splits, all_trials(experiment, arms, splits))
    assert inputs == {"dataset": dataset.as_input}
    none = EXPERIMENT["gan"] | {"arch": "acgan", "classes": "none"}
    refused(tmp_path, "acgan.*classes", dataset.path, gan=none)


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a b", "", "\x1b[31m", 1, None])
def test_an_arm_without_a_name(tmp_path: Path, name: object):
    arms = EXPERIMENT["arms"] | {name: {"oversample": 0.2}}
    refused(tmp_path, r"name|quote", tmp_path, arms=arms)


def test_no_test_part(tmp_path: Path):
    data = prepared(tmp_path, test_fraction=0)
    refused(tmp_path, r"its test part has no images.*--test-fraction 0.2", data)


def test_classifier_options(tmp_path: Path):
    classifier = EXPERIMENT["classifier"] | {"frozen": 27}
    refused(tmp_path, "frozen 27", prepared(tmp_path), classifier=classifier)


@pytest.mark.parametrize(
    ("folds", "test_fraction", "words"),
    [(2, 0, "it takes three"), (4, 0.2, "--test-fraction 0")],
)
def test_what_cannot_rotate(tmp_path: Path, folds: int, test_fraction: float, words: str):
    data = prepared(tmp_path, folds=folds, test_fraction=test_fraction)
    refused(tmp_path, words, data, folds="rotate")
