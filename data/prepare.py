"""Make a dataset (or a pool) that everything else reads: images, table, groups, folds.

    python -m data.prepare                                         the phantom, nothing to download
    python -m data.prepare --source ham10000 --root DIR            HAM10000 as downloaded
    python -m data.prepare --source siim2020 --root A --extra isic2019 --root B
                                            the second source joins the training parts only
    python -m data.prepare --source folder --root DIR              your own images
    python -m data.prepare --source pool --root DIR --out DIR2 --provenance "made by ... from ..."
                                            synthetic malignant images from any other tool

Every image goes the same way, whatever its source: upright, centre crop to a square, Lanczos to
--size. Images of one patient, one lesion, or that show the same lesion again are one group, and no
group is ever split over folds. The folder appears at --out complete or not at all; after a kill the
same command goes on where it was.
"""

import dataclasses
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import tyro

from data import folds, pool, sources, store
from data.images.cleaning import CLEANERS
from data.images.decoding import Encoded, Look, perceptual_hash
from data.phantom.draw import PhantomConfig, sample_dataset, sample_table
from data.pool import Pool
from data.preparation import assemble
from data.preparation.faults import judge, reasons, skipped_rows, unreadable
from data.preparation.ingest import PIXELS, Ingested, fingerprint, forget, ingest, show_cleaning
from data.preparation.join import Joined, Policy, join, settle
from data.sources.listing import Ask, Fault
from data.store import NATIVE_SIZE, Dataset, load_dataset, load_table
from dermsynth.cli import as_plain, run, save_options
from dermsynth.errors import UserError
from dermsynth.files import check_replaceable, continued_folder, new_folder

DATASETS = Path("datasets")
SIZES = (32, 1024)  # px, smallest and largest side that is stored
Tabular = Literal["ham10000", "isic2019", "siim2020", "isic-archive", "folder", "tfrecords"]
Extras = Annotated[tuple[Tabular, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class PrepareOptions:
    source: Tabular | Literal["phantom", "pool"] = "phantom"  # where the images come from
    root: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()  # folder of each source
    out: Path | None = None  # folder to make; datasets/SOURCE if not given
    extra: Extras = ()  # further sources that join the training parts only, each with its --root
    size: int | Literal["native"] = 128  # side of the stored images, px; native: files as they are
    fit: Literal["crop", "letterbox"] = "crop"  # cut the long side, or fill up the short one
    clean: str = ""  # of hair, frame, colour, comma-separated: what to remove from every image
    folds: int = 5  # number of folds, at least 2
    test_fraction: float = 0.2  # share kept for the test part
    fold_column: str | None = None  # keep the folds of this column of the CSV (-1: test part)
    seed: int = 0  # of the folds, and of the phantom's images
    positive: str = "mel"  # diagnoses that count as malignant, comma-separated
    conflicts: Policy = "fail"  # lesions with both targets: each image its own, malignant, or drop
    on_error: Literal["fail", "skip"] = "fail"  # unusable rows and images: stop, or leave them out
    tables_only: bool = False  # folds and table without any image
    image_column: str | None = None  # of the CSV, where its name is unusual (folder)
    target_column: str | None = None  # of the CSV: 0/1, benign/malignant or diagnoses (folder)
    group_column: str | None = None  # of the CSV: images of one value are never split (folder)
    provenance: str | None = None  # what the images were made by and from, in your words (pool)
    patients: int = PhantomConfig.patients  # about 2.9 images each (phantom)
    prevalence: float = PhantomConfig.prevalence  # share of malignant lesions (phantom)
    best_auc: float = PhantomConfig.best_auc  # AUC of the best possible classifier (phantom)
    overwrite: bool = False  # replace what this command made at --out before


PIXEL = {"fit", "clean"}
SPLIT = {"folds", "test_fraction", "seed"}
FILES = {"root", "on_error"}
TABLES = {"extra", "fold_column", "positive", "conflicts", "tables_only"} | PIXEL | SPLIT | FILES
COLUMNS = {"image_column", "target_column", "group_column"}
USES = {  # beside source, out, size and overwrite
    "phantom": SPLIT | {"patients", "prevalence", "best_auc"},
    "pool": PIXEL | FILES | {"provenance"},
    **dict.fromkeys(sources.READERS, TABLES),
    "folder": TABLES | COLUMNS,
}


def prepare(options: PrepareOptions) -> Dataset | Pool | pd.DataFrame:
    """Prepare and open a dataset; a pool with `source="pool"`; the table with `tables_only`.

    Raises UserError for bad input: nothing is left at `options.out`, what was there stays.
    """
    _check(options)
    out = options.out or DATASETS / options.source
    marker = pool.MARKER if options.source == "pool" else store.MARKER
    check_replaceable(out, marker, options.overwrite)
    if options.source == "pool":
        return _prepare_pool(options, out)
    if options.source == "phantom":
        return _prepare_phantom(options, out)
    return _prepare_files(options, out)


def default_dataset() -> Path:
    """`datasets/phantom`, prepared with default options unless it is there."""
    path = DATASETS / "phantom"
    if not path.exists():
        print(f"no --data given: preparing the phantom in {path}")
        prepare(PrepareOptions())
    return path


# --------------------------------------------------------------------------------------- sources


def _prepare_phantom(options: PrepareOptions, out: Path) -> Dataset:
    size = int(options.size)
    config = PhantomConfig(options.patients, options.prevalence, options.best_auc, size)
    drawn = sample_table(config, options.seed)  # cheap: what is wrong shows before the drawing
    _check_enough(drawn, options)
    _check_space(out, len(drawn) * size * size * 3, options)
    images, table, facts = sample_dataset(config, options.seed)
    table = table.assign(source="phantom", external=False, target=table["target"].astype(float))
    kept = pd.DataFrame(
        {
            "row": np.arange(len(table)),
            "width": size,
            "height": size,
            "sha256": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
            "phash": [perceptual_hash(image) for image in images],
        }
    )
    taken = Ingested(kept, pd.DataFrame({"row": [], "first": []}, dtype=np.int64), {})
    joined = Joined(table, [], [], np.empty((0, 2), np.int64), {}, [])
    with new_folder(out, store.MARKER, options.overwrite) as folder:
        store.save_images(folder / PIXELS, images)
        facts |= {"licence": "none needed: drawn here", "drawn": len(images)}
        pairs = assemble.pair_up(joined, taken, images, None)
        info = _finish(folder, joined, taken, pairs, options, facts, [])
    assemble.report(out, info)
    return load_dataset(out)


def _prepare_files(options: PrepareOptions, out: Path) -> Dataset | pd.DataFrame:
    listings = [
        (name, sources.read_source(name, root, _ask(name, options)))
        for name, root in zip((options.source, *options.extra), options.root, strict=True)
    ]
    joined = settle(join(listings), options.conflicts)
    total = len(joined.table) + len(joined.faults)
    absent = [
        Fault(name, "", "absent")
        for name, file in zip(joined.table["image_id"], joined.files, strict=True)
        if file is None and not options.tables_only
    ]
    faults = [*joined.faults, *absent]
    judge(faults, total, options.root, options.on_error)
    try:
        _check_enough(joined.table[~joined.table["external"]], options)
    except UserError as error:
        raise UserError(f"--root {options.root[0]}: {error}") from None
    first = listings[0][1]
    facts = first.facts | {
        "rows": sum(len(one.table) + len(one.faults) for _, one in listings),
        "files_without_row": sum(listing.unlisted for _, listing in listings),
        "second_copies": sum(listing.copies for _, listing in listings),
        "sources": [
            {"name": name, "root": str(root), **listing.facts}
            for (name, listing), root in zip(listings, options.root, strict=True)
        ],
    }
    if options.tables_only:
        return _tables_only(options, out, joined, faults, facts)
    look = _look(options)
    _check_space(out, _bytes_needed(joined.files, look, options), options)
    names = joined.table["image_id"].tolist()
    inputs = {"look": dataclasses.asdict(look), "native": options.size == "native"}
    key = fingerprint(inputs, names, joined.files)
    with continued_folder(out, store.MARKER, key, options.overwrite) as folder:
        taken = ingest(folder, names, joined.files, look, options.size == "native", options.root)
        faults += unreadable(taken.bad, names, joined.files, options.root)
        judge(faults, total, options.root, options.on_error)
        joined = assemble.settle_copies(joined, taken, options.conflicts)
        images = store.load_images(folder, len(taken.kept), "prepare it again")
        pairs = assemble.pair_up(joined, taken, images, folder)
        del images  # close the map before its folder moves
        info = _finish(folder, joined, taken, pairs, options, facts, faults)
        show_cleaning(folder, joined.files, taken, look)
        forget(folder, pixels_too=options.size == "native")
    assemble.report(out, info)
    return load_dataset(out)


def _tables_only(
    options: PrepareOptions, out: Path, joined: Joined, faults: list[Fault], facts: dict[str, Any]
) -> pd.DataFrame:
    rows = np.arange(len(joined.table))
    kept = pd.DataFrame({"row": rows, "width": 0, "height": 0, "sha256": "", "phash": ""})
    taken = Ingested(kept, pd.DataFrame({"row": [], "first": []}, dtype=np.int64), {})
    with new_folder(out, store.MARKER, options.overwrite) as folder:
        pairs = assemble.declared_only(joined)
        info = _finish(folder, joined, taken, pairs, options, facts, faults)
    assemble.report(out, info)
    return load_table(out)[0]


def _prepare_pool(options: PrepareOptions, out: Path) -> Pool:
    (root,) = options.root
    sources.check_root(options.source, root)
    files = sources.list_pool(root)
    names = [str(path.relative_to(root)) for path in files]
    encoded: list[Encoded | None] = [Encoded(path) for path in files]
    look = _look(options)
    _check_space(out, _bytes_needed(encoded, look, options), options)
    provenance = {"kind": "unknown"}
    if options.provenance:
        provenance = {"kind": "declared", "statement": options.provenance}
    key = fingerprint({"look": dataclasses.asdict(look)}, names, encoded)
    with continued_folder(out, pool.MARKER, key, options.overwrite) as folder:
        taken = ingest(folder, names, encoded, look, roots=(root,))
        faults = unreadable(taken.bad, names, encoded, options.root)
        judge(faults, len(files), options.root, options.on_error)
        dropped = reasons(faults)
        if len(taken.copies):
            again = [names[row] for row in taken.copies["row"]]
            dropped |= {"byte-identical to another image": again}
        pool.save_header(folder, len(taken.kept), look.size, provenance, dropped)
        save_options(options, folder)
        forget(folder, pixels_too=False)
    gone = sum(map(len, dropped.values()))
    print(f"{out}: pool of {len(taken.kept):,} images of {look.size} px, {gone:,} files dropped")
    if not options.provenance:
        print(
            'provenance unknown: the classifier refuses it; declare it with --provenance "TEXT" '
            "if no image was made from validation or test images"
        )
    return pool.load_pool(out)


# ------------------------------------------------------------------------------------------- work


def _finish(
    folder: Path,
    joined: Joined,
    taken: Ingested,
    pairs: pd.DataFrame,
    options: PrepareOptions,
    facts: dict[str, Any],
    faults: list[Fault],
) -> dict[str, Any]:
    """Group, split, and write all but the images. Returns what dataset.json says."""
    kept = taken.kept["row"].to_numpy(np.int64)
    table = assemble.split(
        *(joined.table, pairs, kept, options.folds, options.test_fraction, options.seed)
    )
    for column in taken.kept.columns.drop("row"):
        kind = str if column in ("sha256", "phash") else np.int64
        table[column] = taken.kept[column].to_numpy(kind if kind is not str else object)
    look = _look(options)
    native = options.size == "native"
    small = (table[["width", "height"]].min(axis=1) < look.size) & (not native)
    info = {
        "source": options.source,
        "options": as_plain(options),
        "look": {**as_plain(look), "size": options.size},
        **facts,
        "enlarged": 0 if options.tables_only else int(small.sum()),
        "dropped": joined.dropped | reasons(faults),
        "conflicts": joined.conflicts,
    }
    names = joined.table[["image_id", "lesion_id"]]
    info = assemble.save(folder, table, pairs, names, info)
    assemble.save_skipped(folder, skipped_rows(faults))
    save_options(options, folder)
    return info


def _look(options: PrepareOptions) -> Look:
    size = NATIVE_SIZE if options.size == "native" else int(options.size)
    named = {word.strip() for word in options.clean.split(",") if word.strip()}
    return Look(size, options.fit, tuple(name for name in CLEANERS if name in named))


def _ask(source: str, options: PrepareOptions) -> Ask:
    own = COLUMNS if source == "folder" else set()
    return Ask(
        positive=tuple(word.strip() for word in options.positive.split(",") if word.strip()),
        tables_only=options.tables_only,
        fold_column=options.fold_column if source == options.source else None,
        **{name: getattr(options, name) for name in own},
    )


# ---------------------------------------------------------------------------------------- checks


def _check(options: PrepareOptions) -> None:
    """Raise UserError for options that are wrong whatever the data, or that do nothing here."""
    if options.source not in USES:
        raise UserError(f"--source {options.source}: expected {', '.join(USES)}")
    default = PrepareOptions()
    changed = {
        field.name
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != getattr(default, field.name)
    }
    idle = sorted(changed - USES[options.source] - {"source", "out", "size", "overwrite"})
    if idle:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise UserError(f"{flags}: --source {options.source} does not use it; leave it out")
    if options.source != "phantom" and len(options.root) != 1 + len(options.extra):
        said = f"--source {options.source}" + "".join(f" --extra {name}" for name in options.extra)
        raise UserError(
            f"{said} needs --root FOLDER for each source, in this order: expected "
            f"{1 + len(options.extra)}, found {len(options.root)}"
        )
    native = options.size == "native"
    if native and options.source in ("phantom", "pool"):
        raise UserError(f"--size native: --source {options.source} has images of one size only")
    if not native and not SIZES[0] <= int(options.size) <= SIZES[1]:
        raise UserError(f"--size {options.size}: expected {SIZES[0]} to {SIZES[1]} px, or native")
    for name in [word.strip() for word in options.clean.split(",") if word.strip()]:
        if name not in CLEANERS:
            raise UserError(f"--clean {name}: expected of {', '.join(CLEANERS)}, comma-separated")
    if options.tables_only and (native or options.clean):
        raise UserError("--tables-only: no image is read; leave out --size native and --clean")
    if options.provenance is not None and not options.provenance.strip():
        raise UserError("--provenance: empty; say what the images were made by and from")
    folds.check_options(options.folds, options.test_fraction)


def _check_enough(table: pd.DataFrame, options: PrepareOptions) -> None:
    """Raise UserError unless there are lesions enough, grouped as the ids alone group them."""
    table = table[table["target"].notna()].reset_index(drop=True)
    if len(table) == 0 or options.fold_column:
        return  # for prediction only, or split already
    group = folds.group_images(table, np.zeros((0, 2), np.int64))
    target = table["target"].to_numpy().astype(np.uint8)
    folds.check_enough(target, group, options.folds, options.test_fraction)


def _check_space(out: Path, need: int, options: PrepareOptions) -> None:
    """Raise UserError where the images cannot fit, before they are decoded."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise UserError(
            f"--out {out}: images of --size {options.size} need {need / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; free some space or choose another --out or --size"
        )


def _bytes_needed(files: list[Encoded | None], look: Look, options: PrepareOptions) -> int:
    present = [file for file in files if file is not None]
    stored = len(present) * look.size**2 * 3
    if options.size != "native":
        return stored
    return stored + sum(file.length or _file_size(file.path) for file in present)


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # told with the other unusable files
        return 0


if __name__ == "__main__":
    run(PrepareOptions, prepare, "data.prepare", __doc__)
