"""Did the classifiers learn "synthetic means malignant"? Their scores of benign synthetic images.

Only a generator of both classes makes benign images. Those that no classifier trained on are scored
by a classifier that saw the generator's malignant ones, and by its counterpart that saw real images
alone: what the second says of them is how malignant they look, what the first adds is the shortcut.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from classifier.trained import load_folds
from data.pool import load_pool
from dermsynth.device import Compute
from dermsynth.manifest import is_finished
from experiments.config import Trial
from experiments.records import ShortcutRecord
from experiments.tasks import POOL, audit_pool_name
from gan.evaluation.audit import shortcut_score


def shortcuts(
    out: Path,
    comparisons: list[list[str]],
    trials: list[Trial],
    predictions: pd.DataFrame,
    compute: Compute,
) -> list[ShortcutRecord]:
    """A record for each arm, fold and generator that can be asked, with the first classifier seed.

    Parameters
    ----------
    out : the experiment's folder
    comparisons : [arm, reference] pairs: an arm's counterpart is its first real reference
    trials : finished ones
    predictions : theirs, PREDICTION_COLUMNS; benign test images are what real ones get
    compute : where the models run
    """
    found, asked = [], set()
    for trial in trials:
        pool = audit_pool_name(trial)
        if pool is None or (trial.arm.name, pool) in asked:
            continue
        if not is_finished(out / pool, POOL):  # it failed, which the report says
            continue
        asked.add((trial.arm.name, pool))
        images = np.asarray(load_pool(out / pool).images[:])
        plain = _counterpart(comparisons, trials, trial)
        own, its = (_score(out, each, images, predictions, compute) for each in (trial, plain))
        found.append(
            ShortcutRecord(
                arm=trial.arm.name,
                fold=trial.split.number,
                gan_seed=trial.gan_seed,
                auc=own,
                reference=plain.arm.name if plain else None,
                auc_reference=its,
                n_synthetic=len(images),
            )
        )
    return found


def _counterpart(comparisons: list[list[str]], trials: list[Trial], trial: Trial) -> Trial | None:
    """The training on real images that it is compared with, of the same fold and seed."""
    alike = {
        each.arm.name: each
        for each in trials
        if each.arm.source is None and (each.split, each.seed) == (trial.split, trial.seed)
    }
    references = [other for arm, other in comparisons if arm == trial.arm.name]
    return next((alike[name] for name in references if name in alike), None)


def _score(
    out: Path, trial: Trial | None, images: np.ndarray, predictions: pd.DataFrame, compute: Compute
) -> float | None:
    """AUC of benign synthetic images against the fold's benign test images."""
    if trial is None:
        return None
    (model,) = load_folds(out / trial.name)
    gan_seed = predictions["gan_seed"]
    generator = gan_seed.isna() if trial.gan_seed is None else gan_seed == trial.gan_seed
    tested = predictions[
        (predictions["arm"] == trial.arm.name)
        & (predictions["fold"] == trial.split.number)
        & (predictions["seed"] == trial.seed)
        & generator.fillna(False)
        & (predictions["test_set"] == "test")
        & (predictions["target"] == 0)
    ]
    at_once = model.networks[0].model.spec.at_once
    scores = [
        model.scores(images[at : at + at_once], compute, "tested")
        for at in range(0, len(images), at_once)
    ]
    return shortcut_score(
        np.concatenate(scores), tested["score"].to_numpy(), tested["group"].to_numpy()
    ).auc
