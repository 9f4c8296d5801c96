"""A dataset as one training sees it: which fold is tested on, how many malignant groups it has.

A view changes the `fold` column alone. Everything else asks `Dataset.rows`, which goes by it, so
that no other module knows of rotation or of subsets. The identity stays that of the dataset.
"""

import dataclasses
import hashlib
import math

import numpy as np
import pandas as pd

from data.store import NO_PART, TEST, Dataset, View
from dermsynth.errors import UserError, counted


def view(
    dataset: Dataset, fold: int, test_fold: int | None = None, malignant_share: float = 1.0
) -> Dataset:
    """The dataset with `test_fold` as its test part and a share of its malignant training groups.

    Subsets are nested: a smaller share of the same fold holds no group that a larger one lacks.
    What is left out has no part. Groups are drawn by a hash of their names, whatever the seed.
    Raises UserError for a fold that is not there, the same fold twice, and a dataset that has a
    test part of its own.

    Parameters
    ----------
    dataset : as it was prepared
    fold : validated on
    test_fold : tested on in place of the test part; None: the test part
    malignant_share : of the groups with malignant images that are trained on, 0 to 1
    """
    seen = dataclasses.replace(dataset, view=View(test_fold, malignant_share))
    if test_fold is not None:
        seen = dataclasses.replace(seen, table=_tested_on(dataset, fold, test_fold))
    if malignant_share < 1:
        parts = seen.table["fold"].mask(_dropped(seen, fold, malignant_share), NO_PART)
        seen = dataclasses.replace(seen, table=seen.table.assign(fold=parts))
    return seen


def _tested_on(dataset: Dataset, fold: int, test_fold: int) -> pd.DataFrame:
    folds = dataset.table["fold"]
    known = sorted({int(number) for number in folds if number >= 0})
    if test_fold not in known:
        raise UserError(f"--test-fold {test_fold}: {dataset.path} has folds {known}")
    if test_fold == fold:
        raise UserError(
            f"--test-fold {test_fold}: is validated on (--fold {fold}); what is tested on must not "
            "choose the checkpoint: give two folds"
        )
    if len(known) < 3:
        raise UserError(
            f"--test-fold {test_fold}: {dataset.path} has {counted(len(known), 'fold')}: one to "
            "test on and one to validate on leave none to train on; prepare it again with --folds 5"
        )
    if tested := int((folds == TEST).sum()):
        raise UserError(
            f"--test-fold {test_fold}: {dataset.path} has a test part of its own, of {tested} "
            "images, which would be neither trained nor tested on; prepare it again with "
            "--test-fraction 0, and every image is tested on once"
        )
    return dataset.table.assign(fold=folds.mask(folds == test_fold, TEST))


def _dropped(dataset: Dataset, fold: int, share: float) -> np.ndarray:
    """bool [n]: rows of malignant training groups beyond the share."""
    rows = dataset.rows("train", fold)
    groups = dataset.table["group"].to_numpy()
    malignant = np.unique(groups[rows[dataset.targets(rows) == 1]])
    by_hash = sorted(malignant.tolist(), key=lambda name: _hash(str(name)))
    beyond = by_hash[math.ceil(share * len(by_hash) - 1e-9) :]
    dropped = np.zeros(len(groups), bool)
    dropped[rows[np.isin(groups[rows], beyond)]] = True
    return dropped


def _hash(group: str) -> bytes:
    return hashlib.sha256(f"malignant subsets/{group}".encode()).digest()
