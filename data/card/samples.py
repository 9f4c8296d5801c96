"""What the dataset card shows of the images: skin tones, pairs of duplicates, samples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from data.card import pictures
from data.card.contents import CardData
from data.card.counts import KINDS, breakdown
from data.card.target import in_words
from data.images import skin_tone, squash
from dermsynth import progress
from dermsynth.page import picture
from dermsynth.seeds import generator

PAIRS, SAMPLES = 12, 16  # pictures: pairs of duplicates, images of each class
EXAMPLES = 16  # diagnoses of which one image is shown
TONES = 4000  # images whose skin is measured
SHAPES = 500  # images whose stretch is measured
BATCH = 64  # images read at a time: those of a native dataset are decoded with all cores


def skin_tones(card: CardData, seed: int) -> dict[str, Any] | None:
    """ITA of up to TONES images drawn at random; None where there are no images."""
    if card.images is None or card.table.empty:
        return None
    rows, ita = _measured(card, seed, "skin tone", TONES, skin_tone.ita)
    measured = card.table.iloc[rows]
    names = pd.Categorical(skin_tone.bands(ita), list(skin_tone.BANDS), ordered=True)
    labels = pd.Series(names, index=measured.index)
    lines = breakdown(measured, labels, ordered=True)
    if lines[-1]["kind"]:
        lines[-1]["name"] = "no band"
    return {
        "measured": len(rows),
        "failed": int(np.isnan(ita).sum()),
        "bluish": int((np.abs(ita) > 90).sum()),
        "lines": lines,
        "figure": pictures.angles(ita, measured["target"].to_numpy(), card.info.target.words),
    }


def shapes(card: CardData, seed: int) -> dict[str, Any] | None:
    """Whether originals are square, and whether up to SHAPES images drawn at random look squashed.

    None where there are no images.
    """
    if card.images is None or card.table.empty:
        return None
    _, stretches = _measured(card, seed, "shapes", SHAPES, squash.stretch)
    known, sides = np.isfinite(stretches), card.table[["width", "height"]]
    sides = sides[(sides > 0).all(axis=1)]
    return {
        "square": float((sides["width"] == sides["height"]).mean()) if len(sides) else None,
        "measured": int(known.sum()),
        "enough": known.sum() >= squash.LEAST,
        "stretch": float(np.median(stretches[known])) if known.any() else None,
        "squashed": squash.squashed(stretches),
        "usual": squash.USUAL,
    }


def _measured(
    card: CardData, seed: int, what: str, most: int, measure: Callable[[np.ndarray], float]
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of up to `most` images drawn at random, and a figure of each."""
    assert card.images is not None
    rows, values = np.arange(len(card.table)), []
    if len(rows) > most:
        rows = np.sort(generator(seed, what).choice(rows, most, replace=False))
    with progress.bar(len(rows), what, "image") as bar:
        for start in range(0, len(rows), BATCH):
            batch = card.images[rows[start : start + BATCH]]
            values += [measure(np.asarray(image)) for image in batch]
            bar.update(len(batch))
    return rows, np.array(values)


def pair_pictures(card: CardData) -> list[dict[str, Any]]:
    """Up to PAIRS pairs of duplicates to look at, those across lesion ids first, kinds in turn."""
    if card.pairs is None or card.images is None:
        return []
    pairs = card.pairs[(card.pairs["one"] >= 0) | (card.pairs["other"] >= 0)]
    turn = pairs.groupby(["across_lesions", "kind"]).cumcount()
    kind = pairs["kind"].map({name: place for place, name in enumerate(KINDS)})
    order = np.lexsort([kind.fillna(len(KINDS)), turn, ~pairs["across_lesions"].astype(bool)])
    return [_pair(card, pair) for pair in pairs.iloc[order[:PAIRS]].itertuples()]


def _pair(card: CardData, pair: Any) -> dict[str, Any]:
    sides = []
    for image_id, row in ((pair.image_id_1, pair.one), (pair.image_id_2, pair.other)):
        side = {"id": image_id, "picture": None, "words": "dropped"}
        if row >= 0:
            side["picture"] = picture(np.asarray(card.images[int(row)]))
            side["words"] = _caption(card.table.iloc[row], lesion=True)
        sides.append(side)
    facts = {"kind": pair.kind, "across": pair.across_lesions, "differ": pair.differ}
    return facts | {"sides": sides}


def samples(card: CardData, seed: int) -> list[dict[str, Any]]:
    """Up to SAMPLES images of each class drawn at random, target 1 first, with captions."""
    if card.images is None:
        return []
    classes = []
    for target, name in ((1, card.info.target.one), (0, card.info.target.zero)):
        rows = np.flatnonzero(card.table["target"].to_numpy() == target)
        chosen = generator(seed, "samples", target).permutation(rows)[:SAMPLES]
        shown = [_tile(card, row, _caption(card.table.iloc[row])) for row in chosen]
        classes.append({"name": name, "of": len(rows), "images": shown})
    return classes


def examples(card: CardData, seed: int) -> dict[str, Any] | None:
    """One image of each diagnosis, drawn at random, of the EXAMPLES most frequent ones.

    Each says the diagnosis in words, what it counts as, and how many images have it; None where
    there are no images or no diagnoses.
    """
    diagnosis = card.table["diagnosis"]
    counts = diagnosis.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if card.images is None or counts.empty:
        return None
    shown = []
    for code, n in counts.iloc[:EXAMPLES].items():
        rows = np.flatnonzero(diagnosis.to_numpy() == code)
        row = generator(seed, "examples", str(code)).choice(rows)
        name = code if in_words(code) is None else f"{code}: {in_words(code)}"
        counts_as = _target_words(card.table["target"].iloc[rows], card.info.target.words)
        shown.append(_tile(card, row, f"{name} ({n:,}); {counts_as}"))
    return {"images": shown, "more": max(len(counts) - EXAMPLES, 0)}


def _target_words(targets: pd.Series, words: tuple[str, str]) -> str:
    """What images of one diagnosis count as: a target's word, both with their counts, neither."""
    counts = [(word, int((targets == target).sum())) for target, word in enumerate(words)]
    present = [(word, n) for word, n in counts if n]
    if len(present) == 2:
        return " and ".join(f"{n:,} {word}" for word, n in present)
    return present[0][0] if present else "no label"


def _tile(card: CardData, row: int, words: str) -> dict[str, Any]:
    picture_of = picture(np.asarray(card.images[int(row)]))
    return {"id": card.table["image_id"].iloc[row], "picture": picture_of, "words": words}


def _caption(row: pd.Series, lesion: bool = False) -> str:
    words = [row["diagnosis"], f"{row['age']:.0f}" if pd.notna(row["age"]) else None, row["sex"]]
    if lesion:
        words = [row["diagnosis"], row["lesion_id"] or row["patient_id"]]
    return ", ".join(str(word) for word in words if word)
