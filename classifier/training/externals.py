"""External test sets: which of their images are scored, and which overlap with the dataset."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from classifier.options import TrainOptions
from classifier.records import OverlapFacts
from data.overlap import REASONS, Overlap, overlap
from data.store import NO_PART, TEST, Dataset
from dermsynth.errors import UserError, counted, some

PARTS = ("training", "validation", "test", "no part")
FEWEST = 10  # images of a class that must remain where some of it are left out

# Of folds and arms in one process. The result depends on neither, and takes seconds.
_FOUND: dict[tuple[str, ...], Overlap] = {}


@dataclass(frozen=True)
class ExternalTest:
    """An external set as one training scores it."""

    rows: np.ndarray  # int64, ascending, of its table
    overlap: OverlapFacts
    leak: str | None  # why its figures cannot be trusted


def check_externals(
    externals: dict[str, Dataset], dataset: Dataset, options: TrainOptions
) -> dict[str, ExternalTest]:
    """What is scored of each external set.

    Raises UserError where images overlap with any part of the dataset, unless they are to be left
    out (and enough of both classes remain), or leakage is allowed: that is a `leak`.
    """
    return {
        name: _check(f"--external {name}={external.path}", external, dataset, options)
        for name, external in externals.items()
    }


def _check(words: str, external: Dataset, dataset: Dataset, options: TrainOptions) -> ExternalTest:
    found, rows = _overlap(dataset, external), external.labelled()
    table = found.found[found.found["row"].isin(rows)]
    folds = dataset.table["fold"].to_numpy()[table["other"].to_numpy()]
    parts = [_part(fold, options.task.fold) for fold in folds]
    reasons = Counter(table["reason"])
    facts = OverlapFacts(
        left_out=options.training_set.external_overlap == "leave-out",
        images=len(table),
        malignant=int(external.targets(table["row"].to_numpy()).sum()),
        reasons={reason: reasons[reason] for reason in REASONS if reason in reasons},
        parts={part: parts.count(part) for part in PARTS if part in parts},
        equal_ids_of_other_sources=found.equal_ids,
        without_hash=found.no_hash,
        dataset_without_hash=found.no_hash_own,
    )
    if not facts.images:
        return ExternalTest(rows, facts, None)
    left = np.setdiff1d(rows, table["row"])
    pairs = zip(table["row"], table["other"], table["reason"], strict=True)
    names, own = (each.table["image_id"].to_numpy() for each in (external, dataset))
    named = [f"{names[row]} ({reason}: {own[other]})" for row, other, reason in pairs]
    text = (
        f"{words}: {facts.images:,} of its {counted(len(rows), 'image')} overlap with "
        f"{dataset.path}: {in_words(facts)}; {some(named)}"
    )
    if facts.left_out:
        _check_enough(words, external, rows, left)
        return ExternalTest(left, facts, None)
    if options.training_set.allow_leakage:
        return ExternalTest(rows, facts, text)
    raise UserError(
        f"{text}; expected images of patients that the dataset does not have: "
        f"--external-overlap leave-out scores the other {len(left)}"
    )


def in_words(facts: OverlapFacts) -> str:
    """How many images overlap for each reason, and with which part."""
    reasons, parts = (
        ", ".join(f"{count} {name}" for name, count in counts.items())
        for counts in (facts.reasons, facts.parts)
    )
    return f"{reasons} (with {parts})"


def not_compared(facts: OverlapFacts) -> list[str]:
    """What the check could not see, as sentences."""
    lines = []
    if equal := facts.equal_ids_of_other_sources:
        lines.append(
            f"{counted(equal, 'image has', 'images have')} an id that the dataset has too, but "
            "not from one public archive: they count as other people; where they are the same, "
            "take them out of the set"
        )
    if facts.without_hash or facts.dataset_without_hash:
        lines.append(
            f"{facts.without_hash} of its images and {facts.dataset_without_hash} of the dataset "
            "have no perceptual hash: no near-duplicates of them were sought"
        )
    return lines


def _overlap(dataset: Dataset, external: Dataset) -> Overlap:
    both = (dataset, external)
    key = tuple(word for each in both for word in (str(each.path.absolute()), each.identity.id))
    if key not in _FOUND:
        _FOUND[key] = overlap(dataset, external)
    return _FOUND[key]


def _part(fold: int, validated: int | str) -> str:
    """The part of an image of the dataset."""
    special = {TEST: "test", NO_PART: "no part", validated: "validation"}
    return special.get(int(fold), "training")


def _check_enough(words: str, external: Dataset, rows: np.ndarray, left: np.ndarray) -> None:
    """Raise UserError where leaving out takes so many of a class that nothing can be said."""
    meaning = external.info.target
    for target, name in ((1, meaning.one), (0, meaning.zero)):
        before, after = (int((external.targets(each) == target).sum()) for each in (rows, left))
        if after < min(before, FEWEST):
            raise UserError(
                f"{words}: --external-overlap leave-out leaves {after} of its {before} images "
                f"that are {name}, the others overlap with the dataset; expected at least "
                f"{FEWEST}: take another set"
            )
