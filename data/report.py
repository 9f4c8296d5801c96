"""Dataset card: one self-contained HTML page that says what a prepared dataset holds.

    python -m data.report datasets/NAME                 writes datasets/NAME/report.html

Reads only what lies in the dataset's folder. Everything on the page is counted from the table, and
that no group lies in two parts is checked there, not taken over. Pictures are embedded.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from data import store
from data.card import pictures as pictures
from data.card.counts import (
    KINDS,
    age_bands,
    breakdown,
    duplicate_counts,
    figures,
    leak_checks,
    missing,
    part_names,
    positive,
    resolutions,
    with_rows,
)
from data.images import skin_tone
from dermsynth import cli, progress
from dermsynth.errors import UserError, some
from dermsynth.files import write_text
from dermsynth.page import templates
from dermsynth.seeds import generator

READING = {  # what the parts that are no fold are for
    "test": "evaluated once, at the end; never trained on",
    "extra": "external data: trains in every fold, never validates or tests",
    "no part": "no label, or external and tied to an image of the first source; not used",
}
PAIR_COLUMNS = ["image_id_1", "image_id_2", "kind", "across_lesions"]
PAIRS, SAMPLES = 12, 16  # pictures: pairs of duplicates, images of each class
TONES = 4000  # images whose skin is measured
BATCH = 64  # images read at a time: those of a native dataset are decoded with all cores
CITED = ("licence", "licence_url", "citation", "attribution")
SAID = ("folds_hash", "counts", "duplicates", "dropped", "conflicts", "sources", "options", "look")


@dataclass(frozen=True)
class ReportOptions:
    dataset: tyro.conf.Positional[Path]  # a prepared dataset, such as datasets/ham10000
    out: Path | None = None  # HTML file to write; DATASET/report.html if not given
    seed: int = 0  # of the choice of sample images
    overwrite: bool = False  # replace a file that is at --out already


@dataclass(frozen=True)
class Card:
    """What a dataset's folder holds, as far as this page needs it."""

    path: Path
    table: pd.DataFrame  # data.store.COLUMNS; target float (NaN: no label), group int codes
    images: Any  # indexable by row: uint8 [size, size, 3]; None where the dataset has only tables
    info: dict[str, Any]  # dataset.json
    pairs: pd.DataFrame | None  # duplicates.parquet, with the rows of its images
    skipped: pd.DataFrame | None  # skipped.csv


# --- reading -------------------------------------------------------------------------------------


def read_card(path: Path) -> Card:
    """Everything in a prepared dataset's folder. Raises UserError naming what is damaged."""
    table, info = store.load_table(path)
    tables_only = info.get("options", {}).get("tables_only")
    images = None if tables_only else store.load_dataset(path).images
    for column in ("target", "age"):
        table[column] = table[column].to_numpy(float, na_value=np.nan)
    for column in ("width", "height"):
        table[column] = table[column].fillna(0).astype(int)
    for column in ("diagnosis", "patient_id", "lesion_id", "sex", "site", "source"):
        words = table[column].astype(object)
        table[column] = words.where(words.notna() & (words != ""), None)
    table["group"] = pd.factorize(table["group"])[0]
    pairs = _read(path / "duplicates.parquet", pd.read_parquet, PAIR_COLUMNS)
    skipped = _read(path / "skipped.csv", _read_csv, ["image_id", "where", "reason"])
    if pairs is not None:
        pairs = with_rows(table, pairs)
    return Card(path, table, images, info, pairs, skipped)


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _read(path: Path, reader: Any, columns: list[str]) -> pd.DataFrame | None:
    if not path.exists():
        return None
    try:
        table = reader(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); prepare the dataset again") from None
    if lacking := [column for column in columns if column not in table]:
        raise UserError(f"{path}: no column {', '.join(lacking)}; prepare the dataset again")
    return table


# --- pictures ------------------------------------------------------------------------------------


def skin_tones(card: Card, seed: int) -> dict[str, Any] | None:
    """ITA of up to TONES images drawn at random; None where there are no images."""
    if card.images is None or card.table.empty:
        return None
    rows = np.arange(len(card.table))
    if len(rows) > TONES:
        rows = np.sort(generator(seed, "skin tone").choice(rows, TONES, replace=False))
    found: list[float] = []
    with progress.bar(len(rows), "skin tone", "image") as bar:
        for start in range(0, len(rows), BATCH):
            batch = card.images[rows[start : start + BATCH]]
            found += [skin_tone.ita(image) for image in batch]
            bar.update(len(batch))
    angles = np.array(found)
    measured = card.table.iloc[rows]
    names = pd.Categorical(skin_tone.bands(angles), list(skin_tone.BANDS), ordered=True)
    labels = pd.Series(names, index=measured.index)
    lines = breakdown(measured, labels, ordered=True)
    if lines[-1]["kind"]:
        lines[-1]["name"] = "no band"
    return {
        "measured": len(rows),
        "failed": int(np.isnan(angles).sum()),
        "bluish": int((np.abs(angles) > 90).sum()),
        "lines": lines,
        "figure": pictures.angles(angles, measured["target"].to_numpy()),
    }


def pair_pictures(card: Card) -> list[dict[str, Any]]:
    """Up to PAIRS pairs of duplicates to look at, those across lesion ids first, kinds in turn."""
    if card.pairs is None or card.images is None:
        return []
    pairs = card.pairs[(card.pairs["one"] >= 0) | (card.pairs["other"] >= 0)]
    turn = pairs.groupby(["across_lesions", "kind"]).cumcount()
    kind = pairs["kind"].map({name: place for place, name in enumerate(KINDS)})
    order = np.lexsort([kind.fillna(len(KINDS)), turn, ~pairs["across_lesions"].astype(bool)])
    return [_pair(card, pair) for pair in pairs.iloc[order[:PAIRS]].itertuples()]


def _pair(card: Card, pair: Any) -> dict[str, Any]:
    sides = []
    for image_id, row in ((pair.image_id_1, pair.one), (pair.image_id_2, pair.other)):
        side = {"id": image_id, "picture": None, "words": "dropped"}
        if row >= 0:
            side["picture"] = pictures.picture(np.asarray(card.images[int(row)]))
            side["words"] = _caption(card.table.iloc[row], lesion=True)
        sides.append(side)
    facts = {"kind": pair.kind, "across": pair.across_lesions, "differ": pair.differ}
    return facts | {"sides": sides}


def samples(card: Card, seed: int) -> list[dict[str, Any]]:
    """Up to SAMPLES images of each class drawn at random, malignant first, with captions."""
    if card.images is None:
        return []
    found = []
    for name, target in (("malignant", 1), ("benign", 0)):
        rows = np.flatnonzero(card.table["target"].to_numpy() == target)
        chosen = generator(seed, "samples", name).permutation(rows)[:SAMPLES]
        shown = [
            {
                "id": card.table["image_id"].iloc[row],
                "picture": pictures.picture(np.asarray(card.images[int(row)])),
                "words": _caption(card.table.iloc[row]),
            }
            for row in chosen
        ]
        found.append({"name": name, "of": len(rows), "images": shown})
    return found


def _caption(row: pd.Series, lesion: bool = False) -> str:
    words = [row["diagnosis"], f"{row['age']:.0f}" if pd.notna(row["age"]) else None, row["sex"]]
    if lesion:
        words = [row["diagnosis"], row["lesion_id"] or row["patient_id"]]
    return ", ".join(str(word) for word in words if word)


# --- the page ------------------------------------------------------------------------------------


def write_report(options: ReportOptions) -> Path:
    """Write the card of a dataset and return its path.

    Raises UserError for what is no dataset, is damaged, or cannot be written to.
    """
    out = _check_out(options)
    card = read_card(options.dataset)
    environment = templates(Path(__file__).parent / "card")
    environment.globals |= {"count": count, "percent": percent}
    page = environment.get_template("page.html.j2").render(**_context(card, options.seed))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
    return out


def _check_out(options: ReportOptions) -> Path:
    out = options.out or options.dataset / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: expected a name that ends in .html")
    if out.is_dir():
        raise UserError(f"--out {out}: a folder of that name exists; choose another name")
    if options.out and out.exists() and not options.overwrite:
        raise UserError(f"--out {out}: exists already; choose another name or add --overwrite")
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: {there} cannot be written to; choose another --out")
    return out


def count(value: Any) -> str:
    """`7,470`; an en dash where there is none."""
    return "–" if value is None else f"{value:,}"


def percent(value: Any) -> str:
    """`11.1%`; an en dash where there is none."""
    return "–" if value is None else f"{value:.1%}"


def _context(card: Card, seed: int) -> dict[str, Any]:
    table, info = card.table, card.info
    checks = leak_checks(table, card.pairs)
    look = info.get("look") or info.get("options") or {}
    native = card.images is not None and "shard" in table
    size = None if native or card.images is None else card.images.shape[1]
    parts = breakdown(table, part_names(table["fold"]), ordered=True)
    folds = [part for part in parts if part["name"].startswith("fold ")]
    return {
        "name": card.path.resolve().name,
        "info": info,
        "seed": seed,
        "whole": figures(table),
        "sources": _sources(card),
        "positive": some(positive(table), 4),
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
        "conflicts": list(info.get("conflicts") or []),
        "look": look | {"size": size},
        "resolutions": _resolutions(table, size),
        "samples": samples(card, seed),
        "tones": skin_tones(card, seed),
        "bands": skin_tone.BANDS,
        "cleaning": _cleaning(card.path),
        "rest": {key: value for key, value in info.items() if key not in (*SAID, *CITED)},
    }


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


def _resolutions(table: pd.DataFrame, size: int | None) -> dict[str, Any] | None:
    found = resolutions(table, size)
    if found is None:
        return None
    several = found["distinct"] > 2
    return found | {"figure": pictures.sizes(table[table["width"] > 0]) if several else None}


def _sources(card: Card) -> list[dict[str, Any]]:
    """Where the images come from, each with its licence; older datasets have one, unnamed."""
    listed = card.info.get("sources")
    if isinstance(listed, list) and all(isinstance(source, dict) for source in listed):
        return [{"name": "–"} | source for source in listed]
    one = {key: card.info[key] for key in CITED if key in card.info}
    return [{"name": card.info.get("source", "–"), **one}]


def _duplicates(card: Card) -> list[dict[str, Any]]:
    """Pairs by kind: of the list or, in datasets prepared before there was one, of the sums."""
    if card.pairs is not None:
        lines = duplicate_counts(card.pairs)
        return [line for line in lines if line["pairs"] or card.images is not None]
    sums = card.info.get("duplicates") or {}
    across = {"near": sums.get("near_pairs_across_lesions")}
    return [
        {"kind": kind, "pairs": sums[f"{kind}_pairs"], "across": across.get(kind), "differ": None}
        for kind in KINDS
        if f"{kind}_pairs" in sums
    ]


def _skipped(card: Card) -> list[dict[str, Any]]:
    """What was left out, by reason, most frequent first."""
    reasons: dict[str, list[str]] = {}
    if card.skipped is not None:
        for row in card.skipped.itertuples():
            reasons.setdefault(row.reason, []).append(row.image_id or row.where)
    if card.pairs is not None:
        copies = card.pairs[(card.pairs["kind"] == "identical") & (card.pairs["other"] < 0)]
        if len(copies):
            reasons["byte for byte the same as another image"] = copies["image_id_2"].tolist()
    for reason, names in (card.info.get("dropped") or {}).items():
        reasons.setdefault(reason, list(names))
    lines = [{"reason": why, "n": len(names), "first": names[:5]} for why, names in reasons.items()]
    return sorted(lines, key=lambda line: -line["n"])


def _cleaning(folder: Path) -> dict[str, str]:
    """Picture of each cleaner, before and after, by its name."""
    return {
        path.stem.removeprefix("cleaning-"): pictures.png(path.read_bytes())
        for path in sorted(folder.glob("cleaning-*.png"))
    }


def main(options: ReportOptions) -> None:
    """Write the card and say where it is."""
    print(write_report(options))


if __name__ == "__main__":
    cli.run(ReportOptions, main, "data.report", __doc__)
