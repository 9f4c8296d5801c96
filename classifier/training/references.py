"""What travels with a model so that other images can be compared with those of its training."""

import numpy as np
import torch

from classifier.evaluation.comparison import watched
from classifier.evaluation.likeness import (
    UNKNOWN,
    Looks,
    Reference,
    facts_of,
    fit,
    in_words,
    stored_sides,
)
from classifier.records import LikenessFacts
from classifier.training.setup import TrainingSetup
from classifier.training.trunk_cache import PLAIN, ImageSet, Trunk
from data.store import Dataset
from dermsynth import progress
from dermsynth.device import Compute
from dermsynth.seeds import generator

MOST = 300  # images of a part that are looked at, drawn at random: seconds in all


def compare_parts(
    setup: TrainingSetup, trunk: Trunk, compute: Compute
) -> tuple[Reference | None, dict[str, LikenessFacts]]:
    """The training images as a reference, and how unlike them the test part and external sets are.

    `trunk` is of the best model; what it keeps of images is not computed again. The scale is that
    of validation images; None and {} where there are too few of them.
    """
    dataset, fold = setup.dataset, setup.fold
    parts = {name: (dataset, dataset.rows(name, fold)) for name in ("train", "val", "test")}
    for name, external in setup.externals.items():
        parts[f"external/{name}"] = external, setup.external_tests[name].rows
    some = {name: (source, _drawn(rows, name)) for name, (source, rows) in parts.items()}
    total = sum(len(rows) for _, rows in some.values())
    with progress.late(total, "comparing with training images", "img") as bar:
        looks = {}
        for name, (source, rows) in some.items():
            if len(rows):
                looks[name] = _look(setup, trunk, compute, source, rows)
            bar.update(len(rows))
    if "val" not in looks or (reference := fit(looks["train"], looks["val"])) is None:
        return None, {}
    facts = {
        name: facts_of(reference.distances(seen), seen, reference.about)
        for name, seen in looks.items()
        if name not in ("train", "val")
    }
    return reference, facts


def likeness_lines(reference: Reference | None, facts: dict[str, LikenessFacts]) -> list[str]:
    """What is said on the screen of the external sets, and of a test part that looks unlike."""
    if reference is None:
        return [UNKNOWN] if facts else []
    lines = []
    for name, of in facts.items():
        told = in_words(of, reference.about)
        if name.startswith("external/") or told.startswith("warning: "):
            lines.append(told.replace("these images", f"the images of {name}", 1))
    return lines


def _drawn(rows: np.ndarray, name: str) -> np.ndarray:
    """At most MOST of the rows, ascending."""
    if len(rows) <= MOST:
        return rows
    return np.sort(generator("likeness", name).choice(rows, MOST, replace=False))


@torch.no_grad()
def _look(
    setup: TrainingSetup, trunk: Trunk, compute: Compute, source: Dataset, rows: np.ndarray
) -> Looks:
    """Measures of some images, as they are."""
    model, stored = trunk.model.eval(), ImageSet.stored("real", source)
    looks, at_once = [], model.spec.at_once
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        full = compute.filled(part, at_once)
        metadata = setup.numbers(source, compute.device, full)
        with watched(model) as seen, compute.autocast():
            model.tail(trunk.features(stored, full, np.full(len(full), PLAIN)), metadata)
        images, sides = np.asarray(source.images[part]), stored_sides(source, part)
        looks.append(Looks.of(images, seen[0][: len(part)], sides, model.spec.size))
    return Looks.joined(looks)
