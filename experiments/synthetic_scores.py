"""What classifiers make of synthetic images: do lesions look it, is "synthetic" taken for it?

`labels`: a classifier of real images alone scores the synthetic lesions of a pool. Where it takes
them for benign ones their label is doubtful; where it finds them easier than real lesions they are
typical ones, from which it has little to learn.

`shortcuts`: did the classifiers learn "synthetic means malignant"? Only a generator of both classes
makes benign images. Some that a classifier did not train on are scored by it, and by its
counterpart that saw real images alone: what the second says of them is how malignant they look,
what the first adds is the shortcut. They are of the generator whose malignant ones it saw, or else
of another one of the fold, and may then differ from those in more than the class.

`expectations`: did synthetic lesions count as real ones? More malignant training images make a
classifier expect more of them, unless it tells those images from real ones. Any pool can be asked.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from classifier.run_folder import open_networks, open_run, read_facts
from classifier.trained import load_folds
from data.pool import load_pool
from dermsynth.device import Compute
from dermsynth.manifest import is_finished
from experiments.compared import sets_of
from experiments.config import Trial
from experiments.origins import pool_folder
from experiments.records import ExpectationRecord, LabelRecord, ShortcutRecord
from experiments.tasks import AUDITED, POOL, audit_pool_name, pool_names
from gan.evaluation.audit import shortcut_score


def labels(
    out: Path,
    comparisons: list[list[str]],
    trials: list[Trial],
    predictions: pd.DataFrame,
    compute: Compute,
) -> list[LabelRecord]:
    """A record for each pool, by the classifier of real images alone with the first seed.

    Parameters as of `shortcuts`. That classifier saw the real lesions that the generator saw, so it
    may know synthetic ones that resemble them better than lesions of the test part.
    """
    found, asked = [], set()
    for trial in trials:
        if trial.arm.source is None or (plain := _counterpart(comparisons, trials, trial)) is None:
            continue
        pool = pool_folder(out, trial)
        if (pool, plain.arm.name) in asked or not _looks_at_images_alone(plain):
            continue
        asked.add((pool, plain.arm.name))
        images = np.asarray(load_pool(pool).images[:AUDITED])
        tested = _tested(plain, predictions)
        found.append(
            LabelRecord(
                arm=trial.arm.name,
                fold=trial.split.number,
                gan_seed=trial.gan_seed,
                reference=plain.arm.name,
                auc=_score(out, plain, images, predictions, compute),
                auc_real=roc_auc_score(tested["target"], tested["score"]),
                n_synthetic=len(images),
            )
        )
    return found


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
    known: dict[tuple[str, str], float | None] = {}  # arms share the counterpart
    for trial in trials:
        made_with = trial.arm.name, trial.split.number, trial.gan_seed
        if made_with in asked or not _looks_at_images_alone(trial):
            continue
        pool = benign_pool(trial, trials)
        if pool is None or not is_finished(out / pool, POOL):  # it failed, which the report says
            continue
        asked.add(made_with)
        images = np.asarray(load_pool(out / pool).images[:AUDITED])
        plain = _counterpart(comparisons, trials, trial)
        key = plain.name if plain else "", pool
        if key not in known:
            known[key] = _score(out, plain, images, predictions, compute)
        found.append(
            ShortcutRecord(
                arm=trial.arm.name,
                fold=trial.split.number,
                gan_seed=trial.gan_seed,
                own=pool == audit_pool_name(trial),
                auc=_score(out, trial, images, predictions, compute),
                reference=plain.arm.name if plain else None,
                auc_reference=known[key],
                n_synthetic=len(images),
            )
        )
    return found


def expectations(
    out: Path, trials: list[Trial], predictions: pd.DataFrame
) -> list[ExpectationRecord]:
    """A record for each arm and test set, of all that it trained.

    Parameters
    ----------
    out : the experiment's folder
    trials : finished ones
    predictions : theirs, PREDICTION_COLUMNS
    """
    shares: dict[str, list[float]] = {}
    for trial in trials:
        for network in open_networks(open_run(out / trial.name)):
            counts = read_facts(network).training_images
            malignant = sum(n for name, n in counts.items() if name.endswith("_malignant"))
            shares.setdefault(trial.arm.name, []).append(malignant / sum(counts.values()))
    means = predictions.groupby(["arm", "test_set"], observed=True)[["score", "target"]].mean()
    return [
        ExpectationRecord(
            arm=arm,
            test_set=test_set,
            trained_on=float(np.mean(share)),
            expected=float(means.loc[(arm, test_set), "score"]),
            observed=float(means.loc[(arm, test_set), "target"]),
        )
        for arm, share in shares.items()
        for test_set in sets_of(predictions)
    ]


def benign_pool(trial: Trial, trials: list[Trial]) -> str | None:
    """Benign images that it did not train on: of its generator, or else of another of its fold."""
    source, own = trial.arm.source, audit_pool_name(trial)
    if own is not None or source is None or source.pool != "gan":
        return own
    pools = {
        (each.gan_seed or 0, name)
        for each in trials
        if each.split == trial.split
        for name in pool_names(each)[1:]
        if name not in pool_names(trial)
    }
    later = [one for one in pools if one[0] > (trial.gan_seed or 0)]  # each asks another one
    return min(later or pools, default=(0, None))[1]


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
    """AUC of synthetic images against the fold's benign test images."""
    if trial is None:
        return None
    (model,) = load_folds(out / trial.name)
    tested = _tested(trial, predictions)
    benign = tested[tested["target"] == 0]
    at_once = model.networks[0].model.spec.at_once
    scores = [
        model.scores(images[at : at + at_once], compute, "tested")
        for at in range(0, len(images), at_once)
    ]
    return shortcut_score(
        np.concatenate(scores), benign["score"].to_numpy(), benign["group"].to_numpy()
    ).auc


def _tested(trial: Trial, predictions: pd.DataFrame) -> pd.DataFrame:
    """Its predictions of the test part."""
    gan_seed = predictions["gan_seed"]
    generator = gan_seed.isna() if trial.gan_seed is None else gan_seed == trial.gan_seed
    return predictions[
        (predictions["arm"] == trial.arm.name)
        & (predictions["fold"] == trial.split.number)
        & (predictions["seed"] == trial.seed)
        & generator.fillna(False)
        & (predictions["test_set"] == "test")
    ]


def _looks_at_images_alone(trial: Trial) -> bool:
    """Synthetic images have no age, sex and site."""
    return trial.arm.options.model.head != "metadata"
