import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data.store import COLUMNS, load_dataset, write_dataset
from dermsynth.device import resolve
from dermsynth.errors import UserError
from gan.evaluation import diagnosis_network
from gan.evaluation.diagnosis_network import can_learn, is_ready, load_diagnosis_network
from gan.evaluation.features import extract
from gan.networks import architecture, make_config
from gan.scorer import scorer

COMPUTE = resolve("cpu", "fp32")
KINDS = ("mel", "nv", "bkl")


def write(out, diagnoses, size=32, target=None, count=90):
    """Lesions whose colour tells their kind (number modulo 3), three folds, no test part."""
    rng = np.random.default_rng(0)
    images = rng.normal(170, 12, (count, size, size, 3))
    for number, image in enumerate(images):
        image[8:-8, 8:-8, number % 3] -= 60
    table = pd.DataFrame({name: [None] * count for name in COLUMNS})
    table["image_id"] = [f"img{i:04d}" for i in range(count)]
    table["group"] = [f"g{i:04d}" for i in range(count)]
    table["target"] = [int(i % 3 == 0) for i in range(count)] if target is None else target
    table["diagnosis"] = diagnoses and [diagnoses[i % 3] for i in range(count)]
    table["fold"] = [i // 3 % 3 for i in range(count)]
    return write_dataset(out, images.clip(0, 255).astype(np.uint8), table, {})


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(diagnosis_network, "LEAST_STEPS", 12)
    monkeypatch.setattr(diagnosis_network, "EPOCHS", 1)


@pytest.fixture
def lesions(tmp_path):
    return write(tmp_path / "lesions", KINDS)


def test_it_learns_the_diagnoses_once(lesions, monkeypatch):
    monkeypatch.setattr(diagnosis_network, "LEAST_STEPS", 30)
    assert can_learn(lesions, 0)
    assert not is_ready(lesions, 0)
    network, facts = load_diagnosis_network(lesions, 0, COMPUTE)
    assert facts["classes"] == sorted(KINDS)
    assert facts["n_training"] == 60
    assert facts["auc"] > 0.9
    monkeypatch.setattr(diagnosis_network, "_train", None)
    again, known = load_diagnosis_network(load_dataset(lesions.path), 0, COMPUTE)
    assert (again.name, known) == (network.name, facts)
    assert is_ready(lesions, 0)
    assert not is_ready(lesions, 1)  # another fold, another network


def test_it_chooses_what_a_training_ships_whatever_lay_there_before(lesions, tmp_path):
    generator = architecture("dcgan").generator(make_config("dcgan", 32)).eval()

    def score(dataset):
        scored = scorer(dataset, [], 0, 0, COMPUTE)(generator, 1.0)
        return scored.network, scored.kid

    assert not is_ready(lesions, 0)
    first = score(lesions)
    assert is_ready(lesions, 0)
    assert first[0].startswith("diagnosis")
    assert score(lesions) == first
    alike = write(tmp_path / "alike", None, target=1)  # nothing to tell apart
    assert "imagenet" in score(alike)[0]


def test_it_sees_training_images_alone(lesions, monkeypatch):
    rows = []
    images = lesions.images

    class Watched:
        shape = images.shape

        def __getitem__(self, chosen):
            rows.extend(np.ravel(chosen))
            return images[chosen]

    monkeypatch.setattr(
        diagnosis_network, "_auc", lambda *_: None
    )  # validates on the validation part
    load_diagnosis_network(dataclasses.replace(lesions, images=Watched()), 1, COMPUTE)
    assert rows
    assert not set(rows) & set(lesions.rows("val", 1))


def test_features_have_one_scale_and_no_sign(lesions):
    network, _ = load_diagnosis_network(lesions, 0, COMPUTE)
    features = extract(lesions.images[lesions.rows("train", 0)], COMPUTE, "test", network)
    assert features.shape == (60, 256)
    assert features.min() >= 0
    assert np.square(features).mean() == pytest.approx(1, rel=1e-3)


def test_larger_images_are_reduced(lesions):
    network, _ = load_diagnosis_network(lesions, 0, COMPUTE)
    small = torch.rand(2, 3, 128, 128)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(network.module(small), network.module(large), atol=1e-4)


def test_a_killed_training_goes_on_to_the_same_weights(lesions, tmp_path, monkeypatch):
    whole, _ = load_diagnosis_network(lesions, 0, COMPUTE)
    other = write(tmp_path / "other", KINDS)
    monkeypatch.setattr(diagnosis_network, "SAVE_SECONDS", -1)
    batch, steps = diagnosis_network._batch, []

    def killed(lesson, step):
        steps.append(step)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return batch(lesson, step)

    monkeypatch.setattr(diagnosis_network, "_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        load_diagnosis_network(other, 0, COMPUTE)
    assert not is_ready(other, 0)
    resumed, _ = load_diagnosis_network(other, 0, COMPUTE)
    assert steps == [*range(8), *range(7, 12)]
    assert resumed.name == whole.name


def test_a_damaged_network_is_trained_again(lesions, capsys):
    network, _ = load_diagnosis_network(lesions, 0, COMPUTE)
    (file,) = (lesions.path / diagnosis_network.FOLDER).rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    assert not is_ready(lesions, 0)
    again, _ = load_diagnosis_network(lesions, 0, COMPUTE)
    assert again.name == network.name
    assert "trained again" in capsys.readouterr().out


def test_without_diagnoses_it_learns_the_target(tmp_path):
    _, facts = load_diagnosis_network(write(tmp_path / "plain", None), 0, COMPUTE)
    assert facts["classes"] == ["benign", "malignant"]


def test_with_one_kind_alone_there_is_nothing_to_learn(tmp_path):
    dataset = write(tmp_path / "one", ("mel",) * 3, target=1)
    assert not can_learn(dataset, 0)
    assert not is_ready(dataset, 0)
    with pytest.raises(UserError, match="use --network imagenet"):
        load_diagnosis_network(dataset, 0, COMPUTE)


@pytest.mark.slow
def test_two_processes_train_it_once(lesions, tmp_path):
    """The second waits for the first and takes what that has trained."""
    code = (
        "import sys; from pathlib import Path; from data.store import load_dataset\n"
        "from dermsynth.device import resolve; from gan.evaluation import diagnosis_network as d\n"
        "d.LEAST_STEPS, d.EPOCHS, d.SAVE_SECONDS = 12, 1, -1\n"
        "dataset = load_dataset(Path(sys.argv[1]))\n"
        "print(d.load_diagnosis_network(dataset, 0, resolve('cpu', 'fp32'))[0].name)"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(lesions.path)],
            cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    names = [out.splitlines()[-1] for out, _ in said]
    assert names[0] == names[1]
    assert sum("trained once" in out for out, _ in said) == 1


def test_it_is_known_again_by_the_dataset_wherever_that_lies(lesions, tmp_path, monkeypatch):
    network, _ = load_diagnosis_network(lesions, 0, COMPUTE)
    moved = load_dataset(lesions.path.rename(tmp_path / "moved"))
    monkeypatch.setattr(diagnosis_network, "_train", None)
    assert load_diagnosis_network(moved, 0, COMPUTE)[0].name == network.name
    diagnoses = moved.table["diagnosis"].replace({"mel": "nv", "nv": "mel"})
    table = moved.table.assign(target=1 - moved.table["target"], diagnosis=diagnoses)
    other = write_dataset(tmp_path / "other", moved.images[:], table, {})
    shutil.copytree(moved.path / ".evaluation", other.path / ".evaluation")
    assert not is_ready(other, 0)  # the same images and folds, other targets


@pytest.mark.slow
def test_a_damaged_file_is_never_used(lesions, capsys):
    network, _ = load_diagnosis_network(lesions, 0, COMPUTE)
    (file,) = (lesions.path / diagnosis_network.FOLDER).rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[60] ^= 1
    for damaged in (bytes(content), bytes(len(content)), b""):
        file.write_bytes(damaged)
        assert load_diagnosis_network(lesions, 0, COMPUTE)[0].name == network.name
