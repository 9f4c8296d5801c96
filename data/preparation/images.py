"""Images and labels from elsewhere as a dataset: listed, joined, decoded, grouped and split."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from data import sources, store
from data.preparation import assemble
from data.preparation.checks import bytes_needed, check_enough, check_space
from data.preparation.faults import judge, unreadable
from data.preparation.ingest import (
    FORM,
    IngestResult,
    fingerprint,
    forget,
    ingest,
    show_cleaning,
)
from data.preparation.join import JoinedListing, join, settle
from data.preparation.options import PrepareOptions, words
from data.sources.diagnoses import Understood, plain
from data.sources.diagnosis_map import read_map
from data.sources.listing import Fault, Listing, SourceOptions
from data.sources.targets import said_of_words
from data.store import Dataset, load_dataset, load_table
from dermsynth.errors import UserError, some
from dermsynth.folders import whole_folder

ALIKE = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".mpo": ".jpg", ".tiff": ".tif"}
TELLING = 0.8  # difference of shares from which the format of a file tells its target


def prepare_images(options: PrepareOptions) -> Dataset | pd.DataFrame:
    """Prepare what `options.input` names; only the table with `tables_only`. Raises UserError."""
    roots, labels, out = options.input.root, options.labels, options.out
    meant = read_map(labels.diagnosis_map) if labels.diagnosis_map else {}
    listings = [
        (name, sources.read_source(name, root, _source_options(name, options, meant)))
        for name, root in zip((options.input.source, *options.input.extra), roots, strict=True)
    ]
    words = pd.concat([listing.words for _, listing in listings], ignore_index=True)
    _check_map(words, options, meant)
    joined = settle(_without_use(join(listings), labels.tables_only), labels.conflicts)
    for line in said_of_words(words, joined.meaning):
        print(f"note: {line}; --diagnosis-map FILE gives them another meaning")
    if note := _format_tells(joined):
        print(f"note: {note}")
    total = len(joined.table) + len(joined.faults)
    absent = [
        Fault(name, "", "absent")
        for name, file in zip(joined.table["image_id"], joined.files, strict=True)
        if file is None and not labels.tables_only
    ]
    faults = [*joined.faults, *absent]
    judge(faults, total, roots, labels.on_error)
    try:
        check_enough(joined.table[~joined.table["external"]], options.split, joined.meaning.words)
    except UserError as error:
        raise UserError(f"--root {roots[0]}: {error}") from None
    facts = _facts(listings, options) | _strange(words)
    if labels.tables_only:
        return _tables_only(joined, options, facts, faults)
    preprocessing, native = assemble.preprocessing(options), options.pixels.native
    check_space(bytes_needed(joined.files, preprocessing, native), options)
    names = joined.table["image_id"].tolist()
    inputs = {"form": FORM, "look": dataclasses.asdict(preprocessing), "native": native}
    key = fingerprint(inputs, names, joined.files)
    with whole_folder(out, store.KIND, options.output.overwrite, key) as folder:
        ingested = ingest(folder, names, joined.files, preprocessing, native, roots)
        faults += unreadable(ingested.bad, names, joined.files, roots)
        judge(faults, total, roots, labels.on_error)
        joined = assemble.settle_copies(joined, ingested, labels.conflicts)
        images = store.map_images(folder / store.IMAGES, len(ingested.kept), store.MEND)
        pairs = assemble.pair_up(joined, ingested, images, folder)
        del images  # close the map before its folder moves
        show_cleaning(folder, joined.files, ingested, preprocessing)
        forget(folder, pixels_too=native)
        assemble.finish(folder, joined, ingested, pairs, options, facts, faults)
    dataset = load_dataset(out)
    assemble.print_summary(out, dataset.info)
    return dataset


def _source_options(
    source: str, options: PrepareOptions, meant: dict[str, Understood]
) -> SourceOptions:
    columns = dict(vars(options.columns)) if source == "folder" else {}
    own_folds = source == options.input.source
    labels = options.labels
    return SourceOptions(
        positive=None if labels.positive is None else words(labels.positive),
        diagnosis_map=meant,
        tables_only=labels.tables_only,
        tables=columns.pop("table", ()),
        fold_column=options.split.fold_column if own_folds else None,
        **columns,
    )


def _check_map(said: pd.DataFrame, options: PrepareOptions, meant: dict[str, Understood]) -> None:
    """Raise UserError for words of --diagnosis-map that no source has: a slip of the pen."""
    if idle := sorted(set(meant) - set(map(plain, said["word"]))):
        raise UserError(
            f"--diagnosis-map {options.labels.diagnosis_map}: no row has the diagnosis "
            f"{some(idle)}; there are {some(said['word'].drop_duplicates().tolist(), 12)}"
        )


def _without_use(joined: JoinedListing, tables_only: bool) -> JoinedListing:
    """Without rows that have neither label nor image: the test part of a table, as downloaded."""
    if tables_only:
        return joined
    absent = np.array([file is None for file in joined.files], bool)
    idle = absent & joined.table["target"].isna().to_numpy()
    return joined if idle.all() else joined.keep(~idle, "neither label nor image")


def _format_tells(joined: JoinedListing) -> str:
    """What to say where the format of a file gives its target away; "" where it does not."""
    files = [file for file in joined.files if file is not None]
    if len(files) < len(joined.files) or not files:
        return ""
    suffix = pd.Series([file.path.suffix.lower() for file in files]).replace(ALIKE)
    target = joined.table["target"]
    shares = pd.crosstab(suffix, target, normalize="columns")
    if len(shares.columns) < 2:
        return ""
    apart = shares[1.0] - shares[0.0]
    if apart.abs().max() < TELLING:
        return ""
    name, zero, one = apart.abs().idxmax(), *joined.meaning.words
    return (
        f"{shares.loc[name, 1.0]:.0%} of the images of `{one}` are {name} files and "
        f"{shares.loc[name, 0.0]:.0%} of those of `{zero}`: what stored them so may show in the "
        "pixels, and a classifier learns it"
    )


def _strange(said: pd.DataFrame) -> dict[str, Any]:
    """What dataset.json says of diagnoses that are none of the eight classes, by their number."""
    facts = {}
    for kind in ("unknown", "doubtful", "indeterminate"):
        rows = said[said["kind"] == kind].groupby("word")["n"].sum().sort_values(ascending=False)
        if len(rows):
            facts[f"{kind}_diagnoses"] = {word: int(n) for word, n in rows.items()}
    return facts


def _facts(listings: list[tuple[str, Listing]], options: PrepareOptions) -> dict[str, Any]:
    """What dataset.json says of the sources."""
    return listings[0][1].facts | {
        "rows": sum(len(listing.table) + len(listing.faults) for _, listing in listings),
        "files_without_row": sum(listing.unlisted for _, listing in listings),
        "second_copies": sum(listing.copies for _, listing in listings),
        "sources": [
            {"name": name, "root": str(root), **listing.facts}
            for (name, listing), root in zip(listings, options.input.root, strict=True)
        ],
    }


def _tables_only(
    joined: JoinedListing, options: PrepareOptions, facts: dict[str, Any], faults: list[Fault]
) -> pd.DataFrame:
    rows = np.arange(len(joined.table))
    kept = pd.DataFrame({"row": rows, "width": 0, "height": 0, "sha256": "", "phash": ""})
    with whole_folder(options.out, store.KIND, options.output.overwrite) as folder:
        pairs = pd.DataFrame(joined.same, columns=["one", "other"]).assign(kind="declared")
        assemble.finish(folder, joined, IngestResult(kept), pairs, options, facts, faults)
    table, info, _ = load_table(options.out)
    assemble.print_summary(options.out, info)
    return table
