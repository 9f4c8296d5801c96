import hashlib
import pickle

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

import gan.evaluation.fid
from dermsynth.device import resolve
from dermsynth.errors import UserError
from gan.evaluation.fid import fid, inception, inception_features


def test_the_distance_is_that_of_its_formula():
    rng = np.random.default_rng(0)
    one = torch.from_numpy(rng.normal(0.0, 1.0, (4000, 3)) * [1.0, 2.0, 0.5])
    other = torch.from_numpy(rng.normal(0.0, 1.0, (4000, 3)) * [2.0, 2.0, 1.5] + [1.0, 0.0, -2.0])
    # |m - n|^2 + sum (s - t)^2 for independent components
    assert fid(one, other) == pytest.approx(5 + 1 + 0 + 1, rel=0.05)
    assert fid(one, one) == pytest.approx(0, abs=1e-6)


@pytest.fixture
def accept(monkeypatch):
    """Takes a file for the original one."""

    def accept(path):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(gan.evaluation.fid, "DIGEST", digest[:8])

    return accept


def test_features_are_inceptions(tmp_path, accept, monkeypatch, make_lesions):
    path = tmp_path / "weights.pth"
    loading = "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"
    with monkeypatch.context() as patch:  # random weights: the original ones cannot be had here
        patch.setattr(loading, lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.save(FeatureExtractorInceptionV3("random", ["2048"]).state_dict(), path)
    accept(path)
    compute = resolve("cpu", "fp32")
    found = inception_features(inception(path), make_lesions(4, 32), compute, "test")
    assert found.shape == (4, 2048)
    assert found.std() > 0


def test_other_files_are_refused(tmp_path, accept):
    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match="no such file"):
        inception(path)
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="SHA-256"):
        inception(path)
    accept(path)
    with pytest.raises(UserError, match="not weights of InceptionV3"):
        inception(path)


class Bomb:
    """Unpickled, it would fail the test that loads it."""

    def __reduce__(self):
        return pytest.fail, ("code of a weights file was run",)


def test_a_file_that_would_run_code_is_refused(tmp_path, accept):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Bomb()))
    accept(path)
    with pytest.raises(UserError, match="not weights of InceptionV3"):
        inception(path)
