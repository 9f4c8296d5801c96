"""The dataset card as one HTML page: everything on it is counted from the table, not taken over."""

from pathlib import Path
from typing import Any

import pandas as pd

from data.card import pictures
from data.card.contents import CardData, read_card_data
from data.card.counts import (
    KINDS,
    age_bands,
    breakdown,
    duplicate_counts,
    figures,
    leak_checks,
    missing,
    part_names,
    resolutions,
)
from data.card.samples import examples, pair_pictures, samples, shapes, skin_tones
from data.card.target import definition
from data.grouping import MEND
from data.images import skin_tone
from data.preparation.options import USES
from dermsynth.page import templates

READING = {  # what the parts that are no fold are for
    "test": "evaluated once, at the end; never trained on",
    "extra": "external data: trains in every fold, never validates or tests",
    "no part": "no label, or external and tied to an image of the first source; not used",
}
CITED = ("licence", "licence_url", "citation", "attribution")
SHOWN = (
    *("folds_hash", "counts", "duplicates", "dropped", "conflicts", "sources", "options", "look"),
    *("enlarged", "target", "grouping"),
)


def dataset_card(path: Path, seed: int) -> str:
    """The page of the dataset at `path`. Raises UserError for what is no dataset or is damaged."""
    card = read_card_data(path)
    environment = templates(Path(__file__).parent)
    environment.globals |= {"count": count, "percent": percent}
    return environment.get_template("page.html.j2").render(**_context(card, seed))


def count(value: Any) -> str:
    """`7,470`; an en dash where there is none."""
    return "–" if value is None else f"{value:,}"


def percent(value: Any) -> str:
    """`11.1%`; an en dash where there is none."""
    return "–" if value is None else f"{value:.1%}"


def _context(card: CardData, seed: int) -> dict[str, Any]:
    table, info = card.table, card.info
    checks = leak_checks(table, card.pairs)
    look = info.look.model_dump() if info.look else info.options
    said = info.model_dump()
    native = card.images is not None and "shard" in table
    size = None if native or card.images is None else card.images.shape[1]
    parts = breakdown(table, part_names(table["fold"]), ordered=True)
    folds = [part for part in parts if part["name"].startswith("fold ")]
    return {
        "name": card.path.resolve().name,
        "info": said,
        "options": applying(info.options),
        "seed": seed,
        "whole": figures(table),
        "sources": _sources(card),
        "target": definition(table, info.target),
        "grouping": info.grouping,
        "mend": MEND,
        "checks": checks,
        "leaky": any(check["torn"] for check in checks),
        "unlabelled": int(table["target"].isna().sum()),
        "has_images": card.images is not None,
        "stored": f"{size} px" if size else "original size" if native else "tables only",
        "parts": parts,
        "reading": READING,
        "spread": _spread(folds),
        "n_folds": len(folds),
        "by": _columns(
            {
                "age": breakdown(table, age_bands(table["age"]), ordered=True),
                **{name: breakdown(table, table[name]) for name in ("diagnosis", "site", "sex")},
                "source": breakdown(table, table["source"]),
            }
        ),
        "missing": missing(table),
        "duplicates": _duplicates(card),
        "listed": card.pairs is not None,
        "kinds": KINDS,
        "pairs": pair_pictures(card),
        "skipped": _skipped(card),
        "conflicts": info.conflicts,
        "look": look | {"size": size},
        "resolutions": _resolutions(table, size, info.target.one),
        "shapes": shapes(card, seed),
        "samples": samples(card, seed),
        "examples": examples(card, seed),
        "tones": skin_tones(card, seed),
        "bands": skin_tone.BANDS,
        "cleaning": {name: pictures.png(content) for name, content in card.cleaning.items()},
        "rest": {key: value for key, value in said.items() if key not in (*SHOWN, *CITED)},
    }


def applying(options: dict[str, Any]) -> dict[str, Any]:
    """The options of data.prepare without those that its source does not use."""
    used = USES.get(options.get("source", ""))
    idle = set() if used is None else set().union(*USES.values()) - used
    return {name: value for name, value in options.items() if name not in idle}


def _columns(tables: dict[str, list[Any]]) -> list[list[tuple[str, list[Any]]]]:
    """Tables in two columns of about the same height."""
    columns: list[list[tuple[str, list[Any]]]] = [[], []]
    heights = [0, 0]
    for name, lines in sorted(tables.items(), key=lambda table: -len(table[1])):
        shorter = heights.index(min(heights))
        columns[shorter].append((name, lines))
        heights[shorter] += len(lines) + 2
    return columns


def _spread(folds: list[dict[str, Any]]) -> dict[str, tuple[Any, Any]] | None:
    """Least and most of the folds' shares, images and groups."""
    if not folds or any(fold["share"] is None for fold in folds):
        return None
    columns = {key: [fold[key] for fold in folds] for key in ("share", "images", "groups")}
    return {key: (min(values), max(values)) for key, values in columns.items()}


def _resolutions(table: pd.DataFrame, size: int | None, one: str) -> dict[str, Any] | None:
    counts = resolutions(table, size)
    if counts is None:
        return None
    several = counts["distinct"] > 2
    return counts | {"figure": pictures.sizes(table[table["width"] > 0], one) if several else None}


def _sources(card: CardData) -> list[dict[str, Any]]:
    """Where the images come from, each with its licence; what was drawn here has no list."""
    facts = card.info.facts
    listed = facts.get("sources")
    if isinstance(listed, list) and all(isinstance(source, dict) for source in listed):
        return [{"name": "–"} | source for source in listed]
    return [{"name": card.info.source, **{key: facts[key] for key in CITED if key in facts}}]


def _duplicates(card: CardData) -> list[dict[str, Any]]:
    """Pairs by kind: of the list or, where there is none, of the sums."""
    if card.pairs is not None:
        lines = duplicate_counts(card.pairs)
        return [line for line in lines if line["pairs"] or card.images is not None]
    sums = card.info.duplicates
    across = {"near": sums.get("near_pairs_across_lesions")}
    return [
        {"kind": kind, "pairs": sums[f"{kind}_pairs"], "across": across.get(kind), "differ": None}
        for kind in KINDS
        if f"{kind}_pairs" in sums
    ]


def _skipped(card: CardData) -> list[dict[str, Any]]:
    """What was left out, by reason, most frequent first."""
    reasons: dict[str, list[str]] = {}
    if card.skipped is not None:
        for row in card.skipped.itertuples():
            reasons.setdefault(row.reason, []).append(row.image_id or row.where)
    if card.pairs is not None:
        copies = card.pairs[(card.pairs["kind"] == "identical") & (card.pairs["other"] < 0)]
        if len(copies):
            reasons["byte for byte the same as another image"] = copies["image_id_2"].tolist()
    for reason, names in card.info.dropped.items():
        reasons.setdefault(reason, list(names))
    lines = [{"reason": why, "n": len(names), "first": names[:5]} for why, names in reasons.items()]
    return sorted(lines, key=lambda line: -line["n"])
