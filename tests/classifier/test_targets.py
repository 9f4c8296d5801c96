import numpy as np
import pytest
import torch

from classifier.options import TrainOptions
from classifier.targets import BINARY, UNKNOWN, target_of
from classifier.training.training_set import DataOrder, build_training_set, real_rows
from data.store import write_dataset
from dermsynth.errors import UserError
from dermsynth.options import replace

OPTIONS = TrainOptions()


@pytest.fixture(scope="module")
def seven(tmp_path_factory, make_table, make_images):
    """Three folds of nevi, melanomas, a rare third class and images without a diagnosis."""
    names = np.array(["nv"] * 6 + ["mel"] * 3 + ["df"] * 1 + [None] * 2, object)
    diagnosis = np.tile(names, 12)
    targets = (diagnosis == "mel").astype(int)
    folds = np.repeat(np.arange(36) % 3, 4)
    table = make_table(targets, folds).assign(diagnosis=diagnosis)
    out = tmp_path_factory.mktemp("data") / "seven"
    return write_dataset(out, make_images(targets, 32), table, {})


def test_classes_are_those_of_the_training_part(seven):
    target = target_of(seven, 0, "diagnosis")
    assert target.classes == ("df", "mel", "nv")
    assert target.malignant == (False, True, False)
    assert target.outputs == 3
    labels = target.labels(seven.table)
    assert (labels == UNKNOWN).sum() == 24
    assert np.array_equal(labels == 1, seven.table["target"] == 1)


def test_probabilities_and_scores(seven):
    target, logits = target_of(seven, 0, "diagnosis"), torch.tensor([[0.0, 1.0, 2.0]])
    found = target.probabilities(logits)
    np.testing.assert_allclose(found.sum(1), 1)
    assert target.scores(found)[0] == pytest.approx(torch.softmax(logits, 1)[0, 1].item())
    binary = BINARY.probabilities(torch.tensor([[-2.0], [0.5]]))
    np.testing.assert_allclose(BINARY.scores(binary), torch.sigmoid(torch.tensor([-2.0, 0.5])))


def test_real_rows_are_capped_and_evened(seven):
    target = target_of(seven, 0, "diagnosis")
    labels = target.labels(seven.table)
    plain = real_rows(seven, target, OPTIONS)
    assert set(plain) == set(seven.rows("train", 0)) & set(np.flatnonzero(labels != UNKNOWN))
    capped = real_rows(seven, target, replace(OPTIONS, cap=20))
    assert len(np.unique(capped)) == len(capped)
    wanted = np.minimum(np.bincount(labels[plain]), 20)
    assert np.array_equal(np.bincount(labels[capped]), wanted)
    evened = real_rows(seven, target, replace(OPTIONS, cap=20, upsample=True))
    assert np.array_equal(np.bincount(labels[evened]), [20, 20, 20])
    halfway = real_rows(seven, target, replace(OPTIONS, cap=20, upsample=True, upsample_to=0.7))
    assert np.bincount(labels[halfway]).tolist() == [14, max(14, wanted[1]), 20]
    times = np.unique(evened, return_counts=True)[1]
    assert times.max() <= np.ceil(20 / (labels[plain] == 0).sum())
    assert not np.array_equal(capped, real_rows(seven, target, replace(OPTIONS, cap=20, seed=1)))


def test_synthetic_images_are_of_the_malignant_class(seven):
    target = target_of(seven, 0, "diagnosis")
    rows = real_rows(seven, target, OPTIONS)
    share = 7 / (7 + len(rows))
    training = build_training_set(seven, target, replace(OPTIONS, synthetic=str(share)))
    assert (training.labels[-7:] == 1).all()
    assert training.targets[-7:].all()
    assert training.targets[:-7].sum() == (target.labels(seven.table)[rows] == 1).sum()


def test_a_balanced_sampler_draws_classes_equally_often():
    classes = np.array([0] * 90 + [1] * 9 + [2])
    order = DataOrder(0, 100, 20, classes)
    drawn = np.concatenate([order.positions(step)[0] for step in range(300)])
    shares = np.bincount(classes[drawn]) / len(drawn)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)
    again = DataOrder(0, 100, 20, classes).positions(7)[0]
    assert np.array_equal(order.positions(7)[0], again)


def test_diagnoses_that_say_nothing_are_refused(tmp_path, make_table, make_images):
    targets = np.arange(40) % 2
    images, folds = make_images(targets, 16), np.repeat(np.arange(20) % 2, 2)
    table = make_table(targets, folds)
    one = write_dataset(tmp_path / "one", images, table.assign(diagnosis="nv"), {})
    with pytest.raises(UserError, match="has 1 diagnoses; expected two or more"):
        target_of(one, 0, "diagnosis")
    names = np.where(np.arange(40) % 3 < 2, "nv", "bkl")
    mixed = write_dataset(tmp_path / "mixed", images, table.assign(diagnosis=names), {})
    with pytest.raises(UserError, match="the diagnosis bkl are partly malignant"):
        target_of(mixed, 0, "diagnosis")
