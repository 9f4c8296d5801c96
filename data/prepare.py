"""Make a dataset (or a pool) that everything else reads: images, table, groups, folds.

    python -m data.prepare                                         the phantom, nothing to download
    python -m data.prepare --source ham10000 --root DIR            HAM10000 as downloaded
    python -m data.prepare --source pool --root DIR --out DIR2 --provenance "made by ... from ..."
                                            synthetic malignant images from any other tool

Every image goes the same way, whatever its source: upright, centre crop to a square, Lanczos to
--size. Images of one patient, one lesion, or that show the same lesion again are one group, and no
group is ever split over folds. The folder appears at --out complete or not at all.
"""

import dataclasses
import hashlib
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from data import folds, pool, sources, store
from data.duplicates import identical_pairs, near_duplicates
from data.images import BadImage, Decoded, decode_all, perceptual_hash
from data.phantom import PhantomConfig, sample_dataset, sample_table
from data.pool import Pool
from data.store import TEST, Dataset, load_dataset
from runtime.cli import as_plain, run, save_options
from runtime.errors import UserError, some
from runtime.files import check_replaceable, new_folder

DATASETS = Path("datasets")
SIZES = (32, 1024)  # px, smallest and largest side that is stored
BATCH = 256  # images written at a time


@dataclass(frozen=True)
class PrepareOptions:
    source: Literal["phantom", "ham10000", "pool"] = "phantom"  # where the images come from
    root: Path | None = None  # folder to read (ham10000, pool)
    out: Path | None = None  # folder to make; datasets/SOURCE if not given
    size: int = 128  # side of the stored images, px
    folds: int = 5  # number of folds, at least 2 (phantom, ham10000)
    test_fraction: float = 0.2  # share of the groups kept for the test part (phantom, ham10000)
    seed: int = 0  # of the folds, and of the phantom's images
    positive: str = "mel"  # diagnoses that count as malignant, comma-separated (ham10000)
    on_error: Literal["fail", "skip"] = "fail"  # unusable images: stop, or drop and count them
    provenance: str | None = None  # what the images were made by and from, in your words (pool)
    patients: int = PhantomConfig.patients  # about 2.9 images each (phantom)
    prevalence: float = PhantomConfig.prevalence  # share of malignant lesions (phantom)
    best_auc: float = PhantomConfig.best_auc  # AUC of the best possible classifier (phantom)
    overwrite: bool = False  # replace what this command made at --out before


SPLIT = {"folds", "test_fraction", "seed"}
USES = {  # beside source, out, size and overwrite
    "phantom": SPLIT | {"patients", "prevalence", "best_auc"},
    "ham10000": SPLIT | {"root", "positive", "on_error"},
    "pool": {"root", "provenance", "on_error"},
}


def prepare(options: PrepareOptions) -> Dataset | Pool:
    """Prepare and open a dataset, or a pool with `source="pool"`.

    Raises UserError for bad input: nothing is left at `options.out`, what was there stays.
    """
    _check(options)
    out = options.out or DATASETS / options.source
    check_replaceable(
        out, pool.MARKER if options.source == "pool" else store.MARKER, options.overwrite
    )
    if options.source == "pool":
        return _prepare_pool(options, out)
    if options.source == "ham10000":
        return _prepare_files(options, out)
    return _prepare_phantom(options, out)


def default_dataset() -> Path:
    """`datasets/phantom`, prepared with default options unless it is there."""
    path = DATASETS / "phantom"
    if not path.exists():
        print(f"no --data given: preparing the phantom in {path}")
        prepare(PrepareOptions())
    return path


# --------------------------------------------------------------------------------------- sources


def _prepare_phantom(options: PrepareOptions, out: Path) -> Dataset:
    config = PhantomConfig(options.patients, options.prevalence, options.best_auc, options.size)
    drawn = sample_table(config, options.seed)  # cheap: what is wrong shows before the drawing
    folds.check_enough(*_lesions(drawn), options.folds, options.test_fraction)
    _check_space(out, len(drawn), options.size)
    images, table, facts = sample_dataset(config, options.seed)
    table = table.assign(
        source="phantom",
        width=options.size,
        height=options.size,
        sha256=[hashlib.sha256(image.tobytes()).hexdigest() for image in images],
        phash=[perceptual_hash(image) for image in images],
    )
    with new_folder(out, store.MARKER, options.overwrite) as folder:
        store.save_images(folder / "images.npy", images)
        facts = facts | {"licence": "none needed: drawn here", "drawn": len(images)}
        info = _finish(folder, images, table, options, facts, {})
    _report(out, info)
    return load_dataset(out)


def _prepare_files(options: PrepareOptions, out: Path) -> Dataset:
    root = sources.check_root(options.source, options.root)
    positive = [word.strip() for word in options.positive.split(",") if word.strip()]
    listing = sources.list_ham10000(root, positive)
    folds.check_enough(*_lesions(listing.table), options.folds, options.test_fraction)
    _check_space(out, len(listing.files), options.size)
    facts = listing.facts | {
        "rows": len(listing.files),
        "files_without_row": listing.unlisted,
        "second_copies": listing.copies,
    }
    names = listing.table["image_id"].tolist()
    with new_folder(out, store.MARKER, options.overwrite) as folder:
        good, bad = _decode_into(folder, names, listing.files, options)
        rows = list(good)
        table = listing.table.iloc[rows].reset_index(drop=True)
        for field in ("width", "height", "sha256", "phash"):
            table[field] = [getattr(decoded, field) for decoded in good.values()]
        images = store.load_images(folder, len(table), "prepare it again")
        info = _finish(folder, images, table, options, facts, bad)
        del images  # close the map before its folder moves
    _report(out, info)
    return load_dataset(out)


def _prepare_pool(options: PrepareOptions, out: Path) -> Pool:
    root = sources.check_root(options.source, options.root)
    files = sources.list_pool(root)
    _check_space(out, len(files), options.size)
    names = [str(path.relative_to(root)) for path in files]
    provenance = {"kind": "unknown"}
    if options.provenance:
        provenance = {"kind": "declared", "statement": options.provenance}
    with new_folder(out, pool.MARKER, options.overwrite) as folder:
        good, bad = _decode_into(folder, names, files, options)
        pool.save_header(folder, len(good), options.size, provenance, _by_reason(bad))
        save_options(options, folder)
    print(f"{out}: pool of {len(good):,} images of {options.size} px, {len(bad):,} files dropped")
    if not options.provenance:
        print(
            'provenance unknown: the classifier refuses it; declare it with --provenance "TEXT" '
            "if no image was made from validation or test images"
        )
    return pool.load_pool(out)


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
    if not SIZES[0] <= options.size <= SIZES[1]:
        raise UserError(f"--size {options.size}: expected {SIZES[0]} to {SIZES[1]} px")
    if options.provenance is not None and not options.provenance.strip():
        raise UserError("--provenance: empty; say what the images were made by and from")
    folds.check_options(options.folds, options.test_fraction)


def _check_space(out: Path, count: int, size: int) -> None:
    """Raise UserError where the images cannot fit, before they are decoded."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    need, free = count * size * size * 3, shutil.disk_usage(there).free
    if need > free:
        raise UserError(
            f"--out {out}: {count} images of {size} px need {need / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; free some space or choose another --out or --size"
        )


def _lesions(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Targets, and groups as the ids alone make them."""
    none = np.zeros((0, 2), np.int64)
    return table["target"].to_numpy(), folds.group_images(table, none)


# ------------------------------------------------------------------------------------------ work


def _decode_into(
    folder: Path, names: list[str], files: list[Path | None], options: PrepareOptions
) -> tuple[dict[int, Decoded], dict[str, str]]:
    """Write `folder/images.npy` from files. Returns the good ones by row, the bad ones' reasons.

    The good ones' pixels are on disk only. Raises UserError for bad ones unless they are skipped.
    """
    rows = [row for row, path in enumerate(files) if path is not None]
    bad = {name: "absent" for name, path in zip(names, files, strict=True) if path is None}
    good: dict[int, Decoded] = {}
    batch: list[np.ndarray] = []
    with store.image_writer(folder / "images.npy", options.size) as append:
        results = decode_all([files[row] for row in rows], options.size)
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, BadImage):
                bad[names[row]] = result.reason
                continue
            batch.append(result.pixels)
            good[row] = dataclasses.replace(result, pixels=None)
            if len(batch) == BATCH:
                append(np.stack(batch))
                batch.clear()
        if batch:
            append(np.stack(batch))
    if bad and (options.on_error == "fail" or not good):
        raise UserError(_bad_images(bad, len(files), options.root))
    return good, bad


def _bad_images(bad: dict[str, str], total: int, root: Path | None) -> str:
    by_reason = _by_reason(bad)
    lines = [f"\n  {len(names)} {why}: {some(names)}" for why, names in by_reason.items()]
    skip = "" if len(bad) == total else ", or drop these images with --on-error skip"
    return (
        f"{len(bad)} of {total} images cannot be used:{''.join(lines)}\n"
        f"bring them back or mend them below {root}{skip}"
    )


def _by_reason(bad: dict[str, str]) -> dict[str, list[str]]:
    reasons = [reason for reason, _ in Counter(bad.values()).most_common()]
    return {why: [name for name, reason in bad.items() if reason == why] for why in reasons}


def _finish(
    folder: Path,
    images: np.ndarray,
    table: pd.DataFrame,
    options: PrepareOptions,
    facts: dict[str, Any],
    bad: dict[str, str],
) -> dict[str, Any]:
    """Group, split, and write all but the images. Returns what dataset.json says."""
    identical = identical_pairs(table["sha256"].to_numpy())
    near = near_duplicates(images)
    same = table["sha256"].to_numpy()[near]
    near = near[same[:, 0] != same[:, 1]]
    lesion = table["lesion_id"].to_numpy()
    group = folds.group_images(table, np.concatenate([identical, near]))
    target = table["target"].to_numpy()
    fold = folds.assign_folds(target, group, options.folds, options.test_fraction, options.seed)
    table = table.assign(group=group, fold=fold, target=target.astype(np.uint8))
    for column in ("patient_id", "lesion_id", "diagnosis", "sex", "site", "source"):
        table[column] = table[column].astype("str")  # also where every value is missing
    info = {
        "source": options.source,
        "options": as_plain(options),
        **facts,
        "enlarged": int((table[["width", "height"]].min(axis=1) < options.size).sum()),
        "dropped": _by_reason(bad),
        "duplicates": {
            "identical_pairs": len(identical),
            "near_pairs": len(near),
            "near_pairs_across_lesions": int((lesion[near[:, 0]] != lesion[near[:, 1]]).sum()),
        },
        "counts": _counts(table),
    }
    store.save_table(folder, table, info)
    save_options(options, folder)
    return info


def _counts(table: pd.DataFrame) -> dict[str, Any]:
    def count(part: pd.DataFrame) -> dict[str, int]:
        return {
            "images": len(part),
            "malignant": int(part["target"].sum()),
            "groups": part["group"].nunique(),
            "largest_group": int(part["group"].value_counts().max()),
        }

    parts = {("test" if f == TEST else f"fold {f}"): count(p) for f, p in table.groupby("fold")}
    return {**count(table), "parts": parts}


def _report(out: Path, info: dict[str, Any]) -> None:
    """Print what was kept and dropped and why: the same figures as in dataset.json."""
    counts, duplicates = info["counts"], info["duplicates"]
    lines = [
        ("rows in the metadata", info.get("rows")),
        ("drawn from the phantom", info.get("drawn")),
        *((f"dropped: {why}", len(names)) for why, names in info["dropped"].items()),
        ("kept", counts["images"]),
        ("files that no row names (ignored)", info.get("files_without_row") or None),
        ("second copies of a file (ignored)", info.get("second_copies") or None),
        ("smaller than --size (enlarged)", info["enlarged"] or None),
        ("byte-identical pairs (kept, one group)", duplicates["identical_pairs"]),
        ("near-duplicate pairs (kept, one group)", duplicates["near_pairs"]),
        ("  of them across lesion ids", duplicates["near_pairs_across_lesions"]),
    ]
    print(f"\n{out}")
    for label, value in lines:
        if value is not None:
            print(f"  {label:<42}{value:>8,}")
    print(f"\n  {'part':<10}{'images':>9}{'malignant':>11}{'share':>8}{'groups':>9}{'largest':>9}")
    for name, part in [*counts["parts"].items(), ("all", counts)]:
        share = part["malignant"] / part["images"]
        print(
            f"  {name:<10}{part['images']:>9,}{part['malignant']:>11,}{share:>8.1%}"
            f"{part['groups']:>9,}{part['largest_group']:>9,}"
        )


if __name__ == "__main__":
    run(PrepareOptions, prepare, "data.prepare", __doc__)
