"""Whose benign images a classifier is asked about."""

import pytest

from classifier.options import TrainOptions
from dermsynth.cli import from_mapping
from experiments.config import Arm, Source, Split, Trial
from experiments.synthetic_scores import benign_pool
from gan.options import TrainOptions as GanOptions

MELANOMAS, BOTH = (
    from_mapping(GanOptions, {"classes": classes}, "gan") for classes in ("none", "target")
)
ARMS = {
    "real": None,
    "synthetic": Source("gan", "default", MELANOMAS),
    "of_two_classes": Source("gan", "classes-target", BOTH),
    "both": Source("gan", "classes-target", BOTH, both_classes=True),
}


def trial(arm: str, gan_seed: int | None = None, fold: int = 1) -> Trial:
    return Trial(Arm(arm, ARMS[arm], TrainOptions()), Split(fold + 1, fold), 0, gan_seed)


EVERY = [trial("real"), *(trial(arm, seed) for arm in list(ARMS)[1:] for seed in range(3))]


@pytest.mark.parametrize(
    ("asked", "pool"),
    [
        (trial("of_two_classes", 1), "pools/classes-target-fold1-seed1-benign-audit"),
        (trial("synthetic", 0), "pools/classes-target-fold1-seed1-benign"),
        (trial("synthetic", 2), "pools/classes-target-fold1-seed0-benign"),
        (trial("both", 0), "pools/classes-target-fold1-seed1-benign"),
        (trial("both", 2), "pools/classes-target-fold1-seed0-benign"),
        (trial("real"), None),
        (trial("synthetic", 0, fold=2), None),
    ],
)
def test_it_never_trained_on_the_benign_images_that_it_is_asked_about(asked, pool):
    assert benign_pool(asked, EVERY) == pool


def test_a_generator_of_both_classes_alone_in_its_fold_asks_nobody():
    assert benign_pool(trial("both", 0), [trial("real"), trial("both", 0)]) is None
